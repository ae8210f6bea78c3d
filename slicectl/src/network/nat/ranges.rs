//! Which ranges of ports a sliver can have, the likeliest first. Pure.
//!
//! A sliver's name decides where the search begins, so that the same name gets the same range
//! whenever that is free, without anybody who remembers.

use vmm::net::ports::PortRange;

/// Ports of a range.
const PORTS: u16 = 1000;

/// Where ranges begin and end: above the ports of most services. Kernels of early 2022 gave other
/// ports than it had to whatever came from below 16384.
const FIRST: u16 = 17_000;
const END: u16 = 65_000;

/// Ranges that a sliver can have on a host whose own connections begin at the ports `own`.
pub(super) fn candidates(sliver: &str, own: (u16, u16), avoid: &[u16]) -> Vec<PortRange> {
    let starts = (FIRST..END).step_by(PORTS.into());
    let ranges = starts.filter_map(|first| PortRange::new(first, first + (PORTS - 1)).ok());
    let mut ranges: Vec<PortRange> = ranges
        .filter(|range| range.last() < own.0 || own.1 < range.first())
        .filter(|range| !avoid.iter().any(|port| range.contains(*port)))
        .collect();
    if !ranges.is_empty() {
        let start = hash(sliver) as usize % ranges.len();
        ranges.rotate_left(start);
    }
    ranges
}

/// FNV-1a: the same on every host and in every version.
fn hash(text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    text.bytes().fold(start, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What Linux begins connections from if nobody says otherwise.
    const USUAL: (u16, u16) = (32_768, 60_999);

    #[test]
    fn ranges_are_disjoint_and_leave_out_the_host_s_own_ports() {
        let ranges = candidates("hello-1", USUAL, &[]);
        assert_eq!(ranges.len(), 15 + 4);
        for (i, range) in ranges.iter().enumerate() {
            assert_eq!(range.count(), 1000);
            assert!(range.last() < USUAL.0 || range.first() > USUAL.1);
            assert!(ranges[..i].iter().all(|other| !range.overlaps(*other)));
        }
        assert_eq!(candidates("x", (40_000, 50_000), &[]).len(), 23 + 14);
        assert!(candidates("x", (1024, 65_535), &[]).is_empty());
    }

    #[test]
    fn the_same_name_begins_at_the_same_range_and_others_elsewhere() {
        let first = |name: &str| candidates(name, USUAL, &[])[0].first();
        assert_eq!(first("hello-1"), first("hello-1"));
        let firsts: BTreeSet<u16> = (0..200).map(|i| first(&format!("web-{i}"))).collect();
        assert_eq!(firsts.len(), 19);
    }

    #[test]
    fn published_ports_are_in_no_range() {
        let ranges = candidates("x", USUAL, &[17_080, 61_000, 80]);
        assert_eq!(ranges.len(), 17);
        assert!(ranges.iter().all(|range| !range.contains(17_080)));
    }
}
