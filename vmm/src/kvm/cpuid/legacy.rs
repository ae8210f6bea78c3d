//! What a legacy guest is told of its processor: what KVM supports, less what a sliver has no
//! business with, with a topology of one package whose cores are the vCPUs.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use crate::kvm::vm::KvmError;

/// Leaf 1, ECX: MONITOR, VMX.
const LEAF_1_ECX_OFF: u32 = 1 << 3 | 1 << 5;
/// Leaf 1, ECX: software should know.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, ECX: the local APIC's timer takes a moment of the counter.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, EDX: more than one processor in the package.
const HTT: u32 = 1 << 28;
/// Leaf 6, EAX: the local APIC's timer never stops.
const ARAT: u32 = 1 << 2;
/// Leaf 0x8000_0001, ECX: SVM, performance counters of cores, of northbridges, of caches.
const EXT_ECX_OFF: u32 = 1 << 2 | 1 << 23 | 1 << 24 | 1 << 28;
/// Leaf 0x8000_0001, ECX: the processors of the package are cores.
const CMP_LEGACY: u32 = 1 << 1;

/// The leaves of a legacy sliver's vCPUs.
#[derive(Debug, Clone)]
pub struct LegacyCpuid {
    leaves: Vec<kvm_cpuid_entry2>,
    vcpus: u32,
}

impl LegacyCpuid {
    /// What KVM supports here, for so many vCPUs.
    pub fn new(kvm: &Kvm, vcpus: usize) -> Result<Self, KvmError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::call("KVM_GET_SUPPORTED_CPUID"))?;
        let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Self::of(supported.as_slice(), deadline, vcpus as u32))
    }

    fn of(supported: &[kvm_cpuid_entry2], deadline: bool, vcpus: u32) -> Self {
        let mut leaves = supported.to_vec();
        // Performance counters are the host's: a guest could learn from them of its neighbours.
        leaves.retain(|leaf| leaf.function != 0x8000_0022);
        for leaf in &mut leaves {
            filter(leaf, deadline, vcpus);
        }
        Self { leaves, vcpus }
    }

    /// The leaves for vCPU `index`.
    pub fn of_vcpu(&self, index: usize) -> Result<CpuId, KvmError> {
        let mut leaves = self.leaves.clone();
        for leaf in &mut leaves {
            number(leaf, index as u32, self.vcpus);
        }
        CpuId::from_entries(&leaves).map_err(|_| KvmError::Call {
            call: "listing CPUID leaves",
            source: std::io::ErrorKind::InvalidInput.into(),
        })
    }
}

/// Bits of an APIC identifier that tell the cores of a package apart.
fn core_bits(vcpus: u32) -> u32 {
    vcpus.next_power_of_two().trailing_zeros()
}

fn filter(leaf: &mut kvm_cpuid_entry2, deadline: bool, vcpus: u32) {
    let several = vcpus > 1;
    match (leaf.function, leaf.index) {
        (1, _) => {
            leaf.ecx = leaf.ecx & !LEAF_1_ECX_OFF | HYPERVISOR;
            leaf.ecx |= if deadline { TSC_DEADLINE } else { 0 };
            leaf.edx = leaf.edx & !HTT | if several { HTT } else { 0 };
            leaf.ebx = leaf.ebx & 0xff00_ffff | vcpus.next_power_of_two().min(255) << 16;
        }
        // Caches: the last level is shared by all, the others by none.
        (4 | 0x8000_001d, index) if leaf.eax & 0x1f != 0 => {
            let sharing = if index >= 3 { vcpus - 1 } else { 0 };
            leaf.eax = leaf.eax & 0x3fff | sharing << 14;
            if leaf.function == 4 {
                leaf.eax |= (vcpus.next_power_of_two() - 1).min(0x3f) << 26;
            }
        }
        (6, _) => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (leaf.eax & ARAT, 0, 0, 0),
        (0xa, _) => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0),
        // Topology: threads, then cores (Intel SDM volume 2, CPUID).
        (0xb | 0x1f, 0) => (leaf.eax, leaf.ebx, leaf.ecx) = (0, 1, 1 << 8),
        (0xb | 0x1f, 1) => (leaf.eax, leaf.ebx, leaf.ecx) = (core_bits(vcpus), vcpus, 2 << 8 | 1),
        (0xb | 0x1f, index) => (leaf.eax, leaf.ebx, leaf.ecx) = (0, 0, index),
        (0x8000_0001, _) => {
            leaf.ecx &= !(EXT_ECX_OFF | CMP_LEGACY);
            leaf.ecx |= if several { CMP_LEGACY } else { 0 };
        }
        // Cores of the package, and the bits that number them (AMD64 manual volume 3, E.4.7).
        (0x8000_0008, _) => leaf.ecx = core_bits(vcpus) << 12 | (vcpus - 1),
        _ => {}
    }
}

/// Sets what differs between vCPUs.
fn number(leaf: &mut kvm_cpuid_entry2, index: u32, vcpus: u32) {
    match leaf.function {
        1 => leaf.ebx = leaf.ebx & 0x00ff_ffff | index << 24,
        0xb | 0x1f => leaf.edx = index,
        // Each core has one thread, and the package one node.
        0x8000_001e => {
            (leaf.eax, leaf.ebx, leaf.ecx) = (index, index, 0);
            debug_assert!(index < vcpus);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        }
    }

    fn of(leaves: &[kvm_cpuid_entry2], vcpus: u32, index: usize) -> Vec<kvm_cpuid_entry2> {
        let cpuid = LegacyCpuid::of(leaves, true, vcpus).of_vcpu(index).unwrap();
        cpuid.as_slice().to_vec()
    }

    #[test]
    fn neither_virtualisation_nor_performance_counters_are_passed_on() {
        let leaves = of(
            &[
                leaf(1, 0),
                leaf(0xa, 0),
                leaf(0x8000_0001, 0),
                leaf(0x8000_0022, 0),
            ],
            1,
            0,
        );
        assert_eq!(leaves[0].ecx & (1 << 5 | 1 << 3), 0);
        assert_eq!(leaves[1].eax, 0);
        assert_eq!(leaves[2].ecx & (1 << 2 | 1 << 23), 0);
        assert_eq!(leaves.len(), 3);
    }

    #[test]
    fn vcpus_are_the_cores_of_one_package() {
        for (vcpus, bits) in [(1, 0), (2, 1), (3, 2), (32, 5)] {
            let index = vcpus as usize - 1;
            let leaves = of(
                &[leaf(1, 0), leaf(0xb, 0), leaf(0xb, 1), leaf(0x8000_0008, 0)],
                vcpus,
                index,
            );
            assert_eq!(leaves[0].ebx >> 24, index as u32);
            assert_eq!(leaves[0].edx & HTT != 0, vcpus > 1);
            assert_eq!(
                (leaves[1].eax, leaves[1].ebx, leaves[1].edx),
                (0, 1, index as u32)
            );
            assert_eq!((leaves[2].eax, leaves[2].ebx), (bits, vcpus));
            assert_eq!(leaves[3].ecx, bits << 12 | (vcpus - 1));
        }
    }
}
