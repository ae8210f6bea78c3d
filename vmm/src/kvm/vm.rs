//! A virtual machine: opening KVM, creating the VM, giving it memory. No interrupt controller, no
//! timer: a native sliver needs neither, and both cost milliseconds and unaccounted host threads.
//! What a legacy sliver has instead is in [`interrupts`](super::interrupts).
#![allow(unsafe_code, reason = "registers memory with KVM")]

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_API_VERSION, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::memory::GuestRam;
use super::system::SystemArea;

/// What KVM refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum KvmError {
    #[error(
        "/dev/kvm does not exist: this machine has no KVM; load kvm_intel or kvm_amd \
         (modprobe kvm_amd), or enable virtualisation in the firmware or the hypervisor above"
    )]
    Missing,
    #[error(
        "no permission for /dev/kvm: add this user to its group (usermod -aG kvm USER) or run as root"
    )]
    Permission,
    #[error("cannot open /dev/kvm: {0}")]
    Open(io::Error),
    #[error("/dev/kvm speaks API version {0}, needed is {KVM_API_VERSION}")]
    ApiVersion(i32),
    #[error("{call} failed: {source}")]
    Call {
        call: &'static str,
        source: io::Error,
    },
}

impl KvmError {
    /// Turns the error of a call into one that names it.
    pub fn call(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |error| Self::Call {
            call,
            source: io::Error::from_raw_os_error(error.errno()),
        }
    }
}

/// Opens KVM's device.
pub fn open_device() -> Result<File, KvmError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/kvm")
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KvmError::Missing,
            io::ErrorKind::PermissionDenied => KvmError::Permission,
            _ => KvmError::Open(error),
        })
}

/// KVM behind its open device, if its version is the one known here.
pub fn open(device: File) -> Result<Kvm, KvmError> {
    // SAFETY: the descriptor is open, is /dev/kvm's, and its ownership goes to the new value.
    let kvm = unsafe { std::os::fd::FromRawFd::from_raw_fd(device.into_raw_fd()) };
    let kvm: Kvm = kvm;
    match kvm.get_api_version() {
        version if version == KVM_API_VERSION as i32 => Ok(kvm),
        version => Err(KvmError::ApiVersion(version)),
    }
}

/// The memory of a VM, kept for as long as anything could run in it.
#[derive(Debug)]
pub(super) struct Memory {
    ram: GuestRam,
    /// A native guest's.
    _system: Option<Arc<SystemArea>>,
}

/// KVM's handle to a VM.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) fd: VmFd,
    /// Held while a line to an interrupt controller is up.
    pub(super) pulse: Mutex<()>,
}

/// A VM with its memory. Memory goes in before any vCPU exists: a slot set after an in-kernel
/// device would wait milliseconds for a grace period.
#[derive(Debug)]
pub struct Vm {
    handle: Arc<Handle>,
    memory: Arc<Memory>,
}

impl Vm {
    /// Creates a VM with this RAM, and a native guest's with its system area at an address.
    pub fn new(
        kvm: &Kvm,
        ram: GuestRam,
        system: Option<(Arc<SystemArea>, u64)>,
    ) -> Result<Self, KvmError> {
        let fd = kvm.create_vm().map_err(KvmError::call("KVM_CREATE_VM"))?;
        let parts = ram.parts().iter();
        let mut slots: Vec<_> = parts
            .map(|part| (part.guest.start, part.host, part.guest.len))
            .collect();
        if let Some((area, base)) = &system {
            let (host, len) = area.host_range();
            slots.push((*base, host, len));
        }
        for (slot, (guest, host, len)) in slots.into_iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: guest,
                memory_size: len,
                userspace_addr: host,
            };
            // SAFETY: the memory is mapped. A guest runs in it only through a vCPU, and each of
            // those holds a reference of its own to the memory (see `create_vcpu`).
            unsafe { fd.set_user_memory_region(region) }
                .map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let memory = Arc::new(Memory {
            ram,
            _system: system.map(|(area, _)| area),
        });
        let handle = Arc::new(Handle {
            fd,
            pulse: Mutex::default(),
        });
        Ok(Self { handle, memory })
    }

    /// Creates vCPU `index`, and gives with it what has to outlive it.
    pub(super) fn create_vcpu(&self, index: usize) -> Result<(VcpuFd, Arc<Memory>), KvmError> {
        let fd = self
            .fd()
            .create_vcpu(index as u64)
            .map_err(KvmError::call("KVM_CREATE_VCPU"))?;
        Ok((fd, Arc::clone(&self.memory)))
    }

    /// The guest's RAM.
    pub fn ram(&self) -> &GuestRam {
        &self.memory.ram
    }

    /// KVM's handle.
    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// KVM's descriptor.
    pub(super) fn fd(&self) -> &VmFd {
        &self.handle.fd
    }
}
