//! Archives that Linux unpacks as its initial file system (cpio, format "newc").
//!
//! Archives may follow one another in a file: Linux unpacks them all.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// A regular file's bits in a mode, and those of a directory and a symbolic link.
const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// An archive that is being written.
#[derive(Debug)]
pub struct Archive<W> {
    to: W,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub fn new(to: W) -> Self {
        Self {
            to,
            inode: 0,
            directories: BTreeSet::new(),
        }
    }

    /// Adds an empty directory, and those above it.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        self.parents(path)?;
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// Adds a file, and the directories above it.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, FILE | mode, content)
    }

    /// Adds a copy of the file at `from`, with its permissions.
    pub fn copy(&mut self, path: &str, from: &Path) -> io::Result<()> {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(from)?.permissions());
        self.file(path, mode & 0o777, &fs::read(from)?)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, LINK | 0o777, target.as_bytes())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.trim_matches('/').rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let path = path.trim_matches('/');
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        self.inode += 1;
        let links = 1 + u32::from(mode & DIRECTORY == DIRECTORY);
        let name_size = path.len() as u32 + 1;
        // Inode, mode, owner, group, links, time, size, four device numbers, name's size, checksum.
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(path.as_bytes())?;
        // The name ends with a zero; what follows it and what follows the content is aligned.
        let written = header.len() + path.len() + 1;
        self.to.write_all(&[0; 4][..1 + padding(written)])?;
        self.to.write_all(content)?;
        self.to.write_all(&[0; 4][..padding(content.len())])
    }
}

/// Bytes to the next multiple of four.
fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_their_files_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/one", 0o644, b"1").expect("memory");
        archive.file("a/b/two", 0o755, b"22").expect("memory");
        let bytes = archive.finish().expect("memory");
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).expect("it is ASCII");
        let names: Vec<&str> = text
            .split("070701")
            .skip(1)
            .map(|entry| entry[104..].split('\0').next().unwrap_or_default())
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", "TRAILER!!!"]);
    }

    #[test]
    fn names_and_contents_are_aligned_whatever_their_length() {
        for length in 0..9 {
            let mut archive = Archive::new(Vec::new());
            let name = "n".repeat(length + 1);
            let content = vec![b'c'; length];
            archive.file(&name, 0o644, &content).expect("memory");
            let bytes = archive.finish().expect("memory");
            let at = (110 + name.len() + 1).next_multiple_of(4);
            assert_eq!(&bytes[at..at + length], content);
            let next = at + length.next_multiple_of(4);
            assert_eq!(&bytes[next..next + 6], b"070701");
        }
    }
}
