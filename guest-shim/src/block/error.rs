//! What can go wrong with a disk.

use alloc::string::String;
use core::fmt;

/// A request that failed, and on which disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub(super) disk: String,
    pub(super) kind: ErrorKind,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such disk.
    NotFound,
    /// Not a whole number of sectors.
    #[allow(missing_docs, reason = "the request")]
    Misaligned { offset: u64, len: u64 },
    /// Beyond the end of the disk.
    #[allow(missing_docs, reason = "the request and the size of the disk")]
    OutOfRange { offset: u64, len: u64, size: u64 },
    /// A change to a disk that is only read.
    ReadOnly,
    /// The device cannot do that.
    Unsupported(&'static str),
    /// The device could not carry it out.
    Io,
    /// The device failed as a whole and was started anew. What became of the request is not known.
    DeviceFailed,
}

impl Error {
    /// Why.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The disk's name, or what was asked for.
    pub fn disk(&self) -> &str {
        &self.disk
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.disk, self.kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotFound => f.write_str("there is no disk with this name or serial"),
            Self::Misaligned { offset, len } => write!(
                f,
                "{len} bytes at {offset} are not whole sectors of 512 bytes"
            ),
            Self::OutOfRange { offset, len, size } => {
                write!(f, "{len} bytes at {offset} are beyond its end at {size}")
            }
            Self::ReadOnly => f.write_str("it is read-only"),
            Self::Unsupported(what) => write!(f, "it cannot {what}"),
            Self::Io => f.write_str("an I/O error"),
            Self::DeviceFailed => f.write_str("the device failed and was started anew"),
        }
    }
}

impl core::error::Error for Error {}
