//! bzImage: checks what its header says (Linux, Documentation/arch/x86/boot.rst).

use std::io;

use linux_loader::loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use vm_memory::ByteValued;

use super::KernelProblem;
use crate::boot::image::ReadAt;
use crate::boot::legacy::place::KERNEL;

/// Where the header begins in the file.
const HEADER: u64 = 0x1f1;

/// Where the magic number is in the file.
const MAGIC: usize = 0x202;

/// How far the 64-bit entry point is from where the kernel was loaded.
const ENTRY: u64 = 0x200;

const SECTOR: u64 = 512;

/// A bzImage, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BzImage {
    header: setup_header,
    file_len: u64,
    version: Option<String>,
}

pub(super) fn has_magic(start: &[u8]) -> bool {
    start.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
}

impl BzImage {
    pub(super) fn read<R: ReadAt + ?Sized>(file: &R) -> io::Result<Result<Self, KernelProblem>> {
        let mut header = setup_header::default();
        let needed = HEADER + size_of::<setup_header>() as u64;
        if needed > file.len() {
            return Ok(Err(truncated("the boot header", needed, file.len())));
        }
        file.read_exact_at(header.as_mut_slice(), HEADER)?;
        // The jump over the header tells its length; what follows is code.
        let end = MAGIC + usize::from(header.jump >> 8);
        if let Some(code) = header.as_mut_slice().get_mut(end - HEADER as usize..) {
            code.fill(0);
        }
        let mut image = Self {
            header,
            file_len: file.len(),
            version: None,
        };
        if let Err(problem) = image.check() {
            return Ok(Err(problem));
        }
        image.version = image.read_version(file)?;
        Ok(Ok(image))
    }

    fn check(&self) -> Result<(), KernelProblem> {
        if self.protocol() < 0x20c {
            return Err(KernelProblem::OldProtocol(self.protocol()));
        }
        if self.header.loadflags & LOADED_HIGH == 0 {
            return Err(KernelProblem::ZImage);
        }
        if self.header.xloadflags & XLF_KERNEL_64 == 0 {
            return Err(KernelProblem::Only32Bit);
        }
        // The length is told in units of 16 bytes, of which the last may not be whole.
        let told = u64::from(self.header.syssize) * 16;
        let needed = self.setup_len() + told.saturating_sub(15).max(ENTRY + 1);
        if needed > self.file_len {
            return Err(truncated("the kernel", needed, self.file_len));
        }
        Ok(())
    }

    /// The text that the header points to, if it is one.
    fn read_version<R: ReadAt + ?Sized>(&self, file: &R) -> io::Result<Option<String>> {
        const LONGEST: u64 = 256;
        let offset = u64::from(self.header.kernel_version);
        let start = offset + SECTOR;
        if offset == 0 || start >= self.setup_len() {
            return Ok(None);
        }
        let mut text = vec![0; (self.setup_len() - start).min(LONGEST) as usize];
        file.read_exact_at(&mut text, start)?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let is_text = !text.is_empty() && text.iter().all(|byte| (b' '..=b'~').contains(byte));
        Ok(is_text.then(|| String::from_utf8_lossy(text).into_owned()))
    }

    /// The header, for the boot parameters.
    pub(crate) fn header(&self) -> &setup_header {
        &self.header
    }

    /// Bytes of the file that loading it takes: the setup code and the kernel, not what is behind.
    pub(crate) fn len(&self) -> u64 {
        self.setup_len() + self.kernel_len()
    }

    pub(super) fn protocol(&self) -> u16 {
        self.header.version
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    pub(super) fn entry(&self) -> u64 {
        KERNEL + ENTRY
    }

    /// Bytes of 16-bit code before the kernel; 0 sectors mean 4, and the boot sector counts extra.
    fn setup_len(&self) -> u64 {
        let sectors = match self.header.setup_sects {
            0 => 4,
            sectors => u64::from(sectors),
        };
        (sectors + 1) * SECTOR
    }

    fn kernel_len(&self) -> u64 {
        let told = u64::from(self.header.syssize) * 16;
        told.min(self.file_len.saturating_sub(self.setup_len()))
    }

    /// It decompresses itself to its preferred address, or above where it was loaded if that is
    /// higher, and tells how much room that takes.
    pub(super) fn end(&self) -> u64 {
        let alignment = u64::from(self.header.kernel_alignment).max(1);
        let above = match self.header.relocatable_kernel {
            0 => 0,
            _ => KERNEL.next_multiple_of(alignment),
        };
        let start = above.max(self.header.pref_address);
        let runs = start.saturating_add(u64::from(self.header.init_size));
        runs.max(KERNEL + self.kernel_len())
    }

    pub(super) fn command_line_limit(&self) -> usize {
        self.header.cmdline_size as usize
    }

    pub(super) fn initrd_limit(&self) -> u64 {
        u64::from(self.header.initrd_addr_max)
    }
}

fn truncated(what: &str, needed: u64, len: u64) -> KernelProblem {
    KernelProblem::Truncated {
        what: what.to_owned(),
        needed,
        len,
    }
}
