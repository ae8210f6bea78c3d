//! Checks that an ELF file is a native image, and says everything that speaks against it.
//!
//! Only the file header, the program headers and the notes are read. What comes out as a
//! [`NativeImage`] keeps every promise the loader relies on: segments ascend, share no page, stay
//! inside RAM's possible range and inside the file, and are never writable and executable.

mod note;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io;

use object::LittleEndian as LE;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PF_W, PF_X,
    PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_NOTE, PT_TLS, ProgramFlags, ProgramHeader64,
};
use object::pod::{from_bytes, slice_from_all_bytes};
use slice_abi::ABI_VERSION;
use slice_abi::info::access;
use slice_abi::layout::{
    MAX_SEGMENTS, MAX_STACK_SIZE, MIN_STACK_SIZE, PAGE_SIZE, RAM_BASE, RAM_LIMIT,
};

use crate::boot::image::{ReadAt, machine_name};
use crate::boot::note::MAX_NOTE_BYTES;

/// The most program headers that are looked at.
const MAX_PROGRAM_HEADERS: u16 = 64;

/// A loadable segment, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it goes: virtual and guest physical address.
    pub address: u64,
    /// Bytes in memory; what the file does not give is zero.
    pub memory_len: u64,
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Bytes in the file.
    pub file_len: u64,
    /// Bits of [`access`].
    pub access: u32,
}

impl Segment {
    /// The pages it lies in: first byte of the first, one past the last byte of the last.
    pub fn pages(&self) -> (u64, u64) {
        let start = self.address / PAGE_SIZE * PAGE_SIZE;
        (
            start,
            (self.address + self.memory_len).next_multiple_of(PAGE_SIZE),
        )
    }
}

/// An image that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeImage {
    entry: u64,
    stack_size: u64,
    segments: Vec<Segment>,
}

impl NativeImage {
    /// Address of the first instruction.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Bytes of stack for each vCPU, a multiple of the page size.
    pub fn stack_size(&self) -> u64 {
        self.stack_size
    }

    /// The loadable segments, ascending, at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The pages from the first segment to the last: first byte, one past the last byte.
    pub fn pages(&self) -> (u64, u64) {
        let first = self.segments.first().map_or(RAM_BASE, |s| s.pages().0);
        let last = self.segments.last().map_or(RAM_BASE, |s| s.pages().1);
        (first, last)
    }
}

/// What was found in a file, whether or not it can be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// Address of the first instruction, if the file got that far.
    pub entry: Option<u64>,
    /// ABI version its note tells, if it has one.
    pub abi_version: Option<u32>,
    /// Bytes of stack for each vCPU, if its note tells.
    pub stack_size: Option<u64>,
    /// The loadable segments that are sound by themselves.
    pub segments: Vec<Segment>,
    /// Whether it has a slice note, sound or not.
    pub has_note: bool,
    /// Everything that speaks against running it.
    pub problems: Vec<Problem>,
}

impl Examination {
    /// The image, if nothing speaks against it.
    pub fn into_image(self) -> Result<NativeImage, Vec<Problem>> {
        match (self.problems.is_empty(), self.entry, self.stack_size) {
            (true, Some(entry), Some(stack_size)) => Ok(NativeImage {
                entry,
                stack_size,
                segments: self.segments,
            }),
            _ => Err(self.problems),
        }
    }
}

/// A reason why a file is not a native image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum Problem {
    #[error("it is empty")]
    Empty,
    #[error("it is {0}, not an ELF file")]
    NotElf(String),
    #[error("it is truncated: {what} needs bytes up to {needed}, the file has {len}")]
    Truncated { what: String, needed: u64, len: u64 },
    #[error("it is a 32-bit ELF file, and no kernel with a PVH note")]
    NotElf64,
    #[error("it is big endian")]
    BigEndian,
    #[error("it is for another machine, {}, not x86-64", machine_name(*.0))]
    WrongMachine(u16),
    #[error("it is position independent: link it with -static -no-pie")]
    PositionIndependent,
    #[error("it is not an executable (ELF type {0})")]
    NotExecutable(u16),
    #[error("its header announces ELF version {0}, not 1")]
    WrongElfVersion(u32),
    #[error("its program headers have {0} bytes each, not 56")]
    WrongHeaderSize(u16),
    #[error("it has {0} program headers, 1 to {MAX_PROGRAM_HEADERS} are allowed")]
    HeaderCount(u16),
    #[error("it has a {0} segment: nothing in a native image may be left to a dynamic loader")]
    NeedsLoader(&'static str),
    #[error("it has no loadable segment")]
    NoSegments,
    #[error("it has more than {MAX_SEGMENTS} loadable segments")]
    TooManySegments,
    #[error("segment {0} has more bytes in the file ({1}) than in memory ({2})")]
    FileLargerThanMemory(usize, u64, u64),
    #[error("segment {0} wraps around the end of the address space")]
    SegmentWraps(usize),
    #[error(
        "segment {0} lies at {1:#x}..{2:#x}, outside {RAM_BASE:#x}..{RAM_LIMIT:#x}: link it with \
         --image-base={RAM_BASE:#x}"
    )]
    SegmentOutside(usize, u64, u64),
    #[error("segment {0} is writable and executable")]
    WritableAndExecutable(usize),
    #[error("segment {0} shares a page with segment {1} or lies below it")]
    SegmentsOverlap(usize, usize),
    #[error(
        "segment {0} is not writable and lies above one that is: devices could change it; link \
         read-only segments first"
    )]
    ReadOnlyAboveWritable(usize),
    #[error("its entry point {0:#x} is not in an executable segment")]
    EntryOutside(u64),
    #[error(
        "it has no slice note (.note.slice): it was not built as a native image; to boot it as a \
         kernel, set kernel.protocol in the spec to linux or pvh"
    )]
    NoNote,
    #[error("it has more than one slice note")]
    SecondNote,
    #[error("its slice note is malformed: {0}")]
    BadNote(String),
    #[error("it was built for slice ABI {0}, this monitor has {ABI_VERSION}")]
    WrongAbi(u32),
    #[error(
        "its slice note asks for a stack of {0} bytes: wanted is a multiple of {PAGE_SIZE} \
         from {MIN_STACK_SIZE} to {MAX_STACK_SIZE}"
    )]
    BadStackSize(u64),
}

type FileHeader = FileHeader64<LE>;
type ProgramHeader = ProgramHeader64<LE>;

/// Looks at a file. Fails only if reading does.
pub fn examine<R: ReadAt + ?Sized>(file: &R) -> io::Result<Examination> {
    let mut found = Examination::default();
    match read_headers(file)? {
        Ok((header, program_headers)) => {
            check_header(&header, &mut found);
            check_segments(file.len(), &program_headers, &mut found);
            check_entry(&mut found);
            check_notes(file, &program_headers, &mut found)?;
        }
        Err(problem) => found.problems.push(problem),
    }
    Ok(found)
}

/// The two tables everything else is told by, or why they cannot be had.
fn read_headers<R: ReadAt + ?Sized>(
    file: &R,
) -> io::Result<Result<(FileHeader, Vec<ProgramHeader>), Problem>> {
    let len = file.len();
    let mut start = vec![0; len.min(1024) as usize];
    file.read_exact_at(&mut start, 0)?;
    if !start.starts_with(&ELFMAG) {
        return Ok(Err(what_else(&start)));
    }
    let truncated = |what: &str, needed| Problem::Truncated {
        what: what.to_owned(),
        needed,
        len,
    };
    let Ok((header, _)) = from_bytes::<FileHeader>(&start) else {
        return Ok(Err(truncated(
            "the ELF header",
            size_of::<FileHeader>() as u64,
        )));
    };
    // A file of another class or byte order has its fields elsewhere: nothing more can be told.
    if header.e_ident.class != ELFCLASS64 {
        return Ok(Err(Problem::NotElf64));
    }
    if header.e_ident.data != ELFDATA2LSB {
        return Ok(Err(Problem::BigEndian));
    }
    let entry_size = header.e_phentsize.get(LE);
    if usize::from(entry_size) != size_of::<ProgramHeader>() {
        return Ok(Err(Problem::WrongHeaderSize(entry_size)));
    }
    let count = header.e_phnum.get(LE);
    if !(1..=MAX_PROGRAM_HEADERS).contains(&count) {
        return Ok(Err(Problem::HeaderCount(count)));
    }
    let offset = header.e_phoff.get(LE);
    let bytes = usize::from(count) * size_of::<ProgramHeader>();
    let end = offset.saturating_add(bytes as u64);
    if end > len {
        return Ok(Err(truncated("the program header table", end)));
    }
    let mut table = vec![0; bytes];
    file.read_exact_at(&mut table, offset)?;
    // The structures are made of bytes, so any buffer of the right length will do.
    let table = slice_from_all_bytes::<ProgramHeader>(&table)
        .map_err(|()| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Ok((*header, table.to_vec())))
}

fn what_else(start: &[u8]) -> Problem {
    let what = if start.is_empty() {
        return Problem::Empty;
    } else if start.starts_with(b"#!") {
        "a script"
    } else if start.starts_with(b"QFI\xfb") {
        "a qcow2 disk"
    } else if start
        .iter()
        .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
    {
        "a text file"
    } else {
        "an unknown kind of file"
    };
    Problem::NotElf(what.to_owned())
}

fn check_header(header: &FileHeader, found: &mut Examination) {
    found.entry = Some(header.e_entry.get(LE));
    let version = header.e_version.get(LE);
    if version != 1 {
        found.problems.push(Problem::WrongElfVersion(version));
    }
    let machine = header.e_machine.get(LE);
    if machine != EM_X86_64 {
        found.problems.push(Problem::WrongMachine(machine.0));
    }
    match header.e_type.get(LE) {
        ET_EXEC => {}
        ET_DYN => found.problems.push(Problem::PositionIndependent),
        other => found.problems.push(Problem::NotExecutable(other.0)),
    }
}

fn check_segments(file_len: u64, headers: &[ProgramHeader], found: &mut Examination) {
    for header in headers {
        let kind = match header.p_type.get(LE) {
            PT_INTERP => "PT_INTERP",
            PT_DYNAMIC => "PT_DYNAMIC",
            PT_TLS => "PT_TLS",
            _ => continue,
        };
        found.problems.push(Problem::NeedsLoader(kind));
    }
    let loads = headers.iter().filter(|h| {
        h.p_type.get(LE) == PT_LOAD && (h.p_memsz.get(LE), h.p_filesz.get(LE)) != (0, 0)
    });
    let mut previous: Option<(usize, u64)> = None;
    for (index, header) in loads.enumerate() {
        if index == MAX_SEGMENTS {
            found.problems.push(Problem::TooManySegments);
            return;
        }
        match check_segment(index, file_len, header) {
            Ok(segment) => {
                let (start, end) = segment.pages();
                if let Some((other, other_end)) = previous
                    && start < other_end
                {
                    found.problems.push(Problem::SegmentsOverlap(index, other));
                }
                let writable = |s: &Segment| s.access & access::WRITE != 0;
                if !writable(&segment) && found.segments.iter().any(writable) {
                    found.problems.push(Problem::ReadOnlyAboveWritable(index));
                }
                previous = Some((index, end.max(previous.map_or(0, |(_, end)| end))));
                found.segments.push(segment);
            }
            Err(problem) => found.problems.push(problem),
        }
    }
    if previous.is_none() && found.problems.is_empty() {
        found.problems.push(Problem::NoSegments);
    }
}

fn check_segment(index: usize, file_len: u64, header: &ProgramHeader) -> Result<Segment, Problem> {
    let segment = Segment {
        address: header.p_vaddr.get(LE),
        memory_len: header.p_memsz.get(LE),
        file_offset: header.p_offset.get(LE),
        file_len: header.p_filesz.get(LE),
        access: access_of(header.p_flags.get(LE)),
    };
    if segment.file_len > segment.memory_len {
        return Err(Problem::FileLargerThanMemory(
            index,
            segment.file_len,
            segment.memory_len,
        ));
    }
    let file_end = segment.file_offset.saturating_add(segment.file_len);
    if file_end > file_len {
        let what = format!("segment {index}");
        return Err(Problem::Truncated {
            what,
            needed: file_end,
            len: file_len,
        });
    }
    let end = segment
        .address
        .checked_add(segment.memory_len)
        .ok_or(Problem::SegmentWraps(index))?;
    if segment.address < RAM_BASE || end > RAM_LIMIT {
        return Err(Problem::SegmentOutside(index, segment.address, end));
    }
    if segment.access & (access::WRITE | access::EXECUTE) == access::WRITE | access::EXECUTE {
        return Err(Problem::WritableAndExecutable(index));
    }
    Ok(segment)
}

/// Readable always: x86 pages have no other way to be there at all.
fn access_of(flags: ProgramFlags) -> u32 {
    let mut bits = access::READ;
    if flags.0 & PF_W.0 != 0 {
        bits |= access::WRITE;
    }
    if flags.0 & PF_X.0 != 0 {
        bits |= access::EXECUTE;
    }
    bits
}

fn check_entry(found: &mut Examination) {
    let Some(entry) = found.entry else { return };
    let inside = |s: &Segment| {
        s.access & access::EXECUTE != 0 && entry >= s.address && entry - s.address < s.memory_len
    };
    if !found.segments.iter().any(inside) {
        found.problems.push(Problem::EntryOutside(entry));
    }
}

fn check_notes<R: ReadAt + ?Sized>(
    file: &R,
    headers: &[ProgramHeader],
    found: &mut Examination,
) -> io::Result<()> {
    let mut notes = Vec::new();
    for header in headers.iter().filter(|h| h.p_type.get(LE) == PT_NOTE) {
        let (offset, len) = (header.p_offset.get(LE), header.p_filesz.get(LE));
        let end = offset.saturating_add(len);
        if end > file.len() {
            let what = "a note segment".to_owned();
            found.problems.push(Problem::Truncated {
                what,
                needed: end,
                len: file.len(),
            });
            continue;
        }
        let mut bytes = vec![0; len.min(MAX_NOTE_BYTES) as usize];
        file.read_exact_at(&mut bytes, offset)?;
        notes.extend(note::find(&bytes));
    }
    found.has_note = !notes.is_empty();
    match notes.as_slice() {
        [] => found.problems.push(Problem::NoNote),
        [desc] => note::check(desc, found),
        _ => found.problems.push(Problem::SecondNote),
    }
    Ok(())
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |bit, letter| if self.access & bit != 0 { letter } else { '-' };
        write!(
            f,
            "{:#x}..{:#x} {}{}{}",
            self.address,
            self.address + self.memory_len,
            flag(access::READ, 'r'),
            flag(access::WRITE, 'w'),
            flag(access::EXECUTE, 'x')
        )
    }
}
