//! A console that goes to a file: a pipe, and a thread that writes what comes through it.
//!
//! The monitor knows neither the file nor its size. The thread appends, and when the file has grown
//! to its limit renames it to FILE.1 and begins anew: a guest that never stops printing fills two
//! such files and no disk.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};

use crate::network::processor_time;
use crate::problem::Problem;
use crate::report::say;

/// How large a console's file becomes before it is renamed.
const LIMIT: u64 = 64 << 20;

/// What is read from the pipe at once: all that fits into one.
const PIECE: usize = 64 << 10;

/// How often, while the rest is written, to look whether anybody still wants to wait for it.
const LOOK: Duration = Duration::from_millis(50);

/// The file of a console.
#[derive(Debug)]
pub(super) struct ConsoleFile {
    path: PathBuf,
    file: File,
    /// Its size, if it is a file that can be renamed: a pipe or a device has none.
    size: Option<u64>,
    limit: u64,
}

impl ConsoleFile {
    /// Opens or makes the file, to append to it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size: metadata.is_file().then_some(metadata.len()),
            limit: LIMIT,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(size) = self.size {
            if size > 0 && size + bytes.len() as u64 > self.limit {
                let mut older = self.path.clone().into_os_string();
                older.push(".1");
                fs::rename(&self.path, older)?;
                self.file = open(&self.path)?;
                self.size = Some(0);
            }
            self.size = self.size.map(|size| size + bytes.len() as u64);
        }
        self.file.write_all(bytes)
    }
}

/// Without waiting: a named pipe that nobody reads is refused, a device that is slow is waited for
/// later.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

/// The thread that writes a console's file.
#[derive(Debug)]
pub(super) struct Writer {
    pipe: Option<OwnedFd>,
    /// Told at the end: the processor time that it took.
    ended: Receiver<Duration>,
}

impl Writer {
    /// Begins to write what comes through a new pipe to `file`.
    pub(super) fn begin(file: ConsoleFile) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || {
                carry(reader, file);
                // Nobody may have had the patience.
                let _ = end.send(processor_time());
            })?;
        Ok(Self {
            pipe: Some(writer.into()),
            ended,
        })
    }

    /// The end of the pipe that the monitor writes to.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Closes this process's end: the pipe lives as long as the monitor that has inherited it.
    pub(super) fn let_go(&mut self) {
        self.pipe = None;
    }

    /// Waits until all that the monitor wrote is in the file, unless somebody `is_impatient`: a
    /// pipe whose reader reads no more would be waited for for ever. The processor time that it
    /// took, if it has come to its end.
    pub(super) fn finish(mut self, is_impatient: impl Fn() -> bool) -> Duration {
        self.let_go();
        loop {
            match self.ended.recv_timeout(LOOK) {
                Ok(time) => return time,
                Err(RecvTimeoutError::Timeout) if !is_impatient() => {}
                Err(_) => return Duration::ZERO,
            }
        }
    }
}

/// Goes on when the file cannot be written: the guest has not deserved to wait for ever.
fn carry(mut reader: PipeReader, mut file: ConsoleFile) {
    let mut piece = vec![0; PIECE];
    let mut failed = false;
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return,
            Ok(len) => {
                if let Err(error) = file.write(&piece[..len])
                    && !std::mem::replace(&mut failed, true)
                {
                    let what = format!("--console {}", file.path.display());
                    let why = format!("output is lost, it cannot be written: {error}");
                    say(Problem::new(what, why));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
