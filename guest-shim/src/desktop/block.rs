//! Disks of a process: the files that `SLICE_DISKS` names, read and written by a pool of threads.

use std::env;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustix::fs::{FallocateFlags, fallocate};

use crate::block::{About, Buffer, Direction, ErrorKind, SECTOR};

/// A file.
#[derive(Debug)]
pub(crate) struct Disk {
    about: About,
    file: Arc<File>,
}

/// All of them, opened when one is first asked for. One that cannot be opened is complained about
/// and left out, but keeps its number.
pub(crate) fn disks() -> &'static [Arc<Disk>] {
    static DISKS: LazyLock<Vec<Arc<Disk>>> = LazyLock::new(|| {
        let paths = env::var_os("SLICE_DISKS").unwrap_or_default();
        let paths = env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty());
        let opened = paths.enumerate().filter_map(|(number, path)| {
            Disk::open(format!("disk{number}"), &path)
                .inspect_err(|error| eprintln!("SLICE_DISKS: {}: {error}", path.display()))
                .ok()
        });
        opened.map(Arc::new).collect()
    });
    &DISKS
}

impl Disk {
    /// The file at `path`, read-only if it cannot be written.
    pub(crate) fn open(name: String, path: &Path) -> io::Result<Self> {
        let both = OpenOptions::new().read(true).write(true).open(path);
        let (mut file, read_only) = match both {
            Ok(file) => (file, false),
            Err(error) if is_read_only(&error) => (File::open(path)?, true),
            Err(error) => return Err(error),
        };
        let size = file.seek(SeekFrom::End(0))?;
        let serial = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            about: About {
                name,
                serial: serial.into_owned(),
                size: size - size % SECTOR,
                block_size: 4096,
                read_only,
            },
            file: Arc::new(file),
        })
    }

    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    pub(crate) async fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        mut buffer: Buffer,
    ) -> (Result<(), ErrorKind>, Buffer) {
        let file = Arc::clone(&self.file);
        blocking::unblock(move || {
            let result = match direction {
                Direction::Read => file.read_exact_at(&mut buffer, offset),
                Direction::Write => file.write_all_at(&buffer, offset),
            };
            (result.map_err(|_| ErrorKind::Io), buffer)
        })
        .await
    }

    pub(crate) fn flush(&self) -> impl Future<Output = Result<(), ErrorKind>> + use<> {
        let file = Arc::clone(&self.file);
        blocking::unblock(move || file.sync_data().map_err(|_| ErrorKind::Io))
    }

    pub(crate) async fn discard(&self, offset: u64, len: u64) -> Result<(), ErrorKind> {
        self.punch("discard", offset, len).await
    }

    pub(crate) async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), ErrorKind> {
        self.punch("write zeroes", offset, len).await
    }

    /// A hole reads as zeros and takes no room.
    async fn punch(&self, what: &'static str, offset: u64, len: u64) -> Result<(), ErrorKind> {
        if len == 0 {
            return Ok(());
        }
        let file = Arc::clone(&self.file);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        blocking::unblock(move || fallocate(&file, hole, offset, len))
            .await
            .map_err(|error| match error {
                rustix::io::Errno::OPNOTSUPP => ErrorKind::Unsupported(what),
                _ => ErrorKind::Io,
            })
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}
