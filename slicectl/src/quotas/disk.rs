//! Limits of a sliver's disks, all together: read from flags, and told.

use vmm::spec::{DiskChange, DiskLimits};

use super::{most, number, read_one, told};
use crate::cli::DiskArgs;
use crate::problem::Problem;
use crate::units::{format_kib_exactly, parse_kib};

/// Reads the flags.
pub(super) fn read(args: &DiskArgs, problems: &mut Vec<Problem>) -> DiskChange {
    DiskChange {
        disk_rate: read_one("--disk-rate", &args.disk_rate, most(rate), problems),
        disk_iops: read_one("--disk-iops", &args.disk_iops, most(number), problems),
    }
}

fn rate(text: &str) -> Result<u64, String> {
    parse_kib(text.strip_suffix("/s").unwrap_or(text))
}

/// Name and value of each limit.
pub(super) fn rows(limits: &DiskLimits) -> Vec<(String, String)> {
    let rate = |bytes| format!("{}/s", format_kib_exactly(bytes >> 10));
    let requests = |count| format!("{count} a second");
    vec![
        (
            "disk rate".to_owned(),
            told(limits.bytes_per_second(), rate),
        ),
        (
            "disk requests".to_owned(),
            told(limits.requests_per_second(), requests),
        ),
    ]
}
