//! Hand-made ELF files: a right one to begin with, and every field open to be made wrong.
//!
//! [`Elf::right`] is a native image that ends with status 7. A test changes what it wants broken
//! and takes the [`bytes`](Elf::bytes). Nothing here checks anything: that is the monitor's job.

use object::elf;
use slice_abi::layout::{PAGE_SIZE, RAM_BASE};
use slice_abi::note::{NOTE_NAME, NOTE_TYPE};
use slice_abi::{ABI_VERSION, control, info::InfoPage};

/// Status with which [`Elf::right`] ends.
pub const RIGHT_STATUS: u8 = 7;

/// Index of the header that loads the ELF header, the program headers and the note.
pub const HEADERS: usize = 0;
/// Index of the header that loads the code.
pub const TEXT: usize = 1;
/// Index of the header that names the note.
pub const NOTE: usize = 2;

const EHDR_BYTES: usize = 64;
const PHDR_BYTES: usize = 56;
const NOTE_OFFSET: u64 = 0x800;

/// An ELF file to be.
#[derive(Debug, Clone)]
pub struct Elf {
    /// The 16 bytes of identification.
    pub ident: [u8; 16],
    /// `e_type`.
    pub kind: u16,
    /// `e_machine`.
    pub machine: u16,
    /// `e_version`.
    pub version: u32,
    /// `e_entry`.
    pub entry: u64,
    /// `e_phoff`.
    pub phoff: u64,
    /// `e_phentsize`.
    pub phentsize: u16,
    /// `e_phnum`, if it is to lie.
    pub phnum: Option<u16>,
    /// The program headers.
    pub headers: Vec<Header>,
    /// Contents of the file, by offset; later ones overwrite earlier ones.
    pub contents: Vec<(u64, Vec<u8>)>,
}

/// A program header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "named as in the ELF specification, without their prefix"
)]
pub struct Header {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub vaddr: u64,
    pub paddr: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub align: u64,
}

impl Header {
    /// A segment of whole pages that the file says nothing about: `pages` pages at `vaddr`.
    pub fn zeroed(flags: u32, vaddr: u64, pages: u64) -> Self {
        Self {
            kind: elf::PT_LOAD.0,
            flags,
            offset: 0,
            vaddr,
            paddr: vaddr,
            filesz: 0,
            memsz: pages * PAGE_SIZE,
            align: PAGE_SIZE,
        }
    }

    /// A header of another kind that covers the note's bytes.
    pub fn of_kind(kind: u32) -> Self {
        Self {
            kind,
            flags: elf::PF_R.0,
            offset: NOTE_OFFSET,
            vaddr: RAM_BASE + NOTE_OFFSET,
            paddr: RAM_BASE + NOTE_OFFSET,
            filesz: 16,
            memsz: 16,
            align: 8,
        }
    }
}

/// Bytes of a note, whatever it says.
pub fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [name.len() as u32, desc.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name, desc] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Descriptor of a slice's note.
pub fn note_desc(abi_version: u32, flags: u32, stack_size: u64) -> Vec<u8> {
    let mut desc = Vec::new();
    desc.extend(abi_version.to_le_bytes());
    desc.extend(flags.to_le_bytes());
    desc.extend(stack_size.to_le_bytes());
    desc
}

/// Code that ends the sliver with `status`.
pub fn exit_code(status: u8) -> Vec<u8> {
    let window = std::mem::offset_of!(InfoPage, control) as u32;
    let mut code = vec![0x48, 0x8b, 0x87]; // mov rax, [rdi + window]
    code.extend(window.to_le_bytes());
    code.extend([0x48, 0xc7, 0x40, control::EXIT as u8, status, 0, 0, 0]); // mov qword [rax + EXIT], status
    code.extend([0x0f, 0x0b]); // ud2
    code
}

impl Elf {
    /// A right image: a read-only segment with the headers and the note, and one with code that
    /// ends with [`RIGHT_STATUS`].
    pub fn right() -> Self {
        Self::with_code(&exit_code(RIGHT_STATUS))
    }

    /// A right image that runs `code`.
    pub fn with_code(code: &[u8]) -> Self {
        let note = note(NOTE_NAME, NOTE_TYPE, &note_desc(ABI_VERSION, 0, 0));
        let mut ident = [0; 16];
        ident[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        let load = |flags, offset: u64, len: u64| Header {
            kind: elf::PT_LOAD.0,
            flags,
            offset,
            vaddr: RAM_BASE + offset,
            paddr: RAM_BASE + offset,
            filesz: len,
            memsz: len,
            align: PAGE_SIZE,
        };
        Self {
            ident,
            kind: elf::ET_EXEC.0,
            machine: elf::EM_X86_64.0,
            version: 1,
            entry: RAM_BASE + PAGE_SIZE,
            phoff: EHDR_BYTES as u64,
            phentsize: PHDR_BYTES as u16,
            phnum: None,
            headers: vec![
                load(elf::PF_R.0, 0, PAGE_SIZE),
                load(elf::PF_R.0 | elf::PF_X.0, PAGE_SIZE, code.len() as u64),
                Header {
                    filesz: note.len() as u64,
                    memsz: note.len() as u64,
                    ..Header::of_kind(elf::PT_NOTE.0)
                },
            ],
            contents: vec![(NOTE_OFFSET, note), (PAGE_SIZE, code.to_vec())],
        }
    }

    /// The same with another note.
    pub fn with_note(mut self, note: Vec<u8>) -> Self {
        self.headers[NOTE].filesz = note.len() as u64;
        self.headers[NOTE].memsz = note.len() as u64;
        self.contents.push((NOTE_OFFSET, note));
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = self.ident.to_vec();
        file.extend(self.kind.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(self.version.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
        file.extend(self.phoff.to_le_bytes());
        file.extend(0u64.to_le_bytes()); // no section headers
        file.extend(0u32.to_le_bytes()); // flags
        let phnum = self.phnum.unwrap_or(self.headers.len() as u16);
        for half in [EHDR_BYTES as u16, self.phentsize, phnum, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        for header in &self.headers {
            file.extend(header.kind.to_le_bytes());
            file.extend(header.flags.to_le_bytes());
            for word in [
                header.offset,
                header.vaddr,
                header.paddr,
                header.filesz,
                header.memsz,
                header.align,
            ] {
                file.extend(word.to_le_bytes());
            }
        }
        for (offset, bytes) in &self.contents {
            let start = *offset as usize;
            file.resize(file.len().max(start + bytes.len()), 0);
            file[start..start + bytes.len()].copy_from_slice(bytes);
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Object, ObjectSegment};

    #[test]
    fn the_right_image_is_an_elf_file_to_others_too() {
        let bytes = Elf::right().bytes();
        let file = object::File::parse(&*bytes).expect("another parser reads it");
        assert_eq!(file.architecture(), object::Architecture::X86_64);
        assert_eq!(file.entry(), RAM_BASE + PAGE_SIZE);
        let text = file.segments().nth(TEXT).expect("two segments are loaded");
        assert_eq!(text.data().expect("in the file"), exit_code(RIGHT_STATUS));
    }

    #[test]
    fn a_changed_field_changes_only_its_bytes() {
        let right = Elf::right().bytes();
        let mut wrong = Elf::right();
        wrong.machine = elf::EM_AARCH64.0;
        let wrong = wrong.bytes();
        let differing: Vec<usize> = (0..right.len()).filter(|&i| right[i] != wrong[i]).collect();
        assert!(
            differing.iter().all(|i| (18..20).contains(i)),
            "{differing:?}"
        );
    }
}
