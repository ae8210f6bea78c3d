//! What a legacy guest is told of its processor: what KVM supports, less what a sliver has no
//! business with, with a topology of one package whose cores are the vCPUs.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
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

/// The leaf of the topology: its levels are told apart by the index (Intel SDM volume 2, CPUID).
const TOPOLOGY: u32 = 0xb;
/// More of the same, for processors that have more levels.
const MORE_TOPOLOGY: u32 = 0x1f;
/// Leaf 0, EBX, of AMD's processors and of Hygon's: "Auth" and "Hygo" in memory order.
const AMD_VENDORS: [u32; 2] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"Hygo")];

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
        let first = leaves.iter().find(|leaf| leaf.function == 0);
        let last_function = first.map_or(0, |leaf| leaf.eax);
        let is_amd = first.is_some_and(|leaf| AMD_VENDORS.contains(&leaf.ebx));
        // Performance counters are the host's: a guest could learn from them of its neighbours. The
        // topology is no longer the host's since Linux 6.2: of its levels KVM lists none.
        let is_ours = |function| matches!(function, 0x8000_0022 | TOPOLOGY | MORE_TOPOLOGY);
        leaves.retain(|leaf| !is_ours(leaf.function));
        for leaf in &mut leaves {
            filter(leaf, deadline, vcpus);
            if is_amd {
                count_amd_cores(leaf, vcpus);
            }
        }
        if last_function >= TOPOLOGY {
            leaves.extend(topology(vcpus));
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
        (0x8000_0001, _) => leaf.ecx &= !(EXT_ECX_OFF | CMP_LEGACY),
        _ => {}
    }
}

/// Says how many cores there are where only AMD's processors do; elsewhere these are reserved.
fn count_amd_cores(leaf: &mut kvm_cpuid_entry2, vcpus: u32) {
    match leaf.function {
        0x8000_0001 if vcpus > 1 => leaf.ecx |= CMP_LEGACY,
        // Cores of the package, and the bits that number them (AMD64 manual volume 3, E.4.7).
        0x8000_0008 => leaf.ecx = core_bits(vcpus) << 12 | (vcpus - 1),
        _ => {}
    }
}

/// Threads, of which each core has one, then cores. What is above, KVM answers by itself.
fn topology(vcpus: u32) -> [kvm_cpuid_entry2; 2] {
    let level = |index, kind: u32, bits, count| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: bits,
        ebx: count,
        ecx: kind << 8 | index,
        ..Default::default()
    };
    [level(0, 1, 0, 1), level(1, 2, core_bits(vcpus), vcpus)]
}

/// Sets what differs between vCPUs.
fn number(leaf: &mut kvm_cpuid_entry2, index: u32, vcpus: u32) {
    match leaf.function {
        1 => leaf.ebx = leaf.ebx & 0x00ff_ffff | index << 24,
        TOPOLOGY => leaf.edx = index,
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

    /// What Linux from 6.2 on lists of a host's processor: a topology without levels.
    fn host(vendor: &[u8; 4]) -> Vec<kvm_cpuid_entry2> {
        let first = kvm_cpuid_entry2 {
            eax: 0x1f,
            ebx: u32::from_le_bytes(*vendor),
            ..leaf(0, 0)
        };
        let others = [
            (1, 0),
            (0xb, 0),
            (0x1f, 0),
            (0x8000_0001, 0),
            (0x8000_0008, 0),
        ];
        let others = others.map(|(function, index)| leaf(function, index));
        [first].into_iter().chain(others).collect()
    }

    #[track_caller]
    fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        let mut found = leaves
            .iter()
            .filter(|leaf| leaf.function == function && leaf.index == index);
        let leaf = found.next().unwrap();
        assert!(found.next().is_none());
        *leaf
    }

    #[test]
    fn vcpus_are_the_cores_of_one_package() {
        for (vcpus, bits) in [(1, 0), (2, 1), (3, 2), (32, 5)] {
            let index = vcpus as usize - 1;
            let leaves = of(&host(b"Auth"), vcpus, index);
            let first = find(&leaves, 1, 0);
            assert_eq!(first.ebx >> 24, index as u32);
            assert_eq!(first.edx & HTT != 0, vcpus > 1);
            let threads = find(&leaves, TOPOLOGY, 0);
            assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 1 << 8));
            let cores = find(&leaves, TOPOLOGY, 1);
            assert_eq!((cores.eax, cores.ebx, cores.ecx), (bits, vcpus, 2 << 8 | 1));
            assert_eq!((threads.edx, cores.edx), (index as u32, index as u32));
            assert!(leaves.iter().all(|leaf| leaf.function != MORE_TOPOLOGY));
            let sizes = find(&leaves, 0x8000_0008, 0);
            assert_eq!(sizes.ecx, bits << 12 | (vcpus - 1));
            let extended = find(&leaves, 0x8000_0001, 0);
            assert_eq!(extended.ecx & CMP_LEGACY != 0, vcpus > 1);
        }
    }

    #[test]
    fn amds_way_to_count_cores_is_amds_alone() {
        let leaves = of(&host(b"Genu"), 4, 0);
        assert_eq!(find(&leaves, 0x8000_0001, 0).ecx & CMP_LEGACY, 0);
        assert_eq!(find(&leaves, 0x8000_0008, 0).ecx, u32::MAX);
        assert_eq!(find(&leaves, TOPOLOGY, 1).ebx, 4);
    }

    #[test]
    fn a_processor_without_a_leaf_for_the_topology_gets_none() {
        let first = kvm_cpuid_entry2 {
            eax: 0xa,
            ..leaf(0, 0)
        };
        let leaves = of(&[first, leaf(1, 0)], 2, 0);
        assert!(leaves.iter().all(|leaf| leaf.function != TOPOLOGY));
    }
}
