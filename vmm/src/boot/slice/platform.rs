//! The supervisor's few structures, which a slice never sees: descriptor tables, exception stubs,
//! task states. Pure: everything comes out as bytes.
//!
//! An exception of the guest goes through its gate to a stub at privilege level 0, on interrupt
//! stack 1 of the vCPU's own page; the stub completes a [`FaultRecord`] at the end of that page and
//! writes the vector into the `FAULT` page. See `slice_abi::fault`.

use slice_abi::fault::FaultRecord;
use slice_abi::layout::PAGE_SIZE;

use super::layout::low;

/// Selectors in the descriptor table below, with their privilege level.
pub mod selector {
    /// Code of the stubs.
    pub const SUPERVISOR_CODE: u16 = 0x08;
    /// Data of the guest.
    pub const USER_DATA: u16 = 0x18 | 3;
    /// Code of the guest.
    pub const USER_CODE: u16 = 0x20 | 3;
    /// Task state; a vCPU's own is set directly, so this need not be in the table.
    pub const TASK: u16 = 0x28;
}

/// Offset of the global descriptor table in the tables page.
const GDT_OFFSET: u64 = 0;
/// Offset of the interrupt descriptor table in the tables page.
const IDT_OFFSET: u64 = 0x100;
/// Exceptions have vectors below this; there are no interrupts.
const VECTORS: usize = 32;
/// Each stub has this much room.
const STUB_SIZE: usize = 16;
/// The exceptions for which the processor pushes an error code (AMD64 manual volume 2, table 8-1).
const WITH_ERROR_CODE: [usize; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];
/// `int3`: the only gate that the guest may call by an instruction.
const BREAKPOINT: usize = 3;

/// Global descriptors: null, supervisor code and data, guest data and code.
const GDT: [u64; 5] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
];

/// Address and limit of the global descriptor table.
pub const GDT_REGISTER: (u64, u16) = (low::TABLES + GDT_OFFSET, size_of_val(&GDT) as u16 - 1);
/// Address and limit of the interrupt descriptor table.
pub const IDT_REGISTER: (u64, u16) = (low::TABLES + IDT_OFFSET, (VECTORS * 16) as u16 - 1);

/// Bytes of a 64-bit task state segment.
pub const TASK_STATE_SIZE: u32 = 104;

/// Where the fault record lies in a vCPU's page: at its very end, since the stack begins there.
pub const FAULT_RECORD_OFFSET: u64 = PAGE_SIZE - size_of::<FaultRecord>() as u64;

/// Address of the page of vCPU `index`, where its task state begins.
pub const fn vcpu_page(index: usize) -> u64 {
    low::VCPU + index as u64 * PAGE_SIZE
}

/// The tables page, as far as it is used.
pub fn tables_page() -> Vec<u8> {
    let mut page = vec![0; IDT_OFFSET as usize];
    for (i, descriptor) in GDT.iter().enumerate() {
        page[i * 8..i * 8 + 8].copy_from_slice(&descriptor.to_le_bytes());
    }
    for vector in 0..VECTORS {
        page.extend_from_slice(&gate(vector).to_le_bytes());
    }
    page
}

/// A 64-bit interrupt gate to a vector's stub, on interrupt stack 1.
fn gate(vector: usize) -> u128 {
    const PRESENT_INTERRUPT_GATE: u128 = 0x8e;
    const INTERRUPT_STACK: u128 = 1;
    let target = u128::from(low::STUBS) + (vector * STUB_SIZE) as u128;
    let privilege = if vector == BREAKPOINT { 3 << 5 } else { 0 };
    (target & 0xffff)
        | u128::from(selector::SUPERVISOR_CODE) << 16
        | INTERRUPT_STACK << 32
        | (PRESENT_INTERRUPT_GATE | privilege) << 40
        | (target >> 16 & 0xffff) << 48
        | (target >> 32) << 64
}

/// The stubs page, as far as it is used: one stub per vector, then what they share.
pub fn stubs_page() -> Vec<u8> {
    let common = VECTORS * STUB_SIZE;
    let mut code = Vec::with_capacity(common + 64);
    for vector in 0..VECTORS {
        if !WITH_ERROR_CODE.contains(&vector) {
            code.extend([0x6a, 0]); // push 0, where the error code would be
        }
        code.extend([0x6a, vector as u8]); // push vector
        let next = code.len() + 5;
        code.push(0xe9); // jmp common
        code.extend(((common - next) as i32).to_le_bytes());
        code.resize((vector + 1) * STUB_SIZE, 0xcc);
    }
    code.extend([0x50, 0x53, 0x51, 0x52, 0x56, 0x57, 0x55]); // push rax rbx rcx rdx rsi rdi rbp
    for register in 0..8 {
        code.extend([0x41, 0x50 + register]); // push r8 to r15
    }
    code.extend([0x0f, 0x20, 0xd0]); // mov rax, cr2
    code.push(0x50); // push rax: the record is complete, rsp points at it
    let vector_at = std::mem::offset_of!(FaultRecord, vector) as u32;
    code.extend([0x8b, 0x84, 0x24]); // mov eax, [rsp + vector]
    code.extend(vector_at.to_le_bytes());
    code.extend([0x89, 0x04, 0x25]); // mov [FAULT], eax
    code.extend((low::FAULT as u32).to_le_bytes());
    code.extend([0xeb, 0xfe]); // never reached: the monitor does not come back
    code
}

/// The task state at the beginning of the page of vCPU `index` (AMD64 manual volume 2, 12.2.5).
pub fn task_state(index: usize) -> [u8; TASK_STATE_SIZE as usize] {
    const STACK_0: usize = 4;
    const INTERRUPT_STACK_1: usize = 36;
    const PORT_MAP: usize = 102;
    let mut state = [0; TASK_STATE_SIZE as usize];
    let stack = (vcpu_page(index) + PAGE_SIZE).to_le_bytes();
    state[STACK_0..STACK_0 + 8].copy_from_slice(&stack);
    state[INTERRUPT_STACK_1..INTERRUPT_STACK_1 + 8].copy_from_slice(&stack);
    // The port map would begin behind the segment: no port is allowed.
    state[PORT_MAP..].copy_from_slice(&(TASK_STATE_SIZE as u16).to_le_bytes());
    state
}

/// Name of an exception.
pub fn exception_name(vector: u8) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid task state",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "x87 floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point error",
        21 => "control protection fault",
        _ => "unknown exception",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stub_fits_its_room_and_jumps_to_the_common_part() {
        let code = stubs_page();
        for vector in 0..VECTORS {
            let stub = &code[vector * STUB_SIZE..(vector + 1) * STUB_SIZE];
            let skip = if WITH_ERROR_CODE.contains(&vector) {
                0
            } else {
                2
            };
            assert_eq!(stub[skip..skip + 3], [0x6a, vector as u8, 0xe9]);
            let relative = i32::from_le_bytes(stub[skip + 3..skip + 7].try_into().unwrap());
            let target = (vector * STUB_SIZE + skip + 7) as i32 + relative;
            assert_eq!(target as usize, VECTORS * STUB_SIZE);
        }
        assert!(code.len() as u64 <= PAGE_SIZE);
    }

    #[test]
    fn gates_lead_to_their_stub_and_only_the_breakpoint_may_be_called() {
        for vector in 0..VECTORS {
            let gate = gate(vector);
            let target = (gate & 0xffff) | (gate >> 48 & 0xffff) << 16 | (gate >> 64) << 32;
            assert_eq!(target as u64, low::STUBS + (vector * STUB_SIZE) as u64);
            assert_eq!(gate >> 32 & 7, 1);
            assert_eq!(gate >> 45 & 3 == 3, vector == BREAKPOINT);
        }
    }

    #[test]
    fn the_tables_do_not_overlap_and_fit_their_page() {
        assert!(GDT_REGISTER.0 + u64::from(GDT_REGISTER.1) < IDT_REGISTER.0);
        assert!(tables_page().len() as u64 <= PAGE_SIZE);
        assert_eq!(
            u64::from(IDT_REGISTER.1) + 1 + IDT_OFFSET,
            tables_page().len() as u64
        );
    }

    #[test]
    fn the_record_ends_where_the_exception_stack_begins() {
        let state = task_state(2);
        let stack = u64::from_le_bytes(state[36..44].try_into().unwrap());
        assert_eq!(stack, vcpu_page(3));
        let record_end = FAULT_RECORD_OFFSET + size_of::<FaultRecord>() as u64;
        assert_eq!(vcpu_page(2) + record_end, stack);
    }
}
