//! Is this image a native one, or a kernel? Asked before anything else, because it decides which
//! flags make sense and what the defaults are.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vmm::boot::image;

use crate::images::Wanted;

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is built on `guest-shim`.
    Native,
    /// A kernel.
    Legacy,
    /// Neither, or it cannot be read: the monitor will say what is wrong.
    Unknown,
}

impl Kind {
    /// Looks at what was found; an example is native.
    pub(super) fn of(wanted: &Wanted) -> Self {
        match wanted {
            Wanted::Example(_) => Self::Native,
            Wanted::File(path) => Self::of_file(path),
        }
    }

    fn of_file(path: &Path) -> Self {
        let Ok(found) = image::inspect(path) else {
            return Self::Unknown;
        };
        if found.abi_version.is_some() {
            Self::Native
        } else if found.entry.is_some() || is_bzimage(path) {
            Self::Legacy
        } else {
            Self::Unknown
        }
    }
}

/// Whether it has the header of Linux's boot protocol (Documentation/arch/x86/boot.rst).
fn is_bzimage(path: &Path) -> bool {
    let mut header = [0; 8];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut header, 0x1fe));
    read.is_ok() && header[..2] == [0x55, 0xaa] && header[4..] == *b"HdrS"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(content: &[u8]) -> Kind {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("written");
        Kind::of(&Wanted::File(file.path().to_owned()))
    }

    #[test]
    fn kernels_are_told_from_what_is_none() {
        let mut linux = vec![0; 0x1000];
        linux[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(kind(&linux), Kind::Unknown);
        linux[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(kind(&linux), Kind::Legacy);
        assert_eq!(kind(b"#!/bin/sh\n"), Kind::Unknown);
        assert_eq!(kind(b""), Kind::Unknown);
        assert_eq!(Kind::of(&Wanted::File("/".into())), Kind::Unknown);
        assert_eq!(Kind::of(&Wanted::Example("hello".into())), Kind::Native);
    }
}
