//! What is this file? Opens an image, tells its kind and checks it, reading only what it must.
//!
//! The file may be hostile. Nothing of it is believed before it is checked, nothing is read beyond
//! its end, and a file that is not a regular one (a FIFO, a device, a directory) is not read at all.

mod foreign;
#[cfg(test)]
mod tests;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use object::elf::ELFMAG;

use super::legacy::{Headers, Kernel, KernelProblem};
use super::slice::{Examination, NativeImage, Problem, examine};
use crate::say::shown_path;
use crate::spec::Protocol;

pub(crate) use foreign::machine_name;

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

/// A file could not be opened to be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refuses.
    #[error("{0}")]
    System(#[from] io::Error),
    /// It is not a regular file.
    #[error("it is {0}, not a regular file")]
    NotAFile(&'static str),
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
    /// It is a kernel, or meant to be one, that cannot be booted.
    #[error("{} is not a kernel that can be booted: {problem}", shown_path(path))]
    NotBootable {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: KernelProblem,
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
    kind: ImageKind,
}

/// What an image is, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageKind {
    /// It was built for the slice ABI.
    Native(NativeImage),
    /// It is a kernel that brings its own idea of a machine.
    Kernel(Box<Kernel>),
}

/// What was found in a file, whether or not it can be run.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It is a native image, or nothing that is known; with every objection.
    Native(Examination),
    /// A kernel that can be booted.
    Kernel(Box<Kernel>),
    /// A kernel that cannot.
    BrokenKernel(KernelProblem),
}

impl Image {
    /// Opens an image, tells its kind and checks it. `protocol` is how the spec says to boot it:
    /// anything but [`Protocol::Auto`] makes it a kernel whatever it looks like.
    pub fn open(path: &Path, protocol: Option<Protocol>) -> Result<Self, ImageError> {
        Self::new(path, open_file(path)?, protocol)
    }

    /// The same, of the open file of an image; `path` is only for messages.
    pub fn new(path: &Path, file: File, protocol: Option<Protocol>) -> Result<Self, ImageError> {
        let (file, found) = look_at(path, file, protocol)?;
        let path = path.to_owned();
        let kind = match found {
            Found::Native(examination) => match examination.into_image() {
                Ok(native) => ImageKind::Native(native),
                Err(problems) => return Err(ImageError::Refused { path, problems }),
            },
            Found::Kernel(kernel) => ImageKind::Kernel(kernel),
            Found::BrokenKernel(problem) => return Err(ImageError::NotBootable { path, problem }),
        };
        Ok(Self { file, kind })
    }

    /// The native image, if it is one.
    pub fn native(&self) -> Option<&NativeImage> {
        match &self.kind {
            ImageKind::Native(native) => Some(native),
            ImageKind::Kernel(_) => None,
        }
    }

    /// The kernel, if it is one.
    pub fn kernel(&self) -> Option<&Kernel> {
        match &self.kind {
            ImageKind::Native(_) => None,
            ImageKind::Kernel(kernel) => Some(kernel),
        }
    }

    /// The file to load it from, and what it is.
    pub fn into_parts(self) -> (ImageFile, ImageKind) {
        (self.file, self.kind)
    }
}

/// Looks at a file without demanding that it can be run; `protocol` as in [`Image::open`].
pub fn inspect(path: &Path, protocol: Option<Protocol>) -> Result<Found, ImageError> {
    look_at(path, open_file(path)?, protocol).map(|(_, found)| found)
}

/// Opens the file of an image, or of anything else that is only to be read and is a plain file.
pub fn open_file(path: &Path) -> Result<File, ImageError> {
    ImageFile::open(path).map_err(|error| refused(path, error))
}

fn refused(path: &Path, error: OpenError) -> ImageError {
    let path = path.to_owned();
    match error {
        OpenError::System(source) => ImageError::Open { path, source },
        OpenError::NotAFile(what) => ImageError::NotAFile { path, what },
    }
}

fn look_at(
    path: &Path,
    file: File,
    protocol: Option<Protocol>,
) -> Result<(ImageFile, Found), ImageError> {
    let file = ImageFile::new(file).map_err(|error| refused(path, error))?;
    let found = find_out(&file, protocol).map_err(|source| ImageError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok((file, found))
}

/// What these bytes are; `protocol` as in [`Image::open`]. Fails only if reading does.
pub fn find_out<R: ReadAt + ?Sized>(file: &R, protocol: Option<Protocol>) -> io::Result<Found> {
    let mut start = vec![0; file.len().min(foreign::ENOUGH) as usize];
    file.read_exact_at(&mut start, 0)?;
    let kernel = if start.starts_with(&ELFMAG) {
        find_out_elf(file, protocol)?
    } else if Kernel::is_bzimage(&start) {
        Some(Kernel::from_bzimage(file, protocol.unwrap_or_default())?)
    } else {
        foreign::recognise(&start).map(Err)
    };
    Ok(match kernel {
        Some(Ok(kernel)) => Found::Kernel(Box::new(kernel)),
        Some(Err(problem)) => Found::BrokenKernel(problem),
        None => Found::Native(examine(file)?),
    })
}

/// The kernel that an ELF file is, unless it is to be looked at as a native image.
fn find_out_elf<R: ReadAt + ?Sized>(
    file: &R,
    protocol: Option<Protocol>,
) -> io::Result<Option<Result<Kernel, KernelProblem>>> {
    let protocol = protocol.unwrap_or_default();
    let said = protocol != Protocol::Auto;
    if !said && examine(file)?.has_note {
        return Ok(None);
    }
    Ok(match Headers::read(file)? {
        Ok(headers) if said || headers.is_kernel() => Some(Kernel::from_elf(&headers, protocol)),
        Err(problem) if said => Some(Err(problem)),
        Ok(_) | Err(_) => None,
    })
}

impl ImageFile {
    /// Opens a regular file.
    pub(crate) fn open(path: &Path) -> Result<File, OpenError> {
        // Looked at before it is opened: opening some devices is an act in itself.
        check_is_file(&fs::metadata(path)?)?;
        // Without O_NONBLOCK, opening a FIFO would wait for its writer.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        check_is_file(&file.metadata()?)?;
        Ok(file)
    }

    /// An open file, if it is a regular one.
    pub(crate) fn new(file: File) -> Result<Self, OpenError> {
        let metadata = file.metadata()?;
        check_is_file(&metadata)?;
        Ok(Self {
            file,
            len: metadata.len(),
        })
    }

    /// The file itself, whose position is nobody's.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

fn check_is_file(metadata: &Metadata) -> Result<(), OpenError> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(OpenError::NotAFile(if metadata.is_dir() {
        "a directory"
    } else {
        "a device, pipe or socket"
    }))
}
