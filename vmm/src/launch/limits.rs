//! What a monitor may use of the node, beside what its quotas say: guest memory and processor time have
//! limits of their own.

use std::fs::{self, Metadata};

use rustix::fs::{FileType, fstat};
use rustix::process::Resource;

use super::Launch;
use crate::jail;
use crate::spec::{DiskSpec, SliverSpec};

/// Descriptors: what is handed in, queues, timers, clients and connections.
const DESCRIPTORS: u64 = 1024;

/// Threads beyond those of the vCPUs and the disks.
const THREADS: u64 = 16;

/// Threads that work for one disk, ours or the kernel's.
const THREADS_OF_DISK: u64 = 8;

/// Address space beyond the guest's memory: the program, stacks, queues and the heap.
const ADDRESS_SPACE: u64 = 2 << 30;

/// The exit record, the seed, the headers of a core.
const OTHER_FILES: u64 = 64 << 20;

/// The limits of a sliver's monitor.
pub(super) fn limits(launch: &Launch<'_>, spec: &SliverSpec) -> Vec<(Resource, u64)> {
    let address_space = spec.memory_bytes().saturating_add(ADDRESS_SPACE);
    let mut limits = vec![
        (Resource::Core, 0),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::As, address_space),
    ];
    limits.extend(file_size(launch, spec).map(|most| (Resource::Fsize, most)));
    // Counted for each user: only root's slivers have one each.
    if jail::gives_own_user() {
        let disks = spec.disks().len() as u64;
        let threads = spec.vcpus() as u64 + THREADS + disks * THREADS_OF_DISK;
        limits.push((Resource::Nproc, threads));
    }
    limits
}

/// How long a file may become by what the monitor writes: no longer than its disks are, which it never
/// makes longer. `None` if what its guest prints, or its own messages, go into a file without end, and
/// for block devices, which have an end of their own.
fn file_size(launch: &Launch<'_>, spec: &SliverSpec) -> Option<u64> {
    let is_file = |fd| fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    if is_file(launch.console) || is_file(launch.errors) {
        return None;
    }
    let len = |disk: &DiskSpec| {
        let metadata = fs::metadata(disk.path()).ok();
        Some(metadata.filter(Metadata::is_file)?.len())
    };
    let disks: Vec<u64> = spec.disks().iter().map(len).collect::<Option<_>>()?;
    let disks = disks.into_iter().max().unwrap_or(0);
    let core = launch.core.map_or(0, |_| spec.memory_bytes());
    Some(disks.max(core) + OTHER_FILES)
}
