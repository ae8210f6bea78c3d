//! Guests that break every rule of rings and registers, on every device that has them. Whatever
//! they do, the device stops and says why, or does not do it; nobody else notices.

use integration::hostile::Trace::{Answer, Fault, Ignored};
use integration::hostile::{Case, Subject, bear};

/// What no device follows (virtio 1.2, 2.7).
const RINGS: &[Case] = &[
    ("loop", Fault("it has a loop")),
    ("loop-to-itself", Fault("it has a loop")),
    ("longer-than-the-queue", Fault("longer than the queue")),
    ("next-out-of-range", Fault("beyond the queue of")),
    ("head-out-of-range", Fault("beyond the queue of")),
    (
        "address-zero",
        Fault("names 8 bytes at 0x0, which the device cannot reach"),
    ),
    ("address-beyond-ram", Fault("which the device cannot reach")),
    (
        "address-over-the-end",
        Fault("which the device cannot reach"),
    ),
    ("address-wraps", Fault("which the device cannot reach")),
    ("address-in-text", Fault("which the device cannot reach")),
    ("length-zero", Fault("descriptor 0 is empty")),
    ("length-huge", Fault("names 4294967295 bytes")),
    ("total-over-4-gib", Fault("more than 4 GiB")),
    ("readable-after-writable", Fault("follows a writable one")),
    ("indirect-not-negotiated", Fault("which was not negotiated")),
    ("indirect-nested", Fault("is nested")),
    ("indirect-with-next", Fault("indirect descriptor 0 goes on")),
    ("indirect-empty", Fault("names a table of 0 bytes")),
    ("indirect-odd", Fault("names a table of 17 bytes")),
    (
        "indirect-beyond-ram",
        Fault("which the device cannot reach"),
    ),
    ("indirect-next-out-of-range", Fault("beyond the queue of 2")),
    ("indirect-loop", Fault("has a loop")),
    ("avail-forward", Fault("the available index moved by more")),
    ("avail-backward", Fault("the available index moved by more")),
];

/// Where no rings can be, and when nothing may be asked.
const SETUPS: &[Case] = &[
    ("queue-size-0", Fault("size 0 is not a power of two")),
    ("queue-size-3", Fault("size 3 is not a power of two")),
    (
        "queue-size-above-max",
        Fault("is not a power of two from 1 to"),
    ),
    ("queue-size-huge", Fault("size 65536 is not a power of two")),
    ("queue-no-addresses", Fault("at 0x0 does not lie in memory")),
    ("queue-unaligned", Fault("is not aligned to 16 bytes")),
    (
        "queue-beyond-ram",
        Fault("available ring at 0x200000000000 does not lie in memory"),
    ),
    ("queue-over-the-end", Fault("descriptor table")),
    ("used-ring-in-text", Fault("used ring")),
    ("rings-overlap", Fault("rings overlap")),
    ("aliases-the-ring", Answer),
    ("changed-in-flight", Answer),
    ("notify-early", Ignored),
    ("notify-after-reset", Ignored),
    ("initialised-twice", Ignored),
    ("reset-busy", Answer),
    ("wrong-widths", Ignored),
    ("undefined-offsets", Ignored),
    ("read-only-registers", Ignored),
    ("feature-select-missing", Ignored),
    ("queue-select-missing", Ignored),
    ("features-not-offered", Answer),
    ("no-version-1", Answer),
    ("driver-ok-too-soon", Ignored),
    ("config-while-up", Ignored),
    ("device-holes", Ignored),
];

/// Queues of which all chains go one way. A disk's go both ways.
const ONE_WAY: [Subject; 7] = [
    Subject::Console,
    Subject::Net,
    Subject::NetReceive,
    Subject::Rng,
    Subject::Vsock,
    Subject::Balloon,
    Subject::BalloonReporting,
];

#[test]
fn chains_of_the_wrong_direction_stop_every_device() {
    let fault = Fault("direction that this queue does not have");
    for subject in ONE_WAY {
        bear(subject, &[("wrong-direction", fault)]);
    }
}

macro_rules! subjects {
    ($($rings:ident, $setups:ident: $subject:ident;)*) => {
        $(
            #[test]
            fn $rings() {
                bear(Subject::$subject, RINGS);
            }

            #[test]
            fn $setups() {
                bear(Subject::$subject, SETUPS);
            }
        )*
    };
}

subjects! {
    consoles_bear_hostile_rings, consoles_bear_hostile_setups: Console;
    network_cards_bear_hostile_rings, network_cards_bear_hostile_setups: Net;
    receiving_bears_hostile_rings, receiving_bears_hostile_setups: NetReceive;
    disks_bear_hostile_rings, disks_bear_hostile_setups: Disk;
    entropy_sources_bear_hostile_rings, entropy_sources_bear_hostile_setups: Rng;
    vsocks_bear_hostile_rings, vsocks_bear_hostile_setups: Vsock;
    balloons_bear_hostile_rings, balloons_bear_hostile_setups: Balloon;
    reporting_bears_hostile_rings, reporting_bears_hostile_setups: BalloonReporting;
}
