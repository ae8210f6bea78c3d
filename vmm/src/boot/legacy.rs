//! Legacy images: kernels that were not written for us, and the machine that they expect.
//!
//! [`Kernel`] is what a file is, checked. [`Plan`] is where it goes, checked before anything is made
//! for it. [`Legacy::load`] puts it into memory with everything it is told, and says how to enter it.

mod acpi;
mod command_line;
mod entry;
mod gdt;
mod kernel;
mod linux;
pub mod map;
mod place;
mod pvh;
mod source;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::PathBuf;

use linux_loader::configurator;
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::{KernelLoader, load_cmdline};
use rustix::rand::{GetRandomFlags, getrandom};
use slice_abi::info::Range;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use self::kernel::Format;
use self::linux::Told;
use self::place::{BOOT_PARAMS, COMMAND_LINE, GDT, KERNEL, PAGE_TABLES, STACK_TOP};
use self::source::Source;
use crate::boot::image::{ImageFile, OpenError, ReadAt};
use crate::kvm::memory::GuestRam;
use crate::say::shown_path;
use crate::spec::{KernelSpec, SliverSpec};

pub use self::command_line::CommandLineError;
pub use self::entry::{DeviceWindow, Entry, Mode};
pub use self::gdt::{CODE, DATA, TASK};
pub(crate) use self::kernel::Headers;
pub use self::kernel::{Entrance, Kernel, KernelProblem};
pub use self::place::{DoesNotFit, least_memory_mib};

/// A kernel could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The initrd cannot be opened.
    #[error("cannot open initrd {}: {source}", shown_path(path))]
    Initrd {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The initrd has no bytes.
    #[error("initrd {} is empty", shown_path(.0))]
    EmptyInitrd(PathBuf),
    /// It needs more memory, or other memory.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// Its command line cannot be made.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// A file could not be read into memory.
    #[error("cannot read {what}: {source}")]
    Read {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The start was given up while a file was read.
    #[error("the start was given up")]
    GivenUp,
    /// Guest memory is not where it should be.
    #[error("cannot write to guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
    /// Guest memory is not where the boot parameters should be.
    #[error("cannot write the boot parameters: {0}")]
    Parameters(#[from] configurator::Error),
    /// The ACPI tables outgrow their place.
    #[error("the ACPI tables of this machine have {0} bytes, there is room for {room}", room = place::ACPI_ROOM)]
    Tables(usize),
    /// There are no random numbers to give to the guest.
    #[error("cannot get random bytes: {0}")]
    Random(io::Error),
}

/// Where a kernel's initrd goes, if it has one; that everything fits is checked.
#[derive(Debug)]
pub struct Plan {
    initrd: Option<(PathBuf, ImageFile, Range)>,
}

/// Opens the initrd that a spec names, if it names one.
pub fn open_initrd(spec: &SliverSpec) -> Result<Option<File>, LoadError> {
    let path = spec.kernel().and_then(KernelSpec::initrd);
    let opened = path.map(|path| {
        ImageFile::open(path).map_err(|source| LoadError::Initrd {
            path: path.to_owned(),
            source,
        })
    });
    opened.transpose()
}

impl Plan {
    /// Looks at what the spec asks for besides the kernel. `initrd` is the open file of its initrd.
    pub fn new(
        kernel: &Kernel,
        spec: &SliverSpec,
        initrd: Option<File>,
    ) -> Result<Self, LoadError> {
        let path = spec.kernel().and_then(KernelSpec::initrd);
        let initrd = path
            .zip(initrd)
            .map(|(path, file)| {
                let file = ImageFile::new(file).map_err(|source| LoadError::Initrd {
                    path: path.to_owned(),
                    source,
                })?;
                match file.is_empty() {
                    true => Err(LoadError::EmptyInitrd(path.to_owned())),
                    false => Ok((path.to_owned(), file)),
                }
            })
            .transpose()?;
        let len = initrd.as_ref().map_or(0, |(_, file)| file.len());
        let range = place::place_initrd(kernel, len, spec.memory_bytes())?;
        Ok(Self {
            initrd: initrd.map(|(path, file)| (path, file, range)),
        })
    }

    fn range(&self) -> Option<Range> {
        self.initrd.as_ref().map(|(.., range)| *range)
    }
}

/// A kernel, and all that it depends on how it is made ready.
#[derive(Debug)]
pub struct Legacy<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The file that it was found in.
    pub file: &'a ImageFile,
    /// The sliver.
    pub spec: &'a SliverSpec,
    /// Memory as [`map::ram`] has it, untouched.
    pub ram: &'a GuestRam,
    /// The virtio devices, in their order.
    pub devices: &'a [DeviceWindow],
}

/// A kernel that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// How to enter it.
    pub entry: Entry,
    /// Guest physical address of the machine's generation, 16 bytes, which are random.
    pub generation_id: u64,
}

impl Legacy<'_> {
    /// Loads the kernel and its initrd and writes what it is told. `go_on` is asked between pieces:
    /// a start may be given up while a large file loads.
    pub fn load(&self, plan: &Plan, go_on: &dyn Fn() -> bool) -> Result<Loaded, LoadError> {
        let memory = self.ram.backend();
        let usual = KernelSpec::default();
        let kernel_spec = self.spec.kernel().unwrap_or(&usual);
        let limit = self.kernel.command_line_limit();
        let line = command_line::make(self.spec, kernel_spec, self.devices, limit)?;
        load_kernel(self.kernel, self.file, memory, go_on)?;
        if let Some((path, file, range)) = &plan.initrd {
            let what = format!("initrd {}", shown_path(path));
            copy(file, 0, *range, memory, (&what, go_on))?;
        }
        load_cmdline(memory, GuestAddress(COMMAND_LINE), &line).map_err(|_| {
            LoadError::CommandLine(CommandLineError::TooLong {
                limit: place::COMMAND_LINE_ROOM - 1,
            })
        })?;
        memory.write_slice(&random::<16>()?, GuestAddress(place::GENERATION_ID))?;
        let rsdp = match kernel_spec.acpi() {
            true => Some(acpi::write(self.spec.vcpus(), self.devices, memory)?),
            false => None,
        };
        Ok(Loaded {
            entry: self.prepare(plan, rsdp)?,
            generation_id: place::GENERATION_ID,
        })
    }

    fn prepare(&self, plan: &Plan, rsdp: Option<u64>) -> Result<Entry, LoadError> {
        let memory = self.ram.backend();
        let bytes = self.spec.memory_bytes();
        let gdt = gdt::REGISTER;
        let entry = match self.kernel.entrance() {
            Entrance::Linux(rip) => {
                let told = Told {
                    kernel: self.kernel,
                    memory: bytes,
                    initrd: plan.range(),
                    rsdp,
                };
                linux::prepare(&told, memory)?;
                Entry {
                    rip,
                    rsp: STACK_TOP,
                    rsi: BOOT_PARAMS,
                    rbx: 0,
                    mode: Mode::Long {
                        page_tables: PAGE_TABLES,
                        gdt,
                    },
                }
            }
            Entrance::Pvh(eip) => {
                pvh::prepare(bytes, plan.range(), rsdp, memory)?;
                Entry {
                    rip: u64::from(eip),
                    rsp: STACK_TOP,
                    rsi: 0,
                    rbx: BOOT_PARAMS,
                    mode: Mode::Protected { gdt },
                }
            }
        };
        memory.write_slice(&gdt::table(&entry.mode), GuestAddress(GDT))?;
        Ok(entry)
    }
}

fn load_kernel(
    kernel: &Kernel,
    file: &ImageFile,
    memory: &GuestMemoryMmap,
    go_on: &dyn Fn() -> bool,
) -> Result<(), LoadError> {
    const WHAT: &str = "the kernel";
    let address = GuestAddress(KERNEL);
    match kernel.format() {
        Format::BzImage(image) => {
            let mut source = Source::new(file.file(), image.len(), go_on);
            match BzImage::load(memory, Some(address), &mut source, None) {
                Ok(_) => Ok(()),
                Err(error) => Err(source.error(WHAT, error)),
            }
        }
        // Not with the library: it reads the headers again, which may be others by now, knows only
        // 64-bit ones, and walks through notes of any length without asking whether to go on.
        Format::Elf(elf) => elf.segments.iter().try_for_each(|segment| {
            let range = Range {
                start: segment.address,
                len: segment.file_len,
            };
            copy(file, segment.file_offset, range, memory, (WHAT, go_on))
        }),
    }
}

/// Copies what lies at `offset` of a file to `range`.
fn copy(
    file: &ImageFile,
    offset: u64,
    range: Range,
    memory: &GuestMemoryMmap,
    (what, go_on): (&str, &dyn Fn() -> bool),
) -> Result<(), LoadError> {
    use std::io::{Seek, SeekFrom};
    let mut source = Source::new(file.file(), file.len(), go_on);
    let at = GuestAddress(range.start);
    let copied = source
        .seek(SeekFrom::Start(offset))
        .map_err(GuestMemoryError::IOError)
        .and_then(|_| memory.read_exact_volatile_from(at, &mut source, range.len as usize));
    match copied {
        Ok(()) => Ok(()),
        Err(error) => Err(source.error(what, error)),
    }
}

/// Random bytes that nobody has seen.
fn random<const LEN: usize>() -> Result<[u8; LEN], LoadError> {
    let mut bytes = [0; LEN];
    let mut done = 0;
    while done < LEN {
        match getrandom(&mut bytes[done..], GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(LoadError::Random(error.into())),
        }
    }
    Ok(bytes)
}
