//! Guests that break every rule of rings and registers, on every device that has them. Whatever
//! they do, the device stops and says why, or does not do it; nobody else notices.

use integration::hostile::{Machine, Subject, bear, cases};

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
    for subject in ONE_WAY {
        bear(&Machine::slice(), subject, cases::ONE_WAY);
    }
}

macro_rules! subjects {
    ($($rings:ident, $setups:ident: $subject:ident;)*) => {
        $(
            #[test]
            fn $rings() {
                bear(&Machine::slice(), Subject::$subject, cases::RINGS);
            }

            #[test]
            fn $setups() {
                bear(&Machine::slice(), Subject::$subject, cases::SETUPS);
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
