//! Whether `/dev/kvm` can be used, and what to do if it cannot.

use std::os::unix::fs::MetadataExt;

use kvm_ioctls::{Cap, Kvm};

use crate::problem::Problem;

/// The device.
pub const DEVICE: &str = "/dev/kvm";

/// The one version of the interface that there has been since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// What the device offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvmFacts {
    /// `KVM_GET_API_VERSION`.
    pub api_version: i32,
    /// The most vCPUs of one VM.
    pub max_vcpus: usize,
    /// Whether guest memory can be user memory and a run can be cut short: slivers need both.
    pub needed_capabilities: bool,
    /// The error number of an attempt to create a VM, if there was one and it failed.
    pub create_error: Option<i32>,
}

/// Why the device cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CannotOpen {
    /// The error number.
    pub errno: i32,
    /// The group whose members may open it, if there is one.
    pub group: Option<String>,
}

impl CannotOpen {
    /// Whether it is there, but not for this user.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.errno, libc::EACCES | libc::EPERM)
    }
}

/// Opens the device and asks it. `thoroughly` means to create a VM, too, which takes a while.
pub fn probe(thoroughly: bool) -> Result<KvmFacts, CannotOpen> {
    let kvm = Kvm::new().map_err(|error| CannotOpen {
        errno: error.errno(),
        group: group_that_may_open(),
    })?;
    Ok(KvmFacts {
        api_version: kvm.get_api_version(),
        max_vcpus: kvm.get_max_vcpus(),
        needed_capabilities: kvm.check_extension(Cap::UserMemory)
            && kvm.check_extension(Cap::ImmediateExit),
        create_error: thoroughly
            .then(|| kvm.create_vm().err())
            .flatten()
            .map(|error| error.errno()),
    })
}

/// What is wrong with what [`probe`] found, if anything is.
pub fn verdict(probed: &Result<KvmFacts, CannotOpen>, user: &str) -> Result<(), Problem> {
    let facts = match probed {
        Ok(facts) => facts,
        Err(error) => return Err(cannot_open(error, user)),
    };
    if facts.api_version != API_VERSION {
        return Err(Problem::new(
            DEVICE,
            format!(
                "has API version {}, {API_VERSION} is needed",
                facts.api_version
            ),
        )
        .mend("run a stock Linux kernel of 5.10 or later"));
    }
    if !facts.needed_capabilities {
        return Err(Problem::new(
            DEVICE,
            "this kernel's KVM lacks user memory or immediate exit",
        )
        .mend("run a stock Linux kernel of 5.10 or later"));
    }
    match facts.create_error {
        None => Ok(()),
        Some(errno) => Err(Problem::new(
            DEVICE,
            format!("opens, but a VM cannot be created: {}", error_text(errno)),
        )
        .mend("look at the kernel's messages: sudo dmesg | grep -i kvm")),
    }
}

/// The problem with a device that does not open.
fn cannot_open(error: &CannotOpen, user: &str) -> Problem {
    if error.is_forbidden() {
        let for_now = format!("sudo setfacl -m u:{user}:rw {DEVICE}");
        let mend = match &error.group {
            Some(group) => format!(
                "sudo usermod -aG {group} {user} and log in again, or until the next boot: {for_now}"
            ),
            None => for_now,
        };
        return Problem::new(DEVICE, format!("may not be opened by {user}")).mend(mend);
    }
    match error.errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Problem::new(
            DEVICE,
            "is not there: the kvm module is not loaded, or this host (or the machine it runs \
             in) offers no virtualisation",
        )
        .mend(
            "sudo modprobe -a kvm_intel kvm_amd; in a container: pass the device, \
             --device /dev/kvm",
        ),
        errno => Problem::new(DEVICE, format!("cannot be opened: {}", error_text(errno)))
            .mend("look at the kernel's messages: sudo dmesg | grep -i kvm"),
    }
}

/// The device's group, if its members may open it and it is not root's.
fn group_that_may_open() -> Option<String> {
    let metadata = std::fs::metadata(DEVICE).ok()?;
    if metadata.mode() & 0o060 != 0o060 || metadata.gid() == 0 {
        return None;
    }
    crate::person::group_name(metadata.gid())
}

fn error_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> KvmFacts {
        KvmFacts {
            api_version: 12,
            max_vcpus: 8,
            needed_capabilities: true,
            create_error: None,
        }
    }

    #[test]
    fn a_complete_kvm_is_fine() {
        assert_eq!(verdict(&Ok(good()), "ada"), Ok(()));
    }

    #[test]
    fn each_way_to_fail_says_what_why_and_what_mends_it() {
        let told = |probed| verdict(&probed, "ada").expect_err("a problem").to_string();
        let closed = |errno, group: Option<&str>| {
            Err(CannotOpen {
                errno,
                group: group.map(str::to_owned),
            })
        };
        assert!(told(closed(libc::ENOENT, None)).contains("modprobe"));
        let permission = told(closed(libc::EACCES, Some("kvm")));
        assert!(
            permission.starts_with("/dev/kvm: may not be opened by ada; "),
            "{permission}"
        );
        assert!(permission.contains("usermod -aG kvm ada"));
        let permission = told(closed(libc::EACCES, None));
        assert!(
            permission.ends_with("sudo setfacl -m u:ada:rw /dev/kvm"),
            "{permission}"
        );
        assert!(told(closed(libc::EIO, None)).contains("dmesg"));
        let old = told(Ok(KvmFacts {
            api_version: 11,
            ..good()
        }));
        assert!(old.contains("version 11"), "{old}");
        assert!(
            told(Ok(KvmFacts {
                needed_capabilities: false,
                ..good()
            }))
            .contains("lacks")
        );
        let busy = told(Ok(KvmFacts {
            create_error: Some(libc::ENOMEM),
            ..good()
        }));
        assert!(busy.contains("cannot be created"), "{busy}");
    }
}
