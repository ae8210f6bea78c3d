//! The processor as gdb sees it: x86-64 with the registers that the control socket tells.
//!
//! Segment selectors are constant in a native sliver. Floating-point and vector registers are not
//! told by the monitor; gdb shows them as unavailable.

use gdbstub::arch::{Arch, Registers};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::id::X86_64CoreRegId;
use vmm::exit::Registers as VcpuRegisters;

/// The architecture.
#[derive(Debug)]
pub(super) enum SliceArch {}

impl Arch for SliceArch {
    type Usize = u64;
    type Registers = GdbRegisters;
    type BreakpointKind = usize;
    type RegId = X86_64CoreRegId;

    fn target_description_xml() -> Option<&'static str> {
        X86_64_SSE::target_description_xml()
    }
}

/// Registers in gdb's order: see 64bit-core.xml of gdb.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct GdbRegisters(pub(super) VcpuRegisters);

/// Selectors of code and data at privilege level 3. gdb only shows them.
const SELECTORS: [u32; 6] = [0x33, 0x2b, 0x2b, 0x2b, 0x2b, 0x2b];

/// st0 to st7, eight control registers of the x87, xmm0 to xmm15, mxcsr.
const UNTOLD_BYTES: usize = 8 * 10 + 8 * 4 + 16 * 16 + 4;

impl GdbRegisters {
    fn general(&self) -> [u64; 17] {
        let r = &self.0;
        [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15, r.rip,
        ]
    }

    fn general_mut(&mut self) -> [&mut u64; 17] {
        let r = &mut self.0;
        [
            &mut r.rax, &mut r.rbx, &mut r.rcx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp,
            &mut r.rsp, &mut r.r8, &mut r.r9, &mut r.r10, &mut r.r11, &mut r.r12, &mut r.r13,
            &mut r.r14, &mut r.r15, &mut r.rip,
        ]
    }
}

impl Registers for GdbRegisters {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.0.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        let mut write = |bytes: &[u8]| bytes.iter().for_each(|byte| write_byte(Some(*byte)));
        for register in self.general() {
            write(&register.to_le_bytes());
        }
        write(&(self.0.rflags as u32).to_le_bytes());
        for selector in SELECTORS {
            write(&selector.to_le_bytes());
        }
        (0..UNTOLD_BYTES).for_each(|_| write_byte(None));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let (general, rest) = bytes.split_at_checked(17 * 8).ok_or(())?;
        let flags: [u8; 4] = rest
            .get(..4)
            .and_then(|flags| flags.try_into().ok())
            .ok_or(())?;
        for (register, bytes) in self.general_mut().into_iter().zip(general.chunks_exact(8)) {
            *register = u64::from_le_bytes(bytes.try_into().map_err(|_| ())?);
        }
        self.0.rflags = u64::from(u32::from_le_bytes(flags));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_go_both_ways_and_the_packet_has_gdbs_length() {
        let registers = GdbRegisters(VcpuRegisters {
            rax: 1,
            r15: 2,
            rip: 3,
            rflags: 0x246,
            ..VcpuRegisters::default()
        });
        let mut packet = Vec::new();
        registers.gdb_serialize(|byte| packet.push(byte));
        // 16 general, rip, eflags, 6 segments, then x87 and SSE: `g` of amd64 without AVX.
        assert_eq!(packet.len(), 17 * 8 + 7 * 4 + 80 + 32 + 256 + 4);
        let bytes: Vec<u8> = packet.into_iter().map(Option::unwrap_or_default).collect();
        let mut back = GdbRegisters::default();
        back.gdb_deserialize(&bytes).expect("long enough");
        assert_eq!(back, registers);
        assert!(back.gdb_deserialize(&bytes[..100]).is_err());
    }
}
