//! What a legacy sliver's VM has beside memory: the interrupt controllers of a PC, lines to them,
//! and doorbells. No in-kernel timer (PIT): its thread's time would be nobody's. For the same reason
//! interrupts are raised by the thread that has something to tell: an irqfd of an I/O APIC's input
//! hands them to a worker of the kernel's, later and on nobody's account.
#![allow(
    unsafe_code,
    reason = "hands a descriptor over as another crate's type"
)]

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Weak};

use kvm_bindings::{
    KVM_CAP_HALT_POLL, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch};
use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::eventfd::EventFd;

use super::vm::{Handle, KvmError, Vm};

/// The first of KVM's own pages holds its identity map, the others its task state.
const TASK_STATE_OFFSET: u64 = 0x1000;

/// A line to an interrupt controller. It does not keep the VM.
#[derive(Debug)]
pub struct InterruptLine {
    vm: Weak<Handle>,
    gsi: u32,
}

impl InterruptLine {
    /// A line that leads nowhere, for tests.
    #[cfg(test)]
    pub fn loose() -> Self {
        Self {
            vm: Weak::new(),
            gsi: 0,
        }
    }

    /// Makes an edge on it: an interrupt.
    pub fn trigger(&self) {
        let Some(vm) = self.vm.upgrade() else {
            return;
        };
        // Devices share inputs. An edge while another's is up would be none.
        let _pulse = vm.pulse.lock();
        for level in [true, false] {
            // Fails only for a VM without interrupt controllers.
            let _ = vm.fd.set_irq_line(self.gsi, level);
        }
    }
}

impl Vm {
    /// Gives the VM its interrupt controllers but no performance counters, and KVM four pages at
    /// `kvm_pages` for itself. Comes after the memory and before any vCPU.
    pub fn add_interrupt_controllers(&self, kvm_pages: u64) -> Result<(), KvmError> {
        let vm = self.fd();
        vm.set_identity_map_address(kvm_pages)
            .map_err(KvmError::call("KVM_SET_IDENTITY_MAP_ADDR"))?;
        vm.set_tss_address((kvm_pages + TASK_STATE_OFFSET) as usize)
            .map_err(KvmError::call("KVM_SET_TSS_ADDR"))?;
        vm.create_irq_chip()
            .map_err(KvmError::call("KVM_CREATE_IRQCHIP"))?;
        // A vCPU that waits for an interrupt sleeps at once: looking for it would be billed to the
        // sliver. A KVM without the capability does not look.
        let _ = vm.enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_HALT_POLL,
            ..Default::default()
        });
        // AMD's first four counters are there whatever CPUID says. A KVM before Linux 5.18 has no
        // way to take them away.
        let _ = vm.enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_PMU_CAPABILITY,
            args: [KVM_PMU_CAP_DISABLE.into(), 0, 0, 0],
            ..Default::default()
        });
        Ok(())
    }

    /// A line to input `gsi` of the I/O APIC.
    pub fn interrupt_line(&self, gsi: u32) -> InterruptLine {
        InterruptLine {
            vm: Arc::downgrade(self.handle()),
            gsi,
        }
    }

    /// A descriptor that becomes ready when the guest writes to `address`, whatever and how wide:
    /// the vCPU goes on.
    pub fn doorbell(&self, address: u64) -> Result<OwnedFd, KvmError> {
        let error = |source: io::Error| KvmError::Call {
            call: "eventfd",
            source,
        };
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| error(errno.into()))?;
        let again = doorbell.try_clone().map_err(error)?;
        // SAFETY: the descriptor is an eventfd's, was just duplicated, and its ownership goes to the
        // new value. KVM keeps the event open for itself.
        let event = unsafe { EventFd::from_raw_fd(again.into_raw_fd()) };
        self.fd()
            .register_ioevent(&event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(KvmError::call("KVM_IOEVENTFD"))?;
        Ok(doorbell)
    }
}
