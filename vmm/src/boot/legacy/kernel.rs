//! A kernel as its file tells of it: its format, how it is entered and the memory it takes.
//!
//! The file may be hostile. Whatever comes out as a [`Kernel`] lies inside its file, keeps clear of
//! the first MiB, and is entered inside itself.

mod bzimage;
mod elf;
#[cfg(test)]
mod tests;

use std::io;

use super::place::KERNEL;
use crate::boot::image::ReadAt;
use crate::spec::Protocol;

pub(super) use bzimage::BzImage;
pub(crate) use elf::Headers;
pub(super) use elf::{Class, Elf};

/// A kernel that can be booted, if it gets the memory that it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    format: Format,
    entrance: Entrance,
}

/// How a kernel's file is made.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Format {
    BzImage(BzImage),
    Elf(Elf),
}

/// Where and how a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// In 64-bit mode with Linux's boot parameters, at this physical address.
    Linux(u64),
    /// In 32-bit mode with PVH's start info, at this physical address.
    Pvh(u32),
}

/// Why a file that is meant to be a kernel cannot be booted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum KernelProblem {
    #[error("it is for {0}, not x86-64")]
    OtherMachine(String),
    #[error("it is compressed with {with}: decompress it first, with `{command}`")]
    Compressed {
        with: &'static str,
        command: &'static str,
    },
    #[error("it is truncated: {what} needs bytes up to {needed}, the file has {len}")]
    Truncated { what: String, needed: u64, len: u64 },
    #[error(
        "it speaks version {}.{} of Linux's boot protocol: 2.12 (Linux 3.8) is the oldest that is \
         booted",
        .0 >> 8,
        .0 & 0xff
    )]
    OldProtocol(u16),
    #[error("it is a zImage, which runs below 1 MiB: only a bzImage is booted")]
    ZImage,
    #[error("it is a 32-bit kernel: it has no 64-bit entry point")]
    Only32Bit,
    #[error("it is a bzImage, which has no PVH entry point: use its vmlinux, or protocol linux")]
    BzImageThroughPvh,
    #[error("it has no PVH note, by which its PVH entry point would be told")]
    NoPvhNote,
    #[error("its PVH note is malformed")]
    BadPvhNote,
    #[error("it is a 32-bit ELF file, which Linux's 64-bit boot protocol cannot enter")]
    Elf32ThroughLinux,
    #[error("it is big endian")]
    BigEndian,
    #[error("it is not an executable (ELF type {0})")]
    NotExecutable(u16),
    #[error("its program headers have {0} bytes each, not {1}")]
    HeaderSize(u16, usize),
    #[error("it has {0} program headers, 1 to {max} are allowed", max = elf::MAX_PROGRAM_HEADERS)]
    HeaderCount(u16),
    #[error("its program headers lie at {0:#x}, inside the ELF header")]
    HeadersInHeader(u64),
    #[error("it has no loadable segment")]
    NoSegments,
    #[error("segment {0} has more bytes in the file ({1}) than in memory ({2})")]
    FileLargerThanMemory(usize, u64, u64),
    #[error(
        "segment {0} goes to {1:#x}..{2:#x}, but a kernel's place is from {KERNEL:#x} to {hole:#x}",
        hole = super::map::HOLE
    )]
    SegmentOutside(usize, u64, u64),
    #[error("segments {0} and {1} overlap in memory")]
    SegmentsOverlap(usize, usize),
    #[error("its entry point {0:#x} is in none of its segments")]
    EntryOutside(u64),
}

impl Kernel {
    /// The kernel in a bzImage, to be entered through `protocol`.
    pub(crate) fn from_bzimage<R: ReadAt + ?Sized>(
        file: &R,
        protocol: Protocol,
    ) -> io::Result<Result<Self, KernelProblem>> {
        Ok(BzImage::read(file)?.and_then(|image| match protocol {
            Protocol::Auto | Protocol::Linux => Ok(Self {
                entrance: Entrance::Linux(image.entry()),
                format: Format::BzImage(image),
            }),
            Protocol::Pvh => Err(KernelProblem::BzImageThroughPvh),
        }))
    }

    /// The kernel in an ELF file, to be entered through `protocol`.
    pub(crate) fn from_elf(headers: &Headers, protocol: Protocol) -> Result<Self, KernelProblem> {
        let elf = Elf::check(headers)?;
        let entrance = match (protocol, elf.pvh) {
            (Protocol::Auto | Protocol::Pvh, Some(entry)) => Entrance::Pvh(entry),
            (Protocol::Pvh, None) => return Err(KernelProblem::NoPvhNote),
            (Protocol::Auto | Protocol::Linux, _) if elf.class == Class::Elf32 => {
                return Err(KernelProblem::Elf32ThroughLinux);
            }
            (Protocol::Auto | Protocol::Linux, _) => Entrance::Linux(elf.physical_entry()?),
        };
        let format = Format::Elf(elf);
        Ok(Self { format, entrance })
    }

    /// Whether a file that begins with these bytes is a bzImage, or was once.
    pub(crate) fn is_bzimage(start: &[u8]) -> bool {
        bzimage::has_magic(start)
    }

    pub(super) fn format(&self) -> &Format {
        &self.format
    }

    /// The format's name.
    pub fn format_name(&self) -> &'static str {
        match &self.format {
            Format::BzImage(_) => "bzImage",
            Format::Elf(elf) if elf.class == Class::Elf32 => "32-bit ELF",
            Format::Elf(_) => "64-bit ELF",
        }
    }

    /// Where and how it is entered.
    pub fn entrance(&self) -> Entrance {
        self.entrance
    }

    /// The version of Linux's boot protocol that it speaks, if it says so.
    pub fn boot_protocol(&self) -> Option<(u8, u8)> {
        match &self.format {
            Format::BzImage(image) => Some(((image.protocol() >> 8) as u8, image.protocol() as u8)),
            Format::Elf(_) => None,
        }
    }

    /// What it says of its version, if it does.
    pub fn version(&self) -> Option<&str> {
        match &self.format {
            Format::BzImage(image) => image.version(),
            Format::Elf(_) => None,
        }
    }

    /// Its PVH entry point, if it has one.
    pub fn pvh_entry(&self) -> Option<u32> {
        match &self.format {
            Format::BzImage(_) => None,
            Format::Elf(elf) => elf.pvh,
        }
    }

    /// The first address above all memory that it takes before it knows how much there is.
    pub fn end(&self) -> u64 {
        match &self.format {
            Format::BzImage(image) => image.end(),
            Format::Elf(elf) => elf.end(),
        }
    }

    /// The longest command line that it reads, in bytes without the terminator.
    pub fn command_line_limit(&self) -> usize {
        /// What Linux on x86 reads, `COMMAND_LINE_SIZE` less the terminator.
        const USUAL: usize = 2047;
        match &self.format {
            Format::BzImage(image) => image.command_line_limit(),
            Format::Elf(_) => USUAL,
        }
    }

    /// The highest address that its initrd may have a byte at.
    pub(super) fn initrd_limit(&self) -> u64 {
        match &self.format {
            Format::BzImage(image) => image.initrd_limit(),
            Format::Elf(_) => u64::from(u32::MAX),
        }
    }
}
