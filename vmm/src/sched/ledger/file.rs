//! The file of a ledger: found or made, replaced if it is none, and its locks.
//!
//! A lock on the whole file (`flock`) is held for moments by who takes a slot or changes a claim.
//! A slot belongs to whoever holds the lock on the bytes of its page: a lock of an open file
//! description, which the kernel takes back when its process dies.
#![allow(
    unsafe_code,
    reason = "locks of open file descriptions, which rustix does not offer"
)]

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};

use super::layout::{FILE_BYTES, Flaw, Header, MAGIC, PAGE, page_offset};
use super::{LedgerError, LedgerEvent};

/// How long the lock on the file is waited for. It is held for microseconds, but by a process that
/// may have been stopped.
const PATIENCE: Duration = Duration::from_secs(1);

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A ledger's file, opened twice.
#[derive(Debug)]
pub(super) struct LedgerFile {
    /// For reading only: what is mapped through it can never be written.
    pub(super) reader: File,
    /// For one slot's page and its lock, and for the header while the file is locked.
    pub(super) writer: File,
    pub(super) identity: Identity,
}

/// Opens the ledger at `path`, makes it if there is none, and replaces what is none. The file is
/// locked when this returns.
pub(super) fn open_locked(path: &Path) -> Result<(LedgerFile, Option<LedgerEvent>), LedgerError> {
    let directory = path.parent().unwrap_or(path);
    if !is_in_memory(directory).map_err(|source| LedgerError::use_of(path, source))? {
        return Err(LedgerError::NotInMemory(path.to_owned()));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut event = None;
    while Instant::now() < deadline {
        let Some(file) = LedgerFile::open(path)? else {
            create(path, Over::Nothing).map_err(|source| LedgerError::make(path, source))?;
            continue;
        };
        lock(&file.reader, path, deadline)?;
        if !is_at(path, file.identity) {
            continue;
        }
        match check(&file.reader) {
            Ok(()) => return Ok((file, event)),
            Err(Flaw::Version(version)) if file.is_in_use() => {
                return Err(LedgerError::OtherVersion {
                    path: path.to_owned(),
                    version,
                });
            }
            Err(flaw) => {
                let make = |source| LedgerError::make(path, source);
                let kept = keep_if_foreign(path, &file.reader).map_err(make)?;
                create(path, Over::Anything).map_err(make)?;
                event = Some(LedgerEvent::Replaced { flaw, kept });
            }
        }
    }
    Err(LedgerError::Busy(path.to_owned()))
}

/// Whether what is written to files of a directory never waits for a disk. A mapped page of a file on
/// one is made read-only whenever it is written back, and who writes to it then waits for that.
pub fn is_in_memory(directory: &Path) -> io::Result<bool> {
    // linux/magic.h
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let kind = rustix::fs::statfs(directory)?.f_type as u64;
    Ok(kind == TMPFS || kind == RAMFS)
}

/// Whether that file is what `path` leads to.
pub(super) fn is_at(path: &Path, identity: Identity) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| Identity::of(&metadata) == identity)
}

/// Locks the file for a change.
pub(super) fn lock(reader: &File, path: &Path, deadline: Instant) -> Result<(), LedgerError> {
    loop {
        match rustix::fs::flock(reader, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(LedgerError::use_of(path, error.into())),
        }
        if Instant::now() >= deadline {
            return Err(LedgerError::Busy(path.to_owned()));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// As [`lock`], with the usual patience; unlocked when the result is dropped.
pub(super) fn lock_for_now<'a>(reader: &'a File, path: &Path) -> Result<Unlock<'a>, LedgerError> {
    lock(reader, path, Instant::now() + PATIENCE)?;
    Ok(Unlock(reader))
}

/// Unlocks the file when it is dropped.
#[derive(Debug)]
pub(super) struct Unlock<'a>(pub(super) &'a File);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(self.0, FlockOperation::Unlock);
    }
}

impl LedgerFile {
    /// Opens it; `None` if nothing is there.
    fn open(path: &Path) -> Result<Option<Self>, LedgerError> {
        let failed = |source| LedgerError::use_of(path, source);
        match fs::symlink_metadata(path) {
            Ok(metadata) => expect_regular(path, &metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        loop {
            let writer = match open(path, true) {
                Ok(writer) => writer,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
            let metadata = writer.metadata().map_err(failed)?;
            expect_regular(path, &metadata)?;
            let identity = Identity::of(&metadata);
            match open(path, false) {
                Ok(reader) if Identity::of(&reader.metadata().map_err(failed)?) == identity => {
                    return Ok(Some(Self {
                        reader,
                        writer,
                        identity,
                    }));
                }
                // It was replaced in between.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Whether anybody has a slot.
    fn is_in_use(&self) -> bool {
        is_locked(&self.reader, PAGE as u64, 0)
    }
}

/// What is wrong with what is in a file.
pub(super) fn check(reader: &File) -> Result<(), Flaw> {
    let size = reader.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = [0; size_of::<Header>()];
    let read = reader.read_exact_at(&mut bytes, 0);
    let found = Header::from_bytes(&bytes).check();
    match found {
        // Another version may have another size.
        Err(Flaw::Version(_)) => found,
        _ if size != FILE_BYTES as u64 || read.is_err() => Err(Flaw::Size(size)),
        _ => found,
    }
}

fn open(path: &Path, writable: bool) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(flags.bits() as i32)
        .open(path)
}

fn expect_regular(path: &Path, metadata: &Metadata) -> Result<(), LedgerError> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(LedgerError::NotAFile {
        path: path.to_owned(),
        what,
    })
}

/// What a new ledger may take the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Nothing,
    Anything,
}

/// Makes a ledger with all slots free. It appears complete or not at all; that somebody else has
/// just made one is as good.
fn create(path: &Path, over: Over) -> io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let draft = beside(path, &format!("{}-{number}", std::process::id()));
    let made = write_new(&draft).and_then(|()| match over {
        Over::Nothing => fs::hard_link(&draft, path),
        Over::Anything => fs::rename(&draft, path),
    });
    let _ = fs::remove_file(&draft);
    match made {
        Err(error) if over == Over::Nothing && error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(())
        }
        other => other,
    }
}

fn write_new(draft: &Path) -> io::Result<()> {
    // Left by a process that had this number before and died.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.set_len(FILE_BYTES as u64)?;
    file.write_all_at(&Header::initial(), 0)
}

/// Gives what is about to be replaced another name unless it is empty or begins like a ledger: somebody
/// may have named the wrong file.
fn keep_if_foreign(path: &Path, reader: &File) -> io::Result<Option<PathBuf>> {
    let size = reader.metadata()?.len();
    let mut first = Vec::new();
    let _ = reader.take(MAGIC.len() as u64).read_to_end(&mut first);
    if size == 0 || first == MAGIC {
        return Ok(None);
    }
    let kept = beside(path, "corrupt");
    match fs::remove_file(&kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::hard_link(path, &kept)?;
    Ok(Some(kept))
}

/// A path in the same directory that no sliver's name can be: `.NAME.MARK`.
fn beside(path: &Path, mark: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let dot = if name.starts_with('.') { "" } else { "." };
    path.with_file_name(format!("{dot}{name}.{mark}"))
}

/// Takes the lock of a slot; `false` if somebody has it.
pub(super) fn try_lock_slot(writer: &File, slot: usize) -> io::Result<bool> {
    let mut lock = byte_range(page_offset(slot) as u64, PAGE as u64);
    // SAFETY: the record lives through the call, which reads it; the descriptor is open.
    let done = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether a slot's owner lives.
pub(super) fn is_slot_locked(reader: &File, slot: usize) -> bool {
    is_locked(reader, page_offset(slot) as u64, PAGE as u64)
}

/// Whether another open file description has a lock on any of these bytes; `len` 0 is to the end.
fn is_locked(file: &File, start: u64, len: u64) -> bool {
    let mut lock = byte_range(start, len);
    // SAFETY: the record lives through the call, which reads and writes it; the descriptor is open.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    done == 0 && lock.l_type != libc::F_UNLCK as libc::c_short
}

fn byte_range(start: u64, len: u64) -> libc::flock64 {
    libc::flock64 {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start as i64,
        l_len: len as i64,
        // Must be 0 for locks of this kind.
        l_pid: 0,
    }
}
