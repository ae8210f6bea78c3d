//! The core file of a faulted sliver: written by the monitor, and there only if it faulted.
//!
//! The monitor gets a file without a name. It is given its name when the sliver has faulted, so
//! no other end of a run leaves or overwrites anything, not even a kill.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use tempfile::NamedTempFile;

/// Why no core file can be put at `path`, as far as can be told beforehand.
pub(super) fn objection(path: &Path) -> Option<String> {
    let name = path.display();
    if path.is_dir() || path.file_name().is_none() {
        return Some(format!("{name} is a directory, not a file"));
    }
    // The core takes the place of what is there: no device may be lost to it.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Some(format!("{name} is a device, pipe or socket, not a file"));
    }
    let dir = directory_of(path);
    if !dir.is_dir() {
        return Some(format!("the directory {} is not there", dir.display()));
    }
    let access = rustix::fs::access(&dir, Access::WRITE_OK | Access::EXEC_OK);
    access
        .err()
        .map(|error| format!("the directory {} cannot be written: {error}", dir.display()))
}

/// A core file that may come to be.
#[derive(Debug)]
pub(super) struct CoreFile {
    path: PathBuf,
    file: Unnamed,
}

#[derive(Debug)]
enum Unnamed {
    Anonymous(File),
    /// On filesystems that have no anonymous files: removed unless it is kept.
    Temporary(NamedTempFile),
}

impl CoreFile {
    /// Makes the file, without its name.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let dir = directory_of(path);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&dir, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Unnamed::Anonymous(File::from(file)),
            Err(_) => Unnamed::Temporary(NamedTempFile::new_in(&dir)?),
        };
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Gives the file its name, replacing what had it. Returns its size, or `None` if nothing was
    /// written, and then leaves nothing.
    pub(super) fn keep(self) -> io::Result<Option<u64>> {
        let file = match &self.file {
            Unnamed::Anonymous(file) => file,
            Unnamed::Temporary(file) => file.as_file(),
        };
        let size = file.metadata()?.len();
        if size == 0 {
            return Ok(None);
        }
        match self.file {
            Unnamed::Anonymous(file) => link(&file, &self.path)?,
            Unnamed::Temporary(file) => {
                file.persist(&self.path)?;
            }
        }
        Ok(Some(size))
    }
}

impl AsFd for CoreFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.file {
            Unnamed::Anonymous(file) => file.as_fd(),
            Unnamed::Temporary(file) => file.as_file().as_fd(),
        }
    }
}

/// Links a file without a name to `path`. A link cannot replace a file: what is there goes first.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || rustix::fs::linkat(CWD, &*source, CWD, path, AtFlags::SYMLINK_FOLLOW);
    match link() {
        Err(rustix::io::Errno::EXIST) => {
            std::fs::remove_file(path)?;
            Ok(link()?)
        }
        other => Ok(other?),
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_kept_core_replaces_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("core");
        for content in ["first", "second one"] {
            let core = CoreFile::create(&path).expect("made");
            let mut file = File::from(core.as_fd().try_clone_to_owned().expect("cloned"));
            file.write_all(content.as_bytes()).expect("written");
            assert_eq!(core.keep().expect("kept"), Some(content.len() as u64));
            assert_eq!(fs::read_to_string(&path).expect("read"), content);
        }
    }

    #[test]
    fn without_a_fault_nothing_is_left_and_nothing_is_lost() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("core");
        fs::write(&path, "old").expect("written");
        drop(CoreFile::create(&path).expect("made"));
        let empty = CoreFile::create(&path).expect("made");
        assert_eq!(empty.keep().expect("looked at"), None);
        assert_eq!(fs::read_to_string(&path).expect("read"), "old");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn places_that_cannot_hold_a_file_are_refused_beforehand() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(objection(&dir.path().join("core")), None);
        assert_eq!(objection(Path::new("core")), None);
        assert!(objection(dir.path()).is_some());
        assert!(objection(&dir.path().join("absent/core")).is_some());
        assert!(objection(Path::new("/dev/null")).is_some_and(|why| why.contains("device")));
    }
}
