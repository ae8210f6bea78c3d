//! The guest's time-stamp counter is the host's: its offset is set to zero, so that one record can
//! serve guest and monitor alike, on every processor and vCPU.
#![allow(
    unsafe_code,
    reason = "one ioctl that kvm-ioctls does not have on x86, and rdtsc"
)]

use std::io;

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

mod number {
    #![allow(missing_docs, reason = "the macro gives no place for a comment")]
    use super::{KVMIO, ioctl_iow_nr, kvm_device_attr};
    ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
}

/// The host's counter.
pub fn host_tsc() -> u64 {
    // SAFETY: rdtsc exists on every x86-64 processor and Linux lets user space execute it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Makes the vCPU's counter equal to the host's.
pub fn share_host_tsc(vcpu: &VcpuFd) -> io::Result<()> {
    let offset = 0u64;
    let attr = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: &raw const offset as u64,
        flags: 0,
    };
    // SAFETY: the descriptor is a vCPU's, `attr` outlives the call, and for this attribute the
    // kernel reads eight bytes at `addr`, where `offset` lives.
    let result = unsafe { ioctl_with_ref(vcpu, number::KVM_SET_DEVICE_ATTR(), &attr) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
