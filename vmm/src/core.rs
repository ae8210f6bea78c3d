//! An ELF core of a sliver that has faulted, as gdb reads it: one note with registers per vCPU,
//! one segment per part of the guest's memory. Memory never touched becomes a hole in the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use slice_abi::layout::PAGE_SIZE;
use vm_memory::{Bytes, GuestAddress};

use crate::exit::Registers;
use crate::machine::Machine;

/// Bytes of `struct elf_prstatus` on x86-64, and where its registers begin (linux/elfcore.h).
const PRSTATUS_SIZE: usize = 336;
const PRSTATUS_PID: usize = 32;
const PRSTATUS_REGISTERS: usize = 112;

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;

/// A part of the guest's memory.
struct Part {
    start: u64,
    len: u64,
    flags: u32,
}

/// Writes the core. `registers` are those of each vCPU that ran, the faulted one first; `pagemap`
/// tells which pages there are.
pub fn write(
    machine: &Machine,
    registers: &[(usize, Registers)],
    pagemap: &File,
    file: &File,
) -> io::Result<()> {
    let parts = parts(machine);
    let notes: Vec<u8> = registers
        .iter()
        .flat_map(|(index, r)| note(*index, r))
        .collect();
    let headers = HEADER_SIZE + (parts.len() + 1) * PROGRAM_HEADER_SIZE;
    let memory_offset = ((headers + notes.len()) as u64).next_multiple_of(PAGE_SIZE);

    let mut head = elf_header(parts.len() as u16 + 1);
    head.extend(program_header(
        4,
        4,
        headers as u64,
        0,
        notes.len() as u64,
        0,
    ));
    let mut offset = memory_offset;
    for part in &parts {
        head.extend(program_header(
            1, part.flags, offset, part.start, part.len, part.len,
        ));
        offset += part.len;
    }
    head.extend(notes);
    file.write_all_at(&head, 0)?;
    file.set_len(offset)?;

    let mut offset = memory_offset;
    for part in &parts {
        write_part(machine, pagemap, part, file, offset)?;
        offset += part.len;
    }
    Ok(())
}

/// Everything mapped in RAM: segments, stacks, heap; of a legacy guest all of RAM, by physical
/// address.
fn parts(machine: &Machine) -> Vec<Part> {
    let Some(native) = machine.native() else {
        let parts = machine.vm().ram().parts().iter();
        return parts
            .map(|part| Part {
                start: part.guest.start,
                len: part.guest.len,
                flags: 7,
            })
            .collect();
    };
    let segments = native.image().segments().iter().map(|segment| {
        let (start, end) = segment.pages();
        // ELF numbers the permissions in the opposite order of the ABI.
        let flags = (segment.access & 1) << 2 | segment.access & 2 | segment.access >> 2 & 1;
        Part {
            start,
            len: end - start,
            flags,
        }
    });
    let layout = native.layout();
    let stacks = (0..layout.vcpus()).map(|index| layout.stack(index));
    let rest = stacks.chain([layout.heap()]).map(|range| Part {
        start: range.start,
        len: range.len,
        flags: 6,
    });
    segments.chain(rest).collect()
}

fn write_part(
    machine: &Machine,
    pagemap: &File,
    part: &Part,
    file: &File,
    offset: u64,
) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let ram = machine.vm().ram();
    let mut result = Ok(());
    let mut buffer = Vec::new();
    ram.for_each_backed(pagemap, |start, len| {
        let end = (start + len).min(part.start + part.len);
        let mut at = start.max(part.start);
        while at < end && result.is_ok() {
            buffer.resize((end - at).min(CHUNK) as usize, 0);
            result = ram
                .read_slice(&mut buffer, GuestAddress(at))
                .map_err(io::Error::other)
                .and_then(|()| file.write_all_at(&buffer, offset + (at - part.start)));
            at += buffer.len() as u64;
        }
    })?;
    result
}

fn elf_header(program_headers: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend(4u16.to_le_bytes()); // ET_CORE
    header.extend(62u16.to_le_bytes()); // EM_X86_64
    header.extend(1u32.to_le_bytes());
    header.extend(0u64.to_le_bytes()); // no entry
    header.extend((HEADER_SIZE as u64).to_le_bytes());
    header.extend(0u64.to_le_bytes()); // no sections
    header.extend(0u32.to_le_bytes());
    for half in [
        HEADER_SIZE as u16,
        PROGRAM_HEADER_SIZE as u16,
        program_headers,
        64,
        0,
        0,
    ] {
        header.extend(half.to_le_bytes());
    }
    header
}

fn program_header(
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_len: u64,
    memory_len: u64,
) -> Vec<u8> {
    let mut header = Vec::with_capacity(PROGRAM_HEADER_SIZE);
    header.extend(kind.to_le_bytes());
    header.extend(flags.to_le_bytes());
    for word in [offset, address, address, file_len, memory_len, 1] {
        header.extend(word.to_le_bytes());
    }
    header
}

/// An `NT_PRSTATUS` note. The thread's number is the vCPU's plus one: gdb takes 0 for no thread.
fn note(index: usize, r: &Registers) -> Vec<u8> {
    const USER_CODE: u64 = 0x23;
    const USER_DATA: u64 = 0x1b;
    let mut note = Vec::new();
    for word in [5u32, PRSTATUS_SIZE as u32, 1] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"CORE\0\0\0\0");
    let mut status = vec![0; PRSTATUS_SIZE];
    status[PRSTATUS_PID..PRSTATUS_PID + 4].copy_from_slice(&(index as u32 + 1).to_le_bytes());
    // The order of struct user_regs_struct (asm/user_64.h).
    let order = [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx,
        r.rsi, r.rdi, r.rax, r.rip, USER_CODE, r.rflags, r.rsp, USER_DATA, 0, 0, USER_DATA,
        USER_DATA, USER_DATA, USER_DATA,
    ];
    for (i, word) in order.iter().enumerate() {
        let at = PRSTATUS_REGISTERS + i * 8;
        status[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    note.extend(status);
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_has_the_registers_where_gdb_looks_for_them() {
        let r = Registers {
            rip: 0x1234,
            rsp: 0x5678,
            r15: 0x15,
            ..Default::default()
        };
        let note = note(2, &r);
        assert_eq!(note.len(), 20 + PRSTATUS_SIZE);
        let word = |at: usize| u64::from_le_bytes(note[20 + at..28 + at].try_into().unwrap());
        assert_eq!(word(PRSTATUS_REGISTERS), 0x15);
        assert_eq!(word(PRSTATUS_REGISTERS + 16 * 8), 0x1234);
        assert_eq!(word(PRSTATUS_REGISTERS + 19 * 8), 0x5678);
        assert_eq!(note[20 + PRSTATUS_PID], 3);
    }

    #[test]
    fn headers_have_their_size() {
        assert_eq!(elf_header(3).len(), HEADER_SIZE);
        assert_eq!(program_header(1, 2, 3, 4, 5, 6).len(), PROGRAM_HEADER_SIZE);
    }
}
