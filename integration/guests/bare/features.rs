//! Uses each processor feature that the info page announces: one that is announced but not switched
//! on raises an exception, and the sliver ends with a fault.

use core::arch::asm;

use slice_abi::info::cpu_feature;

use crate::Guest;

impl Guest {
    /// Executes an instruction of every announced feature.
    pub(crate) fn use_features(&self) {
        for (feature, exercise) in EXERCISES {
            if self.info.cpu_features & feature != 0 {
                exercise();
            }
        }
    }
}

const EXERCISES: [(u64, fn()); 14] = [
    (cpu_feature::RDRAND, || {
        // SAFETY: changes only the named register and flags, as do all below.
        unsafe { asm!("rdrand {0}", out(reg) _) }
    }),
    (cpu_feature::RDSEED, || {
        // SAFETY: as above.
        unsafe { asm!("rdseed {0}", out(reg) _) }
    }),
    (cpu_feature::FSGSBASE, || {
        // SAFETY: reads the base and writes the same back.
        unsafe { asm!("rdfsbase {0}", "wrfsbase {0}", out(reg) _) }
    }),
    (cpu_feature::AVX, || {
        // SAFETY: changes a vector register that is named.
        unsafe { asm!("vxorps ymm0, ymm0, ymm0", "vzeroupper", out("xmm0") _) }
    }),
    (cpu_feature::AVX2, || {
        // SAFETY: as above.
        unsafe { asm!("vpaddd ymm0, ymm0, ymm0", "vzeroupper", out("xmm0") _) }
    }),
    (cpu_feature::AVX512F, || {
        // SAFETY: as above.
        unsafe { asm!("vpaddd zmm0, zmm0, zmm0", "vzeroupper", out("xmm0") _) }
    }),
    (cpu_feature::AES, || {
        // SAFETY: as above.
        unsafe { asm!("aesenc xmm0, xmm0", out("xmm0") _) }
    }),
    (cpu_feature::PCLMULQDQ, || {
        // SAFETY: as above.
        unsafe { asm!("pclmulqdq xmm0, xmm0, 0", out("xmm0") _) }
    }),
    (cpu_feature::SHA, || {
        // SAFETY: as above.
        unsafe { asm!("sha1msg1 xmm0, xmm0", out("xmm0") _) }
    }),
    (cpu_feature::RDTSCP, || {
        // SAFETY: changes the three registers that are named.
        unsafe { asm!("rdtscp", out("rax") _, out("rcx") _, out("rdx") _) }
    }),
    (cpu_feature::BMI, || {
        // SAFETY: changes only the named register and flags.
        unsafe { asm!("andn {0}, {0}, {0}", "rorx {0}, {0}, 3", out(reg) _) }
    }),
    (cpu_feature::POPCNT, || {
        // SAFETY: as above.
        unsafe { asm!("popcnt {0}, {0}", out(reg) _) }
    }),
    (cpu_feature::SSE4, || {
        // SAFETY: as above.
        unsafe { asm!("crc32 {0}, {0}", out(reg) _) }
    }),
    (cpu_feature::INVARIANT_TSC, || {
        // SAFETY: changes the two registers that are named.
        unsafe { asm!("rdtsc", out("rax") _, out("rdx") _) }
    }),
];
