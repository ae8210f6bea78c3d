//! What hostile guests are told to do, and what is left of it for the host to see.

use super::Trace::{Answer, Counter, Fault, Ignored};
use super::{Case, Subject};

/// What no device follows (virtio 1.2, 2.7).
pub const RINGS: &[Case] = &[
    ("loop", Fault("it has a loop")),
    ("loop-to-itself", Fault("it has a loop")),
    ("longer-than-the-queue", Fault("longer than the queue")),
    ("next-out-of-range", Fault("beyond the queue of")),
    ("head-out-of-range", Fault("beyond the queue of")),
    (
        "address-zero",
        Fault("names 8 bytes at 0x0, which the device cannot reach"),
    ),
    (
        "address-in-a-window",
        Fault("which the device cannot reach"),
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
pub const SETUPS: &[Case] = &[
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

/// Requests that no disk may do.
pub const DISK: &[Case] = &[
    ("read-beyond-end", Counter("refused_beyond_end")),
    ("read-over-the-end", Counter("refused_beyond_end")),
    ("sector-overflows", Counter("refused_beyond_end")),
    ("sector-overflows-in-bytes", Counter("refused_beyond_end")),
    ("write-beyond-end", Counter("refused_beyond_end")),
    ("write-sector-overflows", Counter("refused_beyond_end")),
    ("read-of-part-of-a-sector", Counter("refused_ragged_length")),
    (
        "write-of-part-of-a-sector",
        Counter("refused_ragged_length"),
    ),
    ("unknown-type", Counter("refused_unknown_type")),
    ("discard-beyond-end", Counter("refused_beyond_end")),
    ("discard-overflows", Counter("refused_segments")),
    ("discard-of-part-of-a-range", Counter("refused_segments")),
    ("write-zeroes-over-the-end", Counter("refused_beyond_end")),
    ("header-short", Counter("refused_short_header")),
    ("no-header", Counter("refused_short_header")),
    ("id-into-a-short-buffer", Counter("refused_short_serial")),
    ("header-only", Fault("no room for the device's answer")),
    ("status-missing", Fault("no room for the device's answer")),
    ("flush-storm", Answer),
];

/// Writes to a disk that is not written.
pub const READ_ONLY_DISK: &[Case] = &[
    ("write-to-read-only", Counter("refused_read_only")),
    ("write-beyond-end", Counter("refused_read_only")),
    ("write-zeroes-to-read-only", Counter("refused_read_only")),
];

/// Frames that no card takes.
pub const NET: &[Case] = &[
    ("empty-chain-but-a-byte", Counter("tx_dropped_short")),
    ("no-header", Counter("tx_dropped_short")),
    ("header-only", Counter("tx_dropped_short")),
    ("half-an-ethernet-header", Counter("tx_dropped_short")),
    ("oversized", Counter("tx_dropped_oversized")),
    ("gigantic", Counter("tx_dropped_oversized")),
    ("checksum-outside", Counter("tx_dropped_checksum")),
    ("checksum-wraps", Counter("tx_dropped_checksum")),
    ("checksum-not-negotiated", Counter("tx_dropped_checksum")),
    (
        "segments-not-negotiated",
        Counter("tx_dropped_segmentation"),
    ),
    ("segments-of-nothing", Counter("tx_dropped_segmentation")),
    ("segments-of-a-byte", Counter("tx_dropped_segmentation")),
    (
        "segments-of-an-unknown-kind",
        Counter("tx_dropped_segmentation"),
    ),
    ("forged-source", Counter("tx_forged_source")),
    (
        "both-directions",
        Fault("direction that this queue does not have"),
    ),
    ("full-rings", Counter("tx_frames")),
];

/// Buffers that no frame fits into.
pub const NET_RECEIVE: &[Case] = &[
    ("buffer-without-room-for-a-header", Fault("11 bytes")),
    (
        "buffers-too-short-for-frames",
        Counter("rx_dropped_truncated"),
    ),
    ("merged-buffers-that-are-the-ring", Answer),
    ("no-buffers", Counter("rx_starved")),
];

/// Packets that no socket device follows.
pub const VSOCK: &[Case] = &[
    ("short-header", Counter("bad_packets")),
    ("forged-sender", Counter("forged_packets")),
    ("forged-as-the-host", Counter("forged_packets")),
    ("to-nobody", Counter("bad_packets")),
    ("to-itself", Counter("bad_packets")),
    ("unknown-operation", Counter("bad_packets")),
    ("unknown-type", Counter("bad_packets")),
    ("length-beyond-the-chain", Counter("bad_packets")),
    ("length-wraps", Counter("bad_packets")),
    ("request-with-data", Counter("refused")),
    ("data-without-a-connection", Answer),
    ("credit-without-a-connection", Answer),
    ("nobody-listens", Counter("refused")),
    ("requested-twice", Counter("protocol_violations")),
    ("more-than-the-credit", Counter("credit_violations")),
    ("connection-flood", Counter("refused")),
    ("connection-flood-unread", Counter("accepted")),
    ("refusals-unread", Counter("refused")),
];

/// Buffers that no packet fits into.
pub const VSOCK_RECEIVE: &[Case] = &[
    (
        "buffer-to-be-read",
        Fault("direction that this queue does not have"),
    ),
    ("buffer-without-room-for-a-header", Counter("short_buffers")),
];

/// Pages that are not the guest's to give up.
pub const BALLOON: &[Case] = &[
    ("pages-of-text", Counter("refused_pages")),
    ("pages-beyond-ram", Counter("refused_pages")),
    ("pages-below-ram", Counter("refused_pages")),
    ("pages-of-a-window", Counter("refused_pages")),
    ("the-last-pages-there-are", Counter("refused_pages")),
    ("part-of-a-number", Answer),
];

/// Too much of what is random.
pub const RNG: &[Case] = &[("greed", Counter("waits"))];

/// What the chains of a queue must not be, if they all go one way.
pub const ONE_WAY: &[Case] = &[(
    "wrong-direction",
    Fault("direction that this queue does not have"),
)];

/// Interrupts, where there are any.
const INTERRUPTS: &[Case] = &[
    ("interrupt-for-each", Answer),
    ("interrupt-unacknowledged", Answer),
    ("interrupt-suppressed", Answer),
    ("interrupt-by-index", Answer),
    ("interrupt-status", Answer),
    ("interrupt-acknowledged-early", Answer),
    ("interrupt-before-driver-ok", Answer),
    ("interrupt-after-reset", Answer),
    ("interrupt-of-a-fault", Fault("it has a loop")),
    ("doorbells-while-masked", Answer),
    ("work-while-masked", Answer),
    ("across-the-window", Ignored),
];

/// Ports, and addresses where nothing is.
const PORTS: &[Case] = &[
    ("ports-of-every-width", Answer),
    ("ports-of-nothing", Answer),
    ("ports-by-the-string", Answer),
    ("serial-flood", Answer),
    ("serial-registers", Answer),
    ("holes", Answer),
];

/// What no computer can be asked: all of its RAM is a device's to reach, from address 0 on, where
/// its kernel is, too.
const SLICE_ONLY: &[&str] = &[
    "address-zero",
    "address-in-text",
    "used-ring-in-text",
    "pages-of-text",
    "pages-below-ram",
];

/// What is left of them on a computer. Rings at address 0 are in memory, all three of them; a
/// doorbell is an eventfd, and nobody is there to count those that mean nothing.
const OTHERWISE: &[Case] = &[
    ("queue-no-addresses", Fault("two of its rings overlap")),
    ("notify-early", Answer),
    ("notify-after-reset", Answer),
];

/// Everything that a legacy guest is told to do to a device.
pub fn legacy(subject: Subject) -> Vec<Case> {
    let own = match subject {
        Subject::Disk => DISK,
        Subject::ReadOnlyDisk => return READ_ONLY_DISK.to_vec(),
        Subject::Net => NET,
        Subject::NetReceive => NET_RECEIVE,
        Subject::Vsock => VSOCK,
        // Without a packet to give, nobody looks into its rings.
        Subject::VsockReceive => return VSOCK_RECEIVE.to_vec(),
        Subject::Balloon => BALLOON,
        Subject::Rng => RNG,
        Subject::Console => PORTS,
        Subject::BalloonReporting => &[],
    };
    let one_way = if subject == Subject::Disk {
        &[]
    } else {
        ONE_WAY
    };
    // A frame comes when it comes, and interrupts.
    let interrupts = match subject {
        Subject::NetReceive => &[],
        _ => INTERRUPTS,
    };
    let mut cases = [RINGS, SETUPS, own, one_way, interrupts].concat();
    cases.retain(|(name, _)| !SLICE_ONLY.contains(name));
    for case in &mut cases {
        let otherwise = OTHERWISE.iter().find(|(name, _)| *name == case.0);
        *case = *otherwise.unwrap_or(case);
    }
    cases
}
