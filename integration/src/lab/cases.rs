//! The cases: each boots guests on a host with complete virtualisation and asserts what they do.
//!
//! A case is an ordinary function that panics if something is not as it should be. Every guest
//! sleeps once, in its init: a fault of the clock hides from a guest that never does.

mod beside;
mod boot;
mod disk;
mod end;
mod foreign;
mod hostile;
mod memory;
mod net;
mod peer;
mod smp;
mod ssh;
mod time;
mod vsock;

use std::time::Duration;

use super::inside::Stage;
use super::part::Part;

pub use peer::{INIT_MS, PSS_MIB};

/// A case.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// The files it needs.
    pub parts: &'static [Part],
    /// What it does.
    pub run: fn(&Stage),
    /// How long it and its host may take.
    pub patience: Duration,
    /// MiB of memory of an emulated host.
    pub host_mib: u32,
    /// Whether it runs when nothing is named.
    pub usual: bool,
}

/// Debian's kernel and its RAM disk.
const LINUX: &[Part] = &[Part::BzImage, Part::Initrd];

impl Case {
    const fn new(name: &'static str, about: &'static str, run: fn(&Stage)) -> Self {
        Self {
            name,
            about,
            parts: LINUX,
            run,
            patience: Duration::from_secs(180),
            host_mib: 1024,
            usual: true,
        }
    }

    const fn with(mut self, parts: &'static [Part]) -> Self {
        self.parts = parts;
        self
    }

    const fn within(mut self, seconds: u64) -> Self {
        self.patience = Duration::from_secs(seconds);
        self
    }

    const fn host_mib(mut self, mib: u32) -> Self {
        self.host_mib = mib;
        self
    }

    const fn unusual(mut self) -> Self {
        self.usual = false;
        self
    }
}

/// Everything there is.
pub const CASES: &[Case] = &[
    Case::new(
        "bzimage",
        "Debian's kernel as it is shipped boots",
        boot::bzimage,
    ),
    Case::new("pvh", "its ELF file boots by PVH", boot::pvh).with(&[Part::Vmlinux, Part::Initrd]),
    Case::new("shell", "a shell in the RAM disk answers", boot::shell),
    Case::new(
        "root-disk",
        "a root disk comes to a login prompt",
        boot::root_disk,
    )
    .with(&[Part::BzImage, Part::Initrd, Part::RootDisk]),
    Case::new("network", "ping and TCP both ways", net::both_ways),
    Case::new(
        "disk",
        "256 MiB are written, synced and read back",
        disk::written_and_checked,
    )
    .within(400)
    .host_mib(1536),
    Case::new("vsock", "streams both ways", vsock::both_ways),
    Case::new("two-vcpus", "both are online and work", smp::two),
    Case::new("many-vcpus", "32 are online", smp::many).within(400),
    Case::new(
        "poweroff",
        "the end of a guest that powers off",
        end::poweroff,
    ),
    Case::new("reboot", "the end of a guest that reboots", end::reboot),
    Case::new("panic", "the end of a kernel that panics", end::panic),
    Case::new(
        "triple-fault",
        "the end of a guest that faults thrice",
        end::triple_fault,
    ),
    Case::new(
        "power-button",
        "a guest that listens powers off",
        end::power_button,
    ),
    Case::new(
        "pause",
        "after a pause of 30 s the clock is right",
        time::pause,
    ),
    Case::new(
        "free-pages",
        "memory that is free goes back to the host",
        memory::free_pages,
    ),
    Case::new(
        "ssh",
        "a key from the seed opens the guest's ssh",
        ssh::key_of_the_seed,
    )
    .with(&[Part::BzImage, Part::Initrd, Part::Ssh]),
    Case::new(
        "side-by-side",
        "a native slice beside a guest",
        beside::native,
    )
    .with(&[Part::BzImage, Part::Initrd, Part::Spin]),
    Case::new(
        "memtest",
        "memtest86+ comes to its screen",
        foreign::memtest,
    )
    .with(&[Part::Memtest]),
    Case::new(
        "hostile",
        "devices bear a kernel that misbehaves, with interrupts",
        hostile::kernels,
    )
    .with(&[Part::Metal])
    .within(900),
    Case::new(
        "init",
        "how long a guest takes to its init, and how much memory",
        peer::ours,
    )
    .host_mib(2048)
    .unusual(),
    Case::new("init-qemu", "the same with QEMU's microvm", peer::qemu)
        .with(&[Part::BzImage, Part::Initrd, Part::Qemu])
        .host_mib(2048)
        .unusual(),
];

/// The case of this name.
pub fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_of_a_command_line_and_names_one_case() {
        for case in CASES {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(case.name.chars().all(word), "{}", case.name);
            let same = CASES.iter().filter(|other| other.name == case.name);
            assert_eq!(same.count(), 1, "{}", case.name);
        }
    }
}
