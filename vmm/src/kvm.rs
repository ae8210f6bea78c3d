//! KVM: one virtual machine, its memory and its vCPUs. Nothing here knows of images or devices.

pub mod cpuid;
pub mod kick;
pub mod memory;
pub mod tsc;
pub mod vcpu;
pub mod vm;
