//! Kernels as ELF files, of 32 or 64 bits: what their headers say, and whether it can be believed.

use std::io;

use object::LittleEndian as LE;
use object::elf::{
    ELFCLASS32, ELFDATA2LSB, EM_386, EM_X86_64, ET_DYN, ET_EXEC, FileHeader32, FileHeader64,
    FileType, Machine, PT_LOAD, PT_NOTE, ProgramType,
};
use object::pod::{from_bytes, slice_from_all_bytes};
use object::read::elf::{FileHeader, ProgramHeader};

use super::KernelProblem;
use crate::boot::image::{ReadAt, machine_name};
use crate::boot::legacy::map::HOLE;
use crate::boot::legacy::place::KERNEL;
use crate::boot::note;

/// The most program headers that are looked at.
pub(super) const MAX_PROGRAM_HEADERS: u16 = 64;

/// Where kernels link themselves to run once they have their own page tables.
const UPPER_HALF: u64 = 1 << 63;

/// A PVH entry point is told by this note (Xen, `XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_NOTE: (&[u8], u32) = (b"Xen\0", 18);

/// The size of an ELF file's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Elf32,
    Elf64,
}

/// What the headers of an ELF file say, believed in nothing but the file's own bounds.
#[derive(Debug)]
pub(crate) struct Headers {
    class: Class,
    machine: Machine,
    kind: FileType,
    entry: u64,
    file_len: u64,
    programs: Vec<Program>,
    pvh_notes: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct Program {
    kind: ProgramType,
    file_offset: u64,
    file_len: u64,
    virt: u64,
    phys: u64,
    memory_len: u64,
}

/// A loadable segment, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Guest physical address.
    pub(crate) address: u64,
    /// Bytes in memory; what the file does not give is zero.
    pub(crate) memory_len: u64,
    /// Where it begins in the file.
    pub(crate) file_offset: u64,
    /// Bytes in the file.
    pub(crate) file_len: u64,
    /// Where it is linked to run.
    virt: u64,
}

/// A kernel in an ELF file, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elf {
    pub(crate) class: Class,
    /// The loadable segments, at least one.
    pub(crate) segments: Vec<Segment>,
    /// The PVH entry point, inside a segment.
    pub(super) pvh: Option<u32>,
    entry: u64,
}

impl Headers {
    /// Reads the headers of a file that begins with ELF's magic number.
    pub(crate) fn read<R: ReadAt + ?Sized>(file: &R) -> io::Result<Result<Self, KernelProblem>> {
        let mut start = vec![0; file.len().min(64) as usize];
        file.read_exact_at(&mut start, 0)?;
        if start.get(5).is_some_and(|data| *data != ELFDATA2LSB.0) {
            return Ok(Err(KernelProblem::BigEndian));
        }
        match start.get(4) {
            Some(class) if *class == ELFCLASS32.0 => {
                read_class::<FileHeader32<LE>, _>(file, &start, Class::Elf32)
            }
            _ => read_class::<FileHeader64<LE>, _>(file, &start, Class::Elf64),
        }
    }

    /// Whether it looks like a kernel: it can be entered through PVH, or it is linked where only
    /// kernels run.
    pub(crate) fn is_kernel(&self) -> bool {
        let mut loads = self.programs.iter().filter(|program| program.is_load());
        !self.pvh_notes.is_empty() || loads.next().is_some_and(|first| first.virt >= UPPER_HALF)
    }
}

impl Program {
    fn is_load(&self) -> bool {
        self.kind == PT_LOAD && self.memory_len > 0
    }
}

fn read_class<H: FileHeader<Endian = LE>, R: ReadAt + ?Sized>(
    file: &R,
    start: &[u8],
    class: Class,
) -> io::Result<Result<Headers, KernelProblem>> {
    let header_len = size_of::<H>() as u64;
    let Ok((header, _)) = from_bytes::<H>(start) else {
        return Ok(Err(truncated("the ELF header", header_len, file.len())));
    };
    let entry_size = header.e_phentsize(LE);
    let wanted = size_of::<H::ProgramHeader>();
    if usize::from(entry_size) != wanted {
        return Ok(Err(KernelProblem::HeaderSize(entry_size, wanted)));
    }
    let count = header.e_phnum(LE);
    if !(1..=MAX_PROGRAM_HEADERS).contains(&count) {
        return Ok(Err(KernelProblem::HeaderCount(count)));
    }
    let offset: u64 = header.e_phoff(LE).into();
    if offset < header_len {
        return Ok(Err(KernelProblem::HeadersInHeader(offset)));
    }
    let bytes = usize::from(count) * wanted;
    let end = offset.saturating_add(bytes as u64);
    if end > file.len() {
        return Ok(Err(truncated("the program header table", end, file.len())));
    }
    let mut table = vec![0; bytes];
    file.read_exact_at(&mut table, offset)?;
    let table = slice_from_all_bytes::<H::ProgramHeader>(&table)
        .map_err(|()| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut headers = Headers {
        class,
        machine: header.e_machine(LE),
        kind: header.e_type(LE),
        entry: header.e_entry(LE).into(),
        file_len: file.len(),
        programs: table.iter().map(program).collect(),
        pvh_notes: Vec::new(),
    };
    headers.pvh_notes = pvh_notes(file, &headers.programs)?;
    Ok(Ok(headers))
}

fn program<P: ProgramHeader<Endian = LE>>(header: &P) -> Program {
    Program {
        kind: header.p_type(LE),
        file_offset: header.p_offset(LE).into(),
        file_len: header.p_filesz(LE).into(),
        virt: header.p_vaddr(LE).into(),
        phys: header.p_paddr(LE).into(),
        memory_len: header.p_memsz(LE).into(),
    }
}

/// The contents of the PVH notes, of which there should be one at most.
fn pvh_notes<R: ReadAt + ?Sized>(file: &R, programs: &[Program]) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for program in programs.iter().filter(|program| program.kind == PT_NOTE) {
        let end = program.file_offset.saturating_add(program.file_len);
        if end > file.len() {
            continue;
        }
        let mut bytes = vec![0; program.file_len.min(note::MAX_NOTE_BYTES) as usize];
        file.read_exact_at(&mut bytes, program.file_offset)?;
        found.extend(note::find(&bytes, PVH_NOTE.0, PVH_NOTE.1));
    }
    Ok(found)
}

impl Elf {
    pub(super) fn check(headers: &Headers) -> Result<Self, KernelProblem> {
        let machine = match headers.class {
            Class::Elf32 => EM_386,
            Class::Elf64 => EM_X86_64,
        };
        if headers.machine != machine {
            return Err(KernelProblem::OtherMachine(machine_name(headers.machine.0)));
        }
        if ![ET_EXEC, ET_DYN].contains(&headers.kind) {
            return Err(KernelProblem::NotExecutable(headers.kind.0));
        }
        let loads = headers.programs.iter().filter(|program| program.is_load());
        let segments: Vec<Segment> = loads
            .enumerate()
            .map(|(index, program)| check_segment(index, program, headers.file_len))
            .collect::<Result<_, _>>()?;
        if segments.is_empty() {
            return Err(KernelProblem::NoSegments);
        }
        check_disjoint(&segments)?;
        let mut elf = Self {
            class: headers.class,
            segments,
            pvh: None,
            entry: headers.entry,
        };
        elf.pvh = elf.check_pvh(&headers.pvh_notes)?;
        Ok(elf)
    }

    fn check_pvh(&self, notes: &[Vec<u8>]) -> Result<Option<u32>, KernelProblem> {
        let entry = match notes {
            [] => return Ok(None),
            // As wide as the kernel's pointers, but the address is one of 32 bits.
            [desc] => match desc.as_slice() {
                [a, b, c, d] | [a, b, c, d, 0, 0, 0, 0] => u32::from_le_bytes([*a, *b, *c, *d]),
                _ => return Err(KernelProblem::BadPvhNote),
            },
            _ => return Err(KernelProblem::BadPvhNote),
        };
        if !self.has_physical(u64::from(entry)) {
            return Err(KernelProblem::EntryOutside(u64::from(entry)));
        }
        Ok(Some(entry))
    }

    fn has_physical(&self, address: u64) -> bool {
        let holds = |s: &Segment| address >= s.address && address - s.address < s.memory_len;
        self.segments.iter().any(holds)
    }

    /// The entry point before there are page tables of the kernel's own. Linux's is physical
    /// already; others tell where it will be once they have theirs.
    pub(super) fn physical_entry(&self) -> Result<u64, KernelProblem> {
        if self.has_physical(self.entry) {
            return Ok(self.entry);
        }
        let holds = |s: &&Segment| self.entry >= s.virt && self.entry - s.virt < s.memory_len;
        let segment = self.segments.iter().find(holds);
        segment
            .map(|segment| segment.address + (self.entry - segment.virt))
            .ok_or(KernelProblem::EntryOutside(self.entry))
    }

    pub(super) fn end(&self) -> u64 {
        let ends = self.segments.iter().map(|s| s.address + s.memory_len);
        ends.max().unwrap_or(KERNEL)
    }
}

fn check_segment(index: usize, program: &Program, len: u64) -> Result<Segment, KernelProblem> {
    if program.file_len > program.memory_len {
        return Err(KernelProblem::FileLargerThanMemory(
            index,
            program.file_len,
            program.memory_len,
        ));
    }
    let file_end = program.file_offset.saturating_add(program.file_len);
    if file_end > len {
        return Err(truncated(&format!("segment {index}"), file_end, len));
    }
    let end = program.phys.saturating_add(program.memory_len);
    if program.phys < KERNEL || end > HOLE {
        return Err(KernelProblem::SegmentOutside(index, program.phys, end));
    }
    Ok(Segment {
        address: program.phys,
        memory_len: program.memory_len,
        file_offset: program.file_offset,
        file_len: program.file_len,
        virt: program.virt,
    })
}

/// Loading costs no more than memory has bytes.
fn check_disjoint(segments: &[Segment]) -> Result<(), KernelProblem> {
    let mut order: Vec<usize> = (0..segments.len()).collect();
    order.sort_by_key(|&index| segments[index].address);
    for pair in order.windows(2) {
        let (low, high) = (segments[pair[0]], segments[pair[1]]);
        if low.address + low.memory_len > high.address {
            return Err(KernelProblem::SegmentsOverlap(pair[0], pair[1]));
        }
    }
    Ok(())
}

fn truncated(what: &str, needed: u64, len: u64) -> KernelProblem {
    KernelProblem::Truncated {
        what: what.to_owned(),
        needed,
        len,
    }
}
