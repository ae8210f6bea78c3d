//! What the guest is told of its processor, and which of it is switched on.
//!
//! KVM's own list of what it can offer is the base. Virtualisation of its own is taken out (a
//! sliver cannot nest), and each vCPU is told its own number.

use kvm_bindings::CpuId;
use slice_abi::info::cpu_feature;

/// x87, SSE; AVX; the three parts of AVX-512 state (Intel SDM volume 1, 13.1).
const XCR0_BASE: u64 = 0b11;
const XCR0_AVX: u64 = 1 << 2;
const XCR0_AVX512: u64 = 0b111 << 5;

/// What the host's KVM offers to guests, reduced to what a sliver may have.
#[derive(Debug, Clone)]
pub struct Processor {
    cpuid: CpuId,
    features: u64,
    xcr0: u64,
    has_xsave: bool,
    has_fsgsbase: bool,
    has_smep: bool,
    has_smap: bool,
    has_umip: bool,
}

impl Processor {
    /// From the list that `KVM_GET_SUPPORTED_CPUID` gives.
    pub fn new(mut cpuid: CpuId) -> Self {
        for entry in cpuid.as_mut_slice() {
            match entry.function {
                1 => {
                    entry.ecx &= !(1 << 5); // VMX
                    entry.ecx &= !(1 << 24); // TSC deadline timer: there is no APIC
                }
                0x8000_0001 => entry.ecx &= !(1 << 2), // SVM
                _ => {}
            }
        }
        let leaf = |function, index| {
            let found = cpuid
                .as_slice()
                .iter()
                .find(|e| e.function == function && e.index == index);
            found.map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
        };
        let bit = |word: u32, bit: u32| word >> bit & 1 == 1;
        let [_, _, ecx1, _] = leaf(1, 0);
        let [_, ebx7, ecx7, _] = leaf(7, 0);
        let [xcr0_low, _, _, xcr0_high] = leaf(0xd, 0);
        let [_, _, _, edx_ext] = leaf(0x8000_0001, 0);
        let [_, _, _, edx_power] = leaf(0x8000_0007, 0);

        let has_xsave = bit(ecx1, 26);
        let offered = u64::from(xcr0_high) << 32 | u64::from(xcr0_low);
        let mut xcr0 = XCR0_BASE;
        if has_xsave && offered & XCR0_AVX != 0 {
            xcr0 |= XCR0_AVX;
            if offered & XCR0_AVX512 == XCR0_AVX512 {
                xcr0 |= XCR0_AVX512;
            }
        }
        let avx = xcr0 & XCR0_AVX != 0;
        let avx512 = xcr0 & XCR0_AVX512 == XCR0_AVX512;
        let mut features = 0;
        for (there, feature) in [
            (bit(edx_power, 8), cpu_feature::INVARIANT_TSC),
            (bit(ecx1, 30), cpu_feature::RDRAND),
            (bit(ebx7, 18), cpu_feature::RDSEED),
            (bit(ebx7, 0), cpu_feature::FSGSBASE),
            (avx && bit(ecx1, 28), cpu_feature::AVX),
            (avx && bit(ebx7, 5), cpu_feature::AVX2),
            (avx512 && bit(ebx7, 16), cpu_feature::AVX512F),
            (bit(ecx1, 25), cpu_feature::AES),
            (bit(ecx1, 1), cpu_feature::PCLMULQDQ),
            (bit(ebx7, 29), cpu_feature::SHA),
            (bit(ebx7, 9), cpu_feature::ERMS),
            (bit(edx_ext, 27), cpu_feature::RDTSCP),
            (bit(ebx7, 3) && bit(ebx7, 8), cpu_feature::BMI),
            (bit(ecx1, 23), cpu_feature::POPCNT),
            (bit(ecx1, 19) && bit(ecx1, 20), cpu_feature::SSE4),
        ] {
            if there {
                features |= feature;
            }
        }
        let (has_fsgsbase, has_smep, has_smap) = (bit(ebx7, 0), bit(ebx7, 7), bit(ebx7, 20));
        let has_umip = bit(ecx7, 2);
        Self {
            cpuid,
            features,
            xcr0,
            has_xsave,
            has_fsgsbase,
            has_smep,
            has_smap,
            has_umip,
        }
    }

    /// Bits of [`cpu_feature`], for the info page.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Vector state that is switched on.
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Whether the register XCR0 exists.
    pub fn has_xsave(&self) -> bool {
        self.has_xsave
    }

    /// Control register 4: what paging and SSE need, and every protection there is.
    pub fn cr4(&self) -> u64 {
        const PAE: u64 = 1 << 5;
        const OSFXSR: u64 = 1 << 9;
        const OSXMMEXCPT: u64 = 1 << 10;
        const UMIP: u64 = 1 << 11;
        const FSGSBASE: u64 = 1 << 16;
        const OSXSAVE: u64 = 1 << 18;
        const SMEP: u64 = 1 << 20;
        const SMAP: u64 = 1 << 21;
        let optional = [
            (self.has_umip, UMIP),
            (self.has_fsgsbase, FSGSBASE),
            (self.has_xsave, OSXSAVE),
            (self.has_smep, SMEP),
            (self.has_smap, SMAP),
        ];
        optional
            .into_iter()
            .filter(|(there, _)| *there)
            .fold(PAE | OSFXSR | OSXMMEXCPT, |cr4, (_, bit)| cr4 | bit)
    }

    /// The list for vCPU `index`.
    pub fn cpuid(&self, index: usize) -> CpuId {
        let mut cpuid = self.cpuid.clone();
        let id = index as u32;
        for entry in cpuid.as_mut_slice() {
            match entry.function {
                1 => entry.ebx = entry.ebx & 0x00ff_ffff | id << 24,
                0xb | 0x1f => entry.edx = id,
                0x8000_001e => entry.eax = id,
                _ => {}
            }
        }
        cpuid
    }
}
