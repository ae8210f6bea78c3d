//! What a sliver's devices do, a line each: whether they work, what they have done, what went wrong.

use vmm::control::proto::{DeviceStatus, ExitCounts};

use crate::text::printable;
use crate::units::format_bytes;

/// What people ask first, in this order; told also when it is nothing.
const FIRST: [&str; 16] = [
    "printed_bytes",
    "input_bytes",
    "tx_frames",
    "tx_bytes",
    "rx_frames",
    "rx_bytes",
    "reads",
    "read_bytes",
    "writes",
    "write_bytes",
    "random_bytes",
    "accepted",
    "from_guest_bytes",
    "to_guest_bytes",
    "target_pages",
    "actual_pages",
];

/// How often somebody looked at it: nothing about what it did.
const LOOKS: [&str; 2] = ["doorbells", "batches"];

/// Name and line of each device. All that a device counts is in the line, unless it is zero and
/// nobody asks for it first.
pub(super) fn rows(devices: &[DeviceStatus]) -> impl Iterator<Item = Vec<String>> + '_ {
    devices
        .iter()
        .map(|device| vec![printable(&device.tag), line(device)])
}

fn line(device: &DeviceStatus) -> String {
    let counters = &device.counters;
    let first = FIRST
        .iter()
        .filter_map(|name| Some((*name, *counters.get(*name)?)));
    let others = counters
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .filter(|(name, value)| *value > 0 && !FIRST.contains(name) && !LOOKS.contains(name));
    let mut told = vec![if device.up { "up" } else { "down" }.to_owned()];
    told.extend(
        first
            .chain(others)
            .map(|(name, value)| counter(name, value)),
    );
    let mut line = told.join(", ");
    if let Some(fault) = &device.fault {
        line.push_str("; last fault: ");
        line.push_str(&printable(fault));
    }
    line
}

/// A counter as words: `tx_bytes` 2048 is "tx 2048 B".
fn counter(name: &str, value: u64) -> String {
    match name.strip_suffix("_bytes") {
        Some(name) => format!("{} {}", words(name), format_bytes(value)),
        None => format!("{} {value}", words(name)),
    }
}

fn words(name: &str) -> String {
    printable(&name.replace('_', " "))
}

/// Why vCPUs left the guest.
pub(super) fn exits(exits: &ExitCounts) -> String {
    let ExitCounts {
        device_writes,
        device_reads,
        idle,
        other,
        ..
    } = exits;
    format!(
        "idle {idle}, device writes {device_writes}, device reads {device_reads}, other {other}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(tag: &str, counters: &[(&str, u64)]) -> DeviceStatus {
        DeviceStatus {
            tag: tag.to_owned(),
            up: true,
            fault: None,
            counters: counters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect(),
        }
    }

    #[test]
    fn a_device_has_a_line_with_what_it_did_first_and_then_all_that_is_not_zero() {
        let counters = [
            ("batches", 9),
            ("doorbells", 7),
            ("rx_bytes", 1 << 20),
            ("rx_frames", 3),
            ("rx_errors", 0),
            ("tx_bytes", 0),
            ("tx_dropped_short", 2),
            ("tx_frames", 0),
        ];
        let told: Vec<_> = rows(&[device("net0", &counters)]).collect();
        let line = "up, tx frames 0, tx 0 B, rx frames 3, rx 1024 KiB, tx dropped short 2";
        assert_eq!(told, [["net0", line]]);
    }

    #[test]
    fn a_fault_is_told_on_the_same_line() {
        let mut device = device("disk0\x1b", &[("faults", 1)]);
        device.up = false;
        device.fault = Some("queue 0: a loop\n".to_owned());
        let told = rows(&[device]).next().unwrap();
        assert!(!told[0].contains('\x1b'));
        assert!(
            told[1].starts_with("down, faults 1; last fault: queue 0: a loop"),
            "{told:?}"
        );
        assert!(!told[1].contains('\n'));
    }
}
