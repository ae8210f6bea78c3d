//! What is this file? Opens an image, tells its kind and checks it, reading only what it must.
//!
//! The file may be hostile. Nothing of it is believed before it is checked, nothing is read beyond
//! its end, and a file that is not a regular one (a FIFO, a device, a directory) is not read at all.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::say::shown_path;

use super::slice::{Examination, NativeImage, Problem, examine};

/// Bytes that can be read at any place, such as a file.
pub trait ReadAt {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Fills `buf` from `offset`, or fails.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start
            .checked_add(buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A regular file and the length it had when it was opened.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    len: u64,
}

impl ReadAt for ImageFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// Why a file is not an image that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It could not be opened.
    #[error("cannot open image {}: {source}", shown_path(path))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a regular file.
    #[error(
        "{} is not an image: it is {what}, not a regular file",
        shown_path(path)
    )]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// It could not be read.
    #[error("cannot read image {}: {source}", shown_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else, or it breaks the rules of its kind.
    #[error(
        "{} is not an image that can be run: {}",
        shown_path(path),
        list(problems)
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// Every reason, at least one.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// A checked image and the file it will be loaded from.
#[derive(Debug)]
pub struct Image {
    file: ImageFile,
    native: NativeImage,
}

impl Image {
    /// Opens and checks an image.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let file = open_file(path)?;
        let examination = examine(&file).map_err(|source| ImageError::Read {
            path: path.to_owned(),
            source,
        })?;
        match examination.into_image() {
            Ok(native) => Ok(Self { file, native }),
            Err(problems) => Err(ImageError::Refused {
                path: path.to_owned(),
                problems,
            }),
        }
    }

    /// The file to load it from, and what it is.
    pub fn into_parts(self) -> (ImageFile, NativeImage) {
        (self.file, self.native)
    }
}

/// Looks at a file without demanding that it can be run: what was found and every objection.
pub fn inspect(path: &Path) -> Result<Examination, ImageError> {
    let file = open_file(path)?;
    examine(&file).map_err(|source| ImageError::Read {
        path: path.to_owned(),
        source,
    })
}

fn open_file(path: &Path) -> Result<ImageFile, ImageError> {
    let open = |source| ImageError::Open {
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening some devices is an act in itself.
    check_is_file(path, &fs::metadata(path).map_err(open)?)?;
    // Without O_NONBLOCK, opening a FIFO would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    check_is_file(path, &metadata)?;
    Ok(ImageFile {
        file,
        len: metadata.len(),
    })
}

fn check_is_file(path: &Path, metadata: &Metadata) -> Result<(), ImageError> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() {
        "a directory"
    } else {
        "a device, pipe or socket"
    };
    Err(ImageError::NotAFile {
        path: path.to_owned(),
        what,
    })
}
