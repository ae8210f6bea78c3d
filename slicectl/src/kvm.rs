//! Whether `/dev/kvm` can be used, and what to do if it cannot.

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
    /// The error number of an attempt to create a VM, if it failed.
    pub create_error: Option<i32>,
}

/// Opens the device and asks it; the error number if it cannot be opened.
pub fn probe() -> Result<KvmFacts, i32> {
    let kvm = Kvm::new().map_err(|error| error.errno())?;
    Ok(KvmFacts {
        api_version: kvm.get_api_version(),
        max_vcpus: kvm.get_max_vcpus(),
        needed_capabilities: kvm.check_extension(Cap::UserMemory)
            && kvm.check_extension(Cap::ImmediateExit),
        create_error: kvm.create_vm().err().map(|error| error.errno()),
    })
}

/// What is wrong with what [`probe`] found, if anything is.
pub fn verdict(probed: &Result<KvmFacts, i32>, user: &str) -> Result<(), Problem> {
    let facts = match probed {
        Ok(facts) => facts,
        Err(errno) => return Err(cannot_open(*errno, user)),
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
fn cannot_open(errno: i32, user: &str) -> Problem {
    match errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Problem::new(
            DEVICE,
            "is not there: the kvm module is not loaded, or this host (or the machine it runs \
             in) offers no virtualisation",
        )
        .mend("sudo modprobe -a kvm_intel kvm_amd; in a container: pass the device, --device /dev/kvm"),
        libc::EACCES | libc::EPERM => Problem::new(DEVICE, format!("{user} may not open it"))
            .mend(format!(
                "sudo usermod -aG kvm {user} and log in again, or for now: \
                 sudo setfacl -m u:{user}:rw {DEVICE}"
            )),
        _ => Problem::new(DEVICE, format!("cannot be opened: {}", error_text(errno)))
            .mend("look at the kernel's messages: sudo dmesg | grep -i kvm"),
    }
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
        assert!(told(Err(libc::ENOENT)).contains("modprobe"));
        let permission = told(Err(libc::EACCES));
        assert!(
            permission.starts_with("/dev/kvm: ada may not open it; "),
            "{permission}"
        );
        assert!(permission.contains("usermod -aG kvm ada"));
        assert!(told(Err(libc::EIO)).contains("dmesg"));
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
