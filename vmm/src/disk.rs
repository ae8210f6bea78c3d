//! What holds a sliver's disk: a plain file or a block device, opened, checked and locked.
//!
//! Whatever can be wrong with it is told before the sliver boots, in one line that names it. The
//! lock lives as long as the [`Disk`]: nobody writes a disk that another sliver uses.

pub mod aligned;
pub mod engine;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, SeekFrom, StatxFlags};
use rustix::io::Errno;

use self::engine::Target;
use crate::say::shown_path;
use crate::spec::DiskSpec;

/// Bytes of a sector (virtio 1.2, 5.2.2).
pub const SECTOR: u64 = 512;

/// The largest alignment that can be served: guest memory is known to be aligned to pages.
const LARGEST_ALIGNMENT: u64 = slice_abi::layout::PAGE_SIZE;

/// How long a disk that is in use is asked for again: a monitor that was killed lets go of its
/// disks a moment after it is gone, when what it had asked of them has ended.
const LETTING_GO: Duration = Duration::from_secs(1);

/// How often it is asked for.
const AGAIN: Duration = Duration::from_millis(2);

/// A disk that is ready for use.
#[derive(Debug)]
pub struct Disk {
    target: Target,
    name: String,
    bytes: u64,
    block_bytes: u64,
    read_only: bool,
    direct: Option<Alignment>,
}

/// What reads and writes that pass the page cache by have to be multiples of (`STATX_DIOALIGN`,
/// statx(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alignment {
    /// Addresses in memory.
    pub memory: u64,
    /// Places in the file, and lengths.
    pub place: u64,
}

/// A disk cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum DiskError {
    #[error("disk {0} does not exist: create it, for example with `truncate -s 1G`")]
    Missing(String),
    #[error("disk {0} may not be read by this user: change its owner or its mode")]
    Unreadable(String),
    #[error(
        "disk {0} may not be written by this user: change its owner or mode, or use it read-only"
    )]
    Unwritable(String),
    #[error("disk {0} lies on a read-only file system: use it read-only or copy it elsewhere")]
    ReadOnlyPlace(String),
    #[error("disk {0} is a directory: name a file or a block device")]
    Directory(String),
    #[error("disk {0} is neither a plain file nor a block device: name one of these")]
    OddKind(String),
    #[error("disk {0} is empty: give it a size, for example with `truncate -s 1G`")]
    Empty(String),
    #[error("disk {name} has {bytes} bytes, which is not a multiple of {unit}: change its size")]
    Ragged { name: String, bytes: u64, unit: u64 },
    #[error("disk {0} is in use by another sliver, or by another disk of this one: end that first")]
    InUse(String),
    #[error("disk {0} is mounted or otherwise held on this host: unmount it, or use it read-only")]
    Held(String),
    #[error("disk {0} cannot pass the page cache by where it lies: use it without `direct`")]
    NoDirect(String),
    #[error("disk {name} cannot be used: {source}")]
    Other { name: String, source: io::Error },
}

impl Disk {
    /// Opens, locks and checks the disk of a spec.
    pub fn open(spec: &DiskSpec) -> Result<Self, DiskError> {
        Self::new(spec, Self::open_file(spec)?)
    }

    /// Opens and locks the file of a spec's disk. The lock goes with the open file, whoever has it.
    pub fn open_file(spec: &DiskSpec) -> Result<File, DiskError> {
        let (name, read_only) = (shown_path(spec.path()), spec.read_only());
        let other = |source: io::Error| DiskError::Other {
            name: name.clone(),
            source,
        };
        let file =
            open(spec.path(), read_only).map_err(|errno| refusal(errno, &name, read_only))?;
        let meta = file.metadata().map_err(other)?;
        let block_device = meta.file_type().is_block_device();
        if meta.is_dir() {
            return Err(DiskError::Directory(name));
        }
        if !meta.is_file() && !block_device {
            return Err(DiskError::OddKind(name));
        }
        lock(&file, read_only).map_err(|errno| match errno {
            Errno::WOULDBLOCK => DiskError::InUse(name.clone()),
            errno => other(errno.into()),
        })?;
        if block_device && !read_only {
            hold(spec.path()).map_err(|errno| match errno {
                Errno::BUSY => DiskError::Held(name.clone()),
                errno => other(errno.into()),
            })?;
        }
        Ok(file)
    }

    /// The disk of a spec in its open file, which is checked.
    pub fn new(spec: &DiskSpec, file: File) -> Result<Self, DiskError> {
        let (name, read_only) = (shown_path(spec.path()), spec.read_only());
        let other = |source: io::Error| DiskError::Other {
            name: name.clone(),
            source,
        };
        let meta = file.metadata().map_err(other)?;
        let block_device = meta.file_type().is_block_device();
        let bytes = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|e| other(e.into()))?;
        let direct = match spec.direct() {
            true => Some(pass_cache_by(&file).map_err(|errno| match errno {
                Errno::INVAL | Errno::OPNOTSUPP => DiskError::NoDirect(name.clone()),
                errno => other(errno.into()),
            })?),
            false => None,
        };
        let unit = direct.map_or(SECTOR, |alignment| alignment.place.max(SECTOR));
        if bytes == 0 {
            return Err(DiskError::Empty(name));
        }
        if !bytes.is_multiple_of(unit) {
            return Err(DiskError::Ragged { name, bytes, unit });
        }
        let block_bytes = match block_device {
            true => rustix::fs::ioctl_blksszget(&file)
                .map_err(|e| other(e.into()))?
                .into(),
            false => unit,
        };
        Ok(Self {
            target: Target::new(file, block_device).map_err(other)?,
            name,
            bytes,
            block_bytes,
            read_only,
            direct,
        })
    }

    /// A disk that is only read, in a file of this process's own that nobody else can change, such
    /// as a sealed memory file.
    pub fn of_own_file(file: File, name: &str) -> Result<Self, DiskError> {
        let name = name.to_owned();
        let made = file.metadata().and_then(|meta| {
            let target = Target::new(file, false)?;
            Ok((target, meta.len()))
        });
        match made {
            Ok((_, 0)) => Err(DiskError::Empty(name)),
            Ok((_, bytes)) if !bytes.is_multiple_of(SECTOR) => Err(DiskError::Ragged {
                name,
                bytes,
                unit: SECTOR,
            }),
            Ok((target, bytes)) => Ok(Self {
                target,
                name,
                bytes,
                block_bytes: SECTOR,
                read_only: true,
                direct: None,
            }),
            Err(source) => Err(DiskError::Other { name, source }),
        }
    }

    /// Its path, as it may be shown.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it may only be read.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The size of the blocks that are best written whole.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// What to align to, if it passes the page cache by.
    pub fn direct(&self) -> Option<Alignment> {
        self.direct
    }

    /// What an engine works on.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

fn open(path: &Path, read_only: bool) -> Result<File, Errno> {
    let access = if read_only {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    };
    // Without waiting for whoever is at the other end of a pipe; a disk itself is waited for.
    let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags | OFlags::NONBLOCK, Mode::empty())?;
    rustix::fs::fcntl_setfl(&file, access)?;
    Ok(file.into())
}

fn refusal(errno: Errno, name: &str, read_only: bool) -> DiskError {
    let name = name.to_owned();
    match errno {
        Errno::NOENT | Errno::NOTDIR => DiskError::Missing(name),
        Errno::ACCESS | Errno::PERM if read_only => DiskError::Unreadable(name),
        Errno::ACCESS | Errno::PERM => DiskError::Unwritable(name),
        Errno::ROFS => DiskError::ReadOnlyPlace(name),
        Errno::ISDIR => DiskError::Directory(name),
        Errno::NXIO => DiskError::OddKind(name),
        errno => DiskError::Other {
            name,
            source: errno.into(),
        },
    }
}

fn lock(file: &File, read_only: bool) -> Result<(), Errno> {
    let operation = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    let deadline = Instant::now() + LETTING_GO;
    loop {
        match rustix::fs::flock(file, operation) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(AGAIN),
            result => return result,
        }
    }
}

/// Asks whether a block device is mounted or held by somebody who does not lock: opening it
/// exclusively would fail (open(2)). Only asks: to hold it this way would make our own lock useless
/// to those that only read.
fn hold(path: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty()).map(drop)
}

/// Has reads and writes pass the page cache by. What they have to be aligned to.
fn pass_cache_by(file: &File) -> Result<Alignment, Errno> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT)?;
    let told = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    let alignment = if told.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        // A kernel before 6.1, or a file system that does not say: a page suits them all.
        Alignment {
            memory: LARGEST_ALIGNMENT,
            place: LARGEST_ALIGNMENT,
        }
    } else {
        Alignment {
            memory: told.stx_dio_mem_align.into(),
            place: told.stx_dio_offset_align.into(),
        }
    };
    let served = |n: u64| n.is_power_of_two() && n <= LARGEST_ALIGNMENT;
    if served(alignment.memory) && served(alignment.place) {
        Ok(alignment)
    } else {
        Err(Errno::OPNOTSUPP)
    }
}
