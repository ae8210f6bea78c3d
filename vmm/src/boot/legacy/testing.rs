//! Small correct kernels, for tests to load and to spoil, and specs for them.

use serde_json::{Value, json};

use super::place::KERNEL;
use crate::spec::SliverSpec;

/// Bytes of the setup code of [`bzimage`].
pub(crate) const SETUP_LEN: usize = 0x400;

/// A spec with these fields beside those that every spec has.
pub(crate) fn spec(fields: &Value) -> SliverSpec {
    let mut spec = json!({
        "version": 1,
        "name": "kernel",
        "slice": "test_kernel",
        "owner": "Test",
        "contact": "test@example.org",
        "image": "/absent/image",
    });
    for (name, value) in fields.as_object().expect("fields are an object") {
        spec[name] = value.clone();
    }
    SliverSpec::parse(spec.to_string().as_bytes()).expect("it is a spec")
}

/// Overwrites bytes.
pub(crate) fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A bzImage that would speak protocol 2.15, be 4 KiB long and take memory up to 18 MiB.
pub(crate) fn bzimage() -> Vec<u8> {
    let mut file = vec![0; SETUP_LEN + 0x1000];
    put(&mut file, 0x1f1, &[1]); // sectors of setup code
    put(&mut file, 0x1f4, &0x100u32.to_le_bytes()); // units of 16 bytes
    put(&mut file, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut file, 0x202, b"HdrS\x0f\x02");
    put(&mut file, 0x20e, &0x80u16.to_le_bytes()); // version text, after the boot sector
    put(&mut file, 0x211, &[1]); // loaded high
    put(&mut file, 0x22c, &0x7fff_ffffu32.to_le_bytes()); // highest byte of an initrd
    put(&mut file, 0x230, &0x20_0000u32.to_le_bytes()); // alignment
    put(&mut file, 0x234, &[1, 21, 0b11, 0]); // relocatable, xloadflags
    put(&mut file, 0x238, &2047u32.to_le_bytes()); // command line
    put(&mut file, 0x258, &(16u64 << 20).to_le_bytes()); // preferred address
    put(&mut file, 0x260, &(2u32 << 20).to_le_bytes()); // room that it takes
    put(&mut file, 0x280, b"6.1.0-test\0");
    for (i, byte) in file[SETUP_LEN..].iter_mut().enumerate() {
        *byte = i as u8 | 1;
    }
    file
}

/// An ELF file being made.
pub(crate) struct ElfFile {
    pub(crate) wide: bool,
    pub(crate) machine: u16,
    pub(crate) entry: u64,
    /// Physical and virtual address and length in memory; half of it is in the file.
    pub(crate) segments: Vec<(u64, u64, u64)>,
    /// What a PVH note tells.
    pub(crate) pvh: Option<u32>,
}

impl ElfFile {
    /// As `vmlinux` is.
    pub(crate) fn vmlinux() -> Self {
        let virt = 0xffff_ffff_8000_0000;
        Self {
            wide: true,
            machine: 62,
            entry: KERNEL + 0x40,
            segments: vec![
                (KERNEL, virt + KERNEL, 0x2000),
                (4 << 20, virt + (4 << 20), 0x4000),
            ],
            pvh: None,
        }
    }

    /// As unikernels of 32 bits are.
    pub(crate) fn small() -> Self {
        Self {
            wide: false,
            machine: 3,
            entry: KERNEL,
            segments: vec![(KERNEL, KERNEL, 0x2000)],
            pvh: Some(KERNEL as u32 + 0x10),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        const NOTE: u64 = 0x800;
        const DATA: u64 = 0x1000;
        let (header_len, entry_len) = if self.wide { (64, 56) } else { (52, 32) };
        let mut out = Fields {
            wide: self.wide,
            bytes: Vec::new(),
        };
        let class = if self.wide { 2 } else { 1 };
        out.bytes.extend([
            0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
        out.half(2);
        out.half(self.machine);
        out.word(1);
        out.address(self.entry);
        out.address(header_len);
        out.address(0);
        out.word(0);
        let count = self.segments.len() + usize::from(self.pvh.is_some());
        for half in [header_len as u16, entry_len, count as u16, 0, 0, 0] {
            out.half(half);
        }
        let mut offset = DATA;
        for &(phys, virt, len) in &self.segments {
            out.program(1, [offset, virt, phys, len / 2, len]);
            offset += len / 2;
        }
        if self.pvh.is_some() {
            out.program(4, [NOTE, 0, 0, 20, 20]);
        }
        out.bytes.resize(NOTE as usize, 0);
        if let Some(entry) = self.pvh {
            for word in [4, 4, 18] {
                out.word(word);
            }
            out.bytes.extend(b"Xen\0");
            out.word(entry);
        }
        out.bytes.resize(DATA as usize, 0);
        for (index, &(.., len)) in self.segments.iter().enumerate() {
            let end = out.bytes.len() + len as usize / 2;
            out.bytes.resize(end, 0xa0 + index as u8);
        }
        out.bytes
    }
}

struct Fields {
    wide: bool,
    bytes: Vec<u8>,
}

impl Fields {
    fn half(&mut self, value: u16) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn address(&mut self, value: u64) {
        match self.wide {
            true => self.bytes.extend(value.to_le_bytes()),
            false => self.word(value as u32),
        }
    }

    /// Offset, virtual and physical address, length in the file and in memory.
    fn program(&mut self, kind: u32, fields: [u64; 5]) {
        self.word(kind);
        if self.wide {
            self.word(7);
        }
        for field in fields {
            self.address(field);
        }
        if !self.wide {
            self.word(7);
        }
        self.address(0x1000);
    }
}
