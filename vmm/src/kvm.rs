//! KVM: one virtual machine, its memory and its vCPUs. Nothing here knows of images or devices.

pub mod cpuid;
pub mod interrupts;
pub mod kick;
pub mod mapping;
pub mod memory;
pub mod system;
pub mod tsc;
pub mod vcpu;
pub mod vm;
