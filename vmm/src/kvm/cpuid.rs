//! What a native guest is told of its processor, and which of it is switched on.
//!
//! A short list of leaves, made of the processor's own, with only such features as a program at
//! privilege level 3 can use and that need nothing of the monitor but a bit in CR4 or XCR0. KVM's
//! own list is not asked for: it asks the processor for some seventy leaves, each of which traps
//! where KVM itself runs in a virtual machine, and took 0.4 ms of a start of 1.5 ms. What KVM does
//! not support is found out by trying, on the first vCPU (see [`Processor::negotiate`]).

pub mod legacy;

use std::arch::x86_64::__cpuid_count;

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_sregs, kvm_xcr, kvm_xcrs,
};
use kvm_ioctls::VcpuFd;
use slice_abi::info::cpu_feature;

use super::vm::KvmError;

/// x87 and SSE; AVX; the three parts of AVX-512 (Intel SDM volume 1, 13.1).
const XCR0_BASE: u64 = 0b11;
const XCR0_AVX: u64 = 1 << 2;
const XCR0_AVX512: u64 = 0b111 << 5;

/// What paging and SSE need (AMD64 manual volume 2, 3.1.3).
const CR4_BASE: u64 = 1 << 5 | 1 << 9 | 1 << 10;
const CR4_UMIP: u64 = 1 << 11;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
/// Each protection and convenience that a processor may or may not have.
const CR4_OPTIONAL: [u64; 5] = [CR4_FSGSBASE, CR4_OSXSAVE, CR4_SMEP, CR4_SMAP, CR4_UMIP];

/// Feature bits that are passed on: leaf 1.
const LEAF_1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30, 31]);
const LEAF_1_EDX: u32 = bits(&[0, 3, 4, 5, 6, 8, 13, 15, 19, 23, 24, 25, 26]);
/// Leaf 7.
const LEAF_7_EBX: u32 = bits(&[0, 3, 5, 7, 8, 9, 16, 17, 18, 19, 20, 23, 24, 28, 29, 30, 31]);
const LEAF_7_ECX: u32 = bits(&[1, 2, 6, 8, 9, 10, 11, 12, 14, 22]);
const LEAF_7_EDX: u32 = bits(&[4]);
/// Leaf 0x8000_0001.
const LEAF_EXT_ECX: u32 = bits(&[0, 5, 6, 8]);
const LEAF_EXT_EDX: u32 = bits(&[20, 26, 27, 29]);
/// The hypervisor bit of leaf 1, ECX: software should know.
const HYPERVISOR: u32 = 1 << 31;
/// XSAVE in leaf 1, ECX.
const XSAVE: u32 = 1 << 26;

const fn bits(numbers: &[u32]) -> u32 {
    let mut word = 0;
    let mut i = 0;
    while i < numbers.len() {
        word |= 1 << numbers[i];
        i += 1;
    }
    word
}

/// The processor of a sliver.
#[derive(Debug, Clone)]
pub struct Processor {
    leaves: Vec<kvm_cpuid_entry2>,
    cr4: u64,
    xcr0: u64,
}

impl Processor {
    /// The processor this thread runs on, with everything a slice could use.
    pub fn host() -> Self {
        let leaf = |function, index, flags| {
            let r = __cpuid_count(function, index);
            kvm_cpuid_entry2 {
                function,
                index,
                flags,
                eax: r.eax,
                ebx: r.ebx,
                ecx: r.ecx,
                edx: r.edx,
                ..Default::default()
            }
        };
        let mut basic = leaf(0, 0, 0);
        let mut one = leaf(1, 0, 0);
        one.ecx = one.ecx & LEAF_1_ECX | HYPERVISOR;
        one.edx &= LEAF_1_EDX;
        let mut seven = leaf(7, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
        seven.eax = 0;
        seven.ebx &= LEAF_7_EBX;
        seven.ecx &= LEAF_7_ECX;
        seven.edx &= LEAF_7_EDX;
        let mut extended = leaf(0x8000_0001, 0, 0);
        extended.ecx &= LEAF_EXT_ECX;
        extended.edx &= LEAF_EXT_EDX;
        let mut power = leaf(0x8000_0007, 0, 0);
        (power.eax, power.ebx, power.ecx, power.edx) = (0, 0, 0, power.edx & 1 << 8);
        let mut sizes = leaf(0x8000_0008, 0, 0);
        (sizes.ebx, sizes.ecx, sizes.edx) = (0, 0, 0);
        let last_extended = kvm_cpuid_entry2 {
            function: 0x8000_0000,
            eax: 0x8000_0008,
            ..Default::default()
        };

        let mut leaves = vec![one, seven, last_extended, extended, power, sizes];
        let mut xcr0 = XCR0_BASE;
        if one.ecx & XSAVE != 0 {
            let mut state = leaf(0xd, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
            xcr0 = choose_xcr0(u64::from(state.edx) << 32 | u64::from(state.eax));
            (state.eax, state.edx) = (xcr0 as u32, 0);
            leaves.push(state);
            for component in (2..8).filter(|component| xcr0 >> component & 1 == 1) {
                leaves.push(leaf(0xd, component, KVM_CPUID_FLAG_SIGNIFCANT_INDEX));
            }
        }
        basic.eax = 0xd;
        leaves.push(basic);
        let cr4 = CR4_OPTIONAL
            .into_iter()
            .fold(CR4_BASE, |cr4, bit| cr4 | bit);
        let mut processor = Self {
            leaves,
            cr4: 0,
            xcr0,
        };
        processor.cr4 = cr4 & processor.known_cr4();
        processor
    }

    /// Sets what of CR4 and XCR0 this KVM lets a vCPU with these leaves have, and remembers it, so
    /// that the guest is told no more than that and further vCPUs need not try.
    pub fn negotiate(&mut self, vcpu: &VcpuFd, sregs: &mut kvm_sregs) -> Result<(), KvmError> {
        let set = |sregs: &kvm_sregs| vcpu.set_sregs(sregs);
        sregs.cr4 = self.cr4;
        if set(sregs).is_err() {
            self.cr4 = CR4_BASE;
            for bit in CR4_OPTIONAL.into_iter().filter(|bit| sregs.cr4 & bit != 0) {
                let attempt = kvm_sregs {
                    cr4: self.cr4 | bit,
                    ..*sregs
                };
                if set(&attempt).is_ok() {
                    self.cr4 |= bit;
                }
            }
            sregs.cr4 = self.cr4;
            set(sregs).map_err(KvmError::call("KVM_SET_SREGS"))?;
        }
        if self.cr4 & CR4_OSXSAVE == 0 {
            self.xcr0 = XCR0_BASE;
            return Ok(());
        }
        for xcr0 in [self.xcr0, self.xcr0 & !XCR0_AVX512, XCR0_BASE] {
            if set_xcr0(vcpu, xcr0).is_ok() {
                self.xcr0 = xcr0;
                return Ok(());
            }
        }
        set_xcr0(vcpu, XCR0_BASE).map_err(KvmError::call("KVM_SET_XCRS"))
    }

    /// Sets on a further vCPU what was negotiated on the first.
    pub fn apply(&self, vcpu: &VcpuFd, sregs: &mut kvm_sregs) -> Result<(), KvmError> {
        sregs.cr4 = self.cr4;
        vcpu.set_sregs(sregs)
            .map_err(KvmError::call("KVM_SET_SREGS"))?;
        if self.cr4 & CR4_OSXSAVE != 0 {
            set_xcr0(vcpu, self.xcr0).map_err(KvmError::call("KVM_SET_XCRS"))?;
        }
        Ok(())
    }

    /// The leaves for vCPU `index`.
    pub fn cpuid(&self, index: usize) -> Result<CpuId, KvmError> {
        let mut leaves = self.leaves.clone();
        for one in leaves.iter_mut().filter(|leaf| leaf.function == 1) {
            one.ebx = one.ebx & 0x0000_ffff | (index as u32) << 24;
        }
        CpuId::from_entries(&leaves).map_err(|_| KvmError::Call {
            call: "listing CPUID leaves",
            source: std::io::ErrorKind::InvalidInput.into(),
        })
    }

    /// Vector state that is switched on.
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Bits of [`cpu_feature`], for the info page.
    pub fn features(&self) -> u64 {
        let one = self.leaf(1);
        let seven = self.leaf(7);
        let extended = self.leaf(0x8000_0001);
        let has = |word: u32, bit: u32| word >> bit & 1 == 1;
        let avx = self.xcr0 & XCR0_AVX != 0;
        let avx512 = self.xcr0 & XCR0_AVX512 == XCR0_AVX512;
        [
            (
                has(self.leaf(0x8000_0007).edx, 8),
                cpu_feature::INVARIANT_TSC,
            ),
            (has(one.ecx, 30), cpu_feature::RDRAND),
            (has(seven.ebx, 18), cpu_feature::RDSEED),
            (self.cr4 & CR4_FSGSBASE != 0, cpu_feature::FSGSBASE),
            (avx && has(one.ecx, 28), cpu_feature::AVX),
            (avx && has(seven.ebx, 5), cpu_feature::AVX2),
            (avx512 && has(seven.ebx, 16), cpu_feature::AVX512F),
            (has(one.ecx, 25), cpu_feature::AES),
            (has(one.ecx, 1), cpu_feature::PCLMULQDQ),
            (has(seven.ebx, 29), cpu_feature::SHA),
            (has(seven.ebx, 9), cpu_feature::ERMS),
            (has(extended.edx, 27), cpu_feature::RDTSCP),
            (has(seven.ebx, 3) && has(seven.ebx, 8), cpu_feature::BMI),
            (has(one.ecx, 23), cpu_feature::POPCNT),
            (has(one.ecx, 19) && has(one.ecx, 20), cpu_feature::SSE4),
        ]
        .into_iter()
        .filter(|(there, _)| *there)
        .fold(0, |features, (_, feature)| features | feature)
    }

    fn leaf(&self, function: u32) -> kvm_cpuid_entry2 {
        self.leaves
            .iter()
            .find(|leaf| leaf.function == function)
            .copied()
            .unwrap_or_default()
    }

    /// The bits of CR4 whose features the leaves announce.
    fn known_cr4(&self) -> u64 {
        let (one, seven) = (self.leaf(1), self.leaf(7));
        [
            (one.ecx & XSAVE != 0, CR4_OSXSAVE),
            (seven.ebx & 1 << 0 != 0, CR4_FSGSBASE),
            (seven.ebx & 1 << 7 != 0, CR4_SMEP),
            (seven.ebx & 1 << 20 != 0, CR4_SMAP),
            (seven.ecx & 1 << 2 != 0, CR4_UMIP),
        ]
        .into_iter()
        .filter(|(there, _)| *there)
        .fold(CR4_BASE, |cr4, (_, bit)| cr4 | bit)
    }
}

/// The most of `offered` that a slice can use, in whole parts.
fn choose_xcr0(offered: u64) -> u64 {
    let mut xcr0 = XCR0_BASE;
    if offered & XCR0_AVX != 0 {
        xcr0 |= XCR0_AVX;
        if offered & XCR0_AVX512 == XCR0_AVX512 {
            xcr0 |= XCR0_AVX512;
        }
    }
    xcr0
}

fn set_xcr0(vcpu: &VcpuFd, value: u64) -> Result<(), kvm_ioctls::Error> {
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0] = kvm_xcr {
        xcr: 0,
        reserved: 0,
        value,
    };
    vcpu.set_xcrs(&xcrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_state_is_switched_on_in_whole_parts() {
        assert_eq!(choose_xcr0(0), 3);
        assert_eq!(choose_xcr0(0b111), 7);
        assert_eq!(choose_xcr0(0b10_0111), 7);
        assert_eq!(choose_xcr0(0b1110_0111), 0b1110_0111);
        assert_eq!(choose_xcr0(0b1110_0011), 3);
    }

    #[test]
    fn a_feature_that_is_not_switched_on_is_not_announced() {
        let mut processor = Processor::host();
        (processor.cr4, processor.xcr0) = (CR4_BASE, XCR0_BASE);
        let off =
            cpu_feature::AVX | cpu_feature::AVX2 | cpu_feature::AVX512F | cpu_feature::FSGSBASE;
        assert_eq!(processor.features() & off, 0);
    }

    #[test]
    fn nothing_privileged_is_passed_on() {
        let processor = Processor::host();
        let (vmx, x2apic, tsc_deadline) = (5, 21, 24);
        for bit in [vmx, x2apic, tsc_deadline] {
            assert_eq!(processor.leaf(1).ecx >> bit & 1, 0);
        }
        assert_eq!(processor.leaf(0x8000_0001).ecx >> 2 & 1, 0, "SVM");
        assert!(processor.leaf(1).ecx & HYPERVISOR != 0);
    }

    #[test]
    fn each_vcpu_is_told_its_number() {
        let cpuid = Processor::host().cpuid(5).unwrap();
        let one = cpuid
            .as_slice()
            .iter()
            .find(|leaf| leaf.function == 1)
            .unwrap();
        assert_eq!(one.ebx >> 24, 5);
    }
}
