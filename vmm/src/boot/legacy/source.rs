//! A file as loaders read it: from its start to a length that was checked, in pieces, straight into
//! guest memory, and only as long as the start is not given up.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use super::LoadError;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// A file to load from.
pub(super) struct Source<'a> {
    file: &'a File,
    len: u64,
    go_on: &'a dyn Fn() -> bool,
    stopped: Option<Stopped>,
}

/// Why reading went no further. What libraries tell of it is less.
enum Stopped {
    GivenUp,
    Failed(io::Error),
}

impl<'a> Source<'a> {
    /// The first `len` bytes of `file`. `go_on` is asked before each piece.
    pub(super) fn new(file: &'a File, len: u64, go_on: &'a dyn Fn() -> bool) -> Self {
        Self {
            file,
            len,
            go_on,
            stopped: None,
        }
    }

    /// Why loading `what` from here failed; `told` is what the loader says.
    pub(super) fn error(self, what: &str, told: impl ToString) -> LoadError {
        match self.stopped {
            Some(Stopped::GivenUp) => LoadError::GivenUp,
            Some(Stopped::Failed(source)) => LoadError::Read {
                what: what.to_owned(),
                source,
            },
            None => LoadError::Read {
                what: what.to_owned(),
                source: io::Error::other(told.to_string()),
            },
        }
    }

    fn stop<T>(&mut self, why: Stopped) -> Result<T, VolatileMemoryError> {
        self.stopped = Some(why);
        Err(VolatileMemoryError::IOError(io::ErrorKind::Other.into()))
    }
}

/// Loaders read headers so, which have been read before: what is wrong with the file was told then.
impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file;
        file.read(buf)
    }
}

/// Fills the buffer or fails: guest memory asks once for each of its parts.
impl ReadVolatile for Source<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        let mut file = self.file;
        let mut done = 0;
        while done < buf.len() {
            if !(self.go_on)() {
                return self.stop(Stopped::GivenUp);
            }
            let len = (buf.len() - done).min(PIECE);
            match file.read_volatile(&mut buf.subslice(done, len)?) {
                Ok(0) => return self.stop(Stopped::Failed(shorter())),
                Ok(count) => done += count,
                Err(VolatileMemoryError::IOError(error)) => {
                    if error.kind() != io::ErrorKind::Interrupted {
                        return self.stop(Stopped::Failed(error));
                    }
                }
                Err(other) => return Err(other),
            }
        }
        Ok(done)
    }
}

fn shorter() -> io::Error {
    let why = "it has become shorter than it was";
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}

impl Seek for Source<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let mut file = self.file;
        match position {
            // To a loader, the file ends where what was checked of it does.
            SeekFrom::End(offset) => {
                let position = self.len.checked_add_signed(offset);
                file.seek(SeekFrom::Start(
                    position.ok_or(io::ErrorKind::InvalidInput)?,
                ))
            }
            other => file.seek(other),
        }
    }
}
