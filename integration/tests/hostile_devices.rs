//! Guests that break the rules of one kind of device: requests, frames and packets that nobody may
//! make. The guest is refused, the reason is counted or told, nobody else notices.

use integration::hostile::Trace::{Answer, Counter, Fault};
use integration::hostile::{Subject, bear};

#[test]
fn disks_bear_hostile_requests() {
    bear(
        Subject::Disk,
        &[
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
        ],
    );
}

#[test]
fn read_only_disks_bear_hostile_writes() {
    bear(
        Subject::ReadOnlyDisk,
        &[
            ("write-to-read-only", Counter("refused_read_only")),
            ("write-beyond-end", Counter("refused_read_only")),
            ("write-zeroes-to-read-only", Counter("refused_read_only")),
        ],
    );
}

#[test]
fn network_cards_bear_hostile_frames() {
    bear(
        Subject::Net,
        &[
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
        ],
    );
}

#[test]
fn network_cards_bear_hostile_buffers() {
    bear(
        Subject::NetReceive,
        &[
            ("buffer-without-room-for-a-header", Fault("11 bytes")),
            (
                "buffers-too-short-for-frames",
                Counter("rx_dropped_truncated"),
            ),
            ("merged-buffers-that-are-the-ring", Answer),
            ("no-buffers", Counter("rx_starved")),
        ],
    );
}

#[test]
fn vsocks_bear_hostile_packets() {
    bear(
        Subject::Vsock,
        &[
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
        ],
    );
}

#[test]
fn vsocks_bear_hostile_buffers() {
    bear(
        Subject::VsockReceive,
        &[
            (
                "buffer-to-be-read",
                Fault("direction that this queue does not have"),
            ),
            ("buffer-without-room-for-a-header", Counter("short_buffers")),
        ],
    );
}

#[test]
fn balloons_bear_hostile_pages() {
    bear(
        Subject::Balloon,
        &[
            ("pages-of-text", Counter("refused_pages")),
            ("pages-beyond-ram", Counter("refused_pages")),
            ("pages-below-ram", Counter("refused_pages")),
            ("the-last-pages-there-are", Counter("refused_pages")),
            ("part-of-a-number", Answer),
        ],
    );
}

#[test]
fn entropy_sources_bear_greed() {
    bear(Subject::Rng, &[("greed", Counter("waits"))]);
}
