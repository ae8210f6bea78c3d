//! Keeps the monitor's resident memory small: a node runs a thousand of them.
#![allow(
    unsafe_code,
    reason = "advises the kernel about this program's own pages"
)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat};

unsafe extern "C" {
    /// The program's first byte and the first byte after its code, named by the linker.
    static __executable_start: u8;
    static etext: u8;
}

/// One heap for all threads. Each further one reserves address space and touches pages of its own
/// at the first allocation of each thread, which here is on the way to the first instruction.
pub fn use_one_arena() {
    // SAFETY: sets a parameter of the allocator; called before other threads exist.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives back the pages of code and constants that the start needed. What is still in use comes
/// back with a few minor faults; the rest, most of a megabyte, does not.
pub fn shed_startup_code() {
    const PAGE: usize = slice_abi::layout::PAGE_SIZE as usize;
    let start = (&raw const __executable_start as usize).next_multiple_of(PAGE);
    let end = (&raw const etext as usize) / PAGE * PAGE;
    if end > start {
        // SAFETY: the range holds only this program's read-only, file-backed pages, which the
        // kernel reads again from the file when they are next used. Gaps are an error it returns.
        unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED) };
    }
}

/// What of this process's memory is the guest's and what its own, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Guest memory that the host has backed with memory of its own.
    pub guest_kib: u64,
    /// Proportional set size of everything else.
    pub own_kib: u64,
}

/// What proc(5) tells of this process's memory.
#[derive(Debug)]
pub struct MemoryMaps {
    smaps: File,
    pagemap: File,
}

impl MemoryMaps {
    /// Opens it in this process's own directory of proc(5).
    pub fn open(process: impl AsFd) -> io::Result<Self> {
        let open = |name| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            openat(&process, name, flags, Mode::empty()).map(File::from)
        };
        Ok(Self {
            smaps: open("smaps")?,
            pagemap: open("pagemap")?,
        })
    }

    /// Which pages are backed (proc_pid_pagemap(5)).
    pub fn pagemap(&self) -> &File {
        &self.pagemap
    }

    /// Reads the use of memory, with guest memory at `guest` in this process (start, length). What
    /// the kernel does not tell counts as nothing.
    pub fn usage(&self, guest: (u64, u64)) -> Usage {
        let mut smaps = String::new();
        let _ = (&self.smaps).read_to_string(&mut smaps);
        tally(&smaps, guest)
    }
}

/// Adds up an `smaps` file (proc_pid_smaps(5)).
fn tally(smaps: &str, (start, len): (u64, u64)) -> Usage {
    let mut usage = Usage::default();
    let mut in_guest = false;
    let kib = |text: &str| {
        text.trim()
            .strip_suffix(" kB")
            .and_then(|n| n.trim().parse().ok())
    };
    for line in smaps.lines() {
        if let Some(size) = line.strip_prefix("Rss:").and_then(kib) {
            usage.guest_kib += if in_guest { size } else { 0 };
        } else if let Some(size) = line.strip_prefix("Pss:").and_then(kib) {
            usage.own_kib += if in_guest { 0 } else { size };
        } else if let Some((from, _)) = line.split_once('-')
            && let Ok(from) = u64::from_str_radix(from, 16)
        {
            in_guest = (start..start + len).contains(&from);
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_told_from_the_monitor_s() {
        let smaps = "\
            00400000-00500000 r-xp 00000000 fe:00 12   /usr/bin/slicevmm\n\
            Rss:                 900 kB\nPss:                 300 kB\nPss_Dirty:  0 kB\n\
            7f0000000000-7f0000200000 rw-p 00000000 00:00 0\n\
            Rss:                  28 kB\nPss:                  28 kB\n\
            7f0000200000-7f0004000000 rw-p 00000000 00:00 0\n\
            Rss:                2048 kB\nPss:                2048 kB\n\
            7fff00000000-7fff00001000 rw-p 00000000 00:00 0   [stack]\n\
            Rss:                  12 kB\nPss:                  12 kB\n";
        let usage = tally(smaps, (0x7f00_0000_0000, 64 << 20));
        assert_eq!(
            usage,
            Usage {
                guest_kib: 2076,
                own_kib: 312
            }
        );
        assert_eq!(tally("", (0, 1)), Usage::default());
    }
}
