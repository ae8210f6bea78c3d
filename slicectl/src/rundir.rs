//! The directory in which every running sliver has a directory of its own.
//!
//! A monitor makes ROOT/NAME, holds a lock (`flock`) on it while it lives and puts its control
//! socket there. One that was killed together with its `slicectl` leaves the directory behind;
//! [`sweep`] removes such leftovers and nothing else.

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, FlockOperation};
use vmm::sched::ledger::is_in_memory;
use vmm::spec::SliverName;

use crate::problem::Problem;

/// The run directory of root.
const ROOT_DIR: &str = "/run/slicevisor";

/// Names the directory to use instead of the usual one.
pub const RUN_DIR_VARIABLE: &str = "SLICEVISOR_RUN_DIR";

/// The control socket in a sliver's directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// The file that the owner of a sliver's directory keeps locked.
pub const LOCK: &str = "lock";

/// The record that a sliver without a `slicectl` leaves.
pub const EXIT_RECORD: &str = "exit.json";

/// The ledger in which slivers share the processors. No sliver's name begins with a dot.
pub const LEDGER: &str = ".ledger";

/// The audit of a run directory that is not root's usual one.
const AUDIT: &str = ".audit.sqlite";

/// The longest path a socket can be bound to (`sun_path` holds 108 bytes with the terminator).
const MAX_SOCKET_PATH: usize = 107;

/// A directory younger than this may belong to a monitor that has not locked it yet.
const SETTLING: Duration = Duration::from_secs(3);

/// Where the slivers of this user are.
pub fn root() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = variable(RUN_DIR_VARIABLE) {
        return std::path::absolute(&dir).unwrap_or_else(|_| PathBuf::from(dir));
    }
    usual_root()
}

/// The run directory of who has named none.
fn usual_root() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(ROOT_DIR);
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(dir) => Path::new(&dir).join("slicevisor"),
        None => {
            let uid = rustix::process::geteuid().as_raw();
            std::env::temp_dir().join(format!("slicevisor-{uid}"))
        }
    }
}

/// Makes the directory if it is missing and checks that nobody else can put things there.
pub fn prepare(root: &Path) -> Result<(), Problem> {
    let what = || format!("run directory {}", root.display());
    let remedy = || format!("name another with {RUN_DIR_VARIABLE}=DIR");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(|error| Problem::new(what(), format!("cannot be made: {error}")).mend(remedy()))?;
    let metadata = fs::metadata(root)
        .map_err(|error| Problem::new(what(), format!("cannot be read: {error}")))?;
    if let Some(why) = unsafe_to_share(&metadata, rustix::process::geteuid().as_raw()) {
        return Err(Problem::new(what(), why).mend(remedy()));
    }
    rustix::fs::access(root, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| Problem::new(what(), format!("cannot be written: {error}")).mend(remedy()))
}

/// Checks that the control socket of a sliver called `name` can have a path in `root`.
pub fn check_socket_path(root: &Path, name: &str) -> Result<(), Problem> {
    let len = socket_path(root, name).as_os_str().len();
    if len <= MAX_SOCKET_PATH {
        return Ok(());
    }
    Err(Problem::new(
        format!("run directory {}", root.display()),
        format!("the control socket's path would have {len} bytes, {MAX_SOCKET_PATH} are allowed"),
    )
    .mend(format!(
        "use a shorter name, or a shorter {RUN_DIR_VARIABLE}"
    )))
}

/// Path of the control socket of the sliver called `name`.
pub fn socket_path(root: &Path, name: &str) -> PathBuf {
    root.join(name).join(CONTROL_SOCKET)
}

/// Path of the ledger that the slivers in `root` share. A ledger lies in memory: in `root` if that
/// does, or else, for the usual `root`, in `/dev/shm`; there is none for another.
pub fn ledger_path(root: &Path) -> Option<PathBuf> {
    if is_in_memory(root).unwrap_or(false) {
        return Some(root.join(LEDGER));
    }
    let uid = rustix::process::geteuid().as_raw();
    (root == usual_root()).then(|| PathBuf::from(format!("/dev/shm/slicevisor-{uid}.ledger")))
}

/// Path of the audit of the slivers in `root`. It outlives the host's next start only for root's
/// usual directory, which has a place on a disk.
pub fn audit_path(root: &Path) -> PathBuf {
    match root == Path::new(ROOT_DIR) {
        true => PathBuf::from("/var/lib/slicevisor/audit.sqlite"),
        false => root.join(AUDIT),
    }
}

/// Names of the slivers that have a control socket in `root`, sorted.
pub fn slivers(root: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if SliverName::parse(&name).is_ok() && has_socket(&root.join(&*name)) {
            names.push(name.into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Removes the directories of slivers whose monitor is gone. Leaves alone what a monitor holds,
/// what is younger than a few seconds, what holds an exit record, and what is no sliver's.
pub fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        if SliverName::parse(&entry.file_name().to_string_lossy()).is_ok() {
            // What cannot be removed harms nobody; the next run tries again.
            let _ = sweep_one(&entry.path(), SystemTime::now());
        }
    }
}

/// Removes the directory of the sliver called `name`, whose monitor has died just now.
pub fn remove_leftover(root: &Path, name: &str) {
    let _ = sweep_one(&root.join(name), SystemTime::now() + SETTLING);
}

/// Removes a directory if, at `now`, it is a leftover; whether it was.
fn sweep_one(dir: &Path, now: SystemTime) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(dir)?;
    let settled = now
        .duration_since(metadata.modified()?)
        .is_ok_and(|age| age >= SETTLING);
    let ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if !ours || !settled || !looks_abandoned(dir, &metadata)? {
        return Ok(false);
    }
    // Without one, its monitor had not come that far.
    let lock = match File::open(dir.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened?),
    };
    let taken = lock.as_ref().map_or(Ok(()), |lock| {
        rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive)
    });
    match taken {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    for name in [CONTROL_SOCKET, LOCK] {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::remove_dir(dir)?;
    Ok(true)
}

/// Whether a directory holds a control socket and a lock and nothing else, or nothing at all with the
/// mode that monitors give.
fn looks_abandoned(dir: &Path, metadata: &Metadata) -> io::Result<bool> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name());
    }
    let known = names
        .iter()
        .all(|name| name == LOCK || (name == CONTROL_SOCKET && has_socket(dir)));
    Ok(known && metadata.mode() & 0o777 == 0o700)
}

fn has_socket(dir: &Path) -> bool {
    fs::symlink_metadata(dir.join(CONTROL_SOCKET))
        .is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Why a directory must not be used: somebody else could replace what is in it.
fn unsafe_to_share(metadata: &Metadata, uid: u32) -> Option<String> {
    if !metadata.is_dir() {
        Some("is not a directory".to_owned())
    } else if metadata.uid() != uid && metadata.uid() != 0 {
        Some(format!("belongs to user {}", metadata.uid()))
    } else if metadata.mode() & 0o002 != 0 && metadata.mode() & 0o1000 == 0 {
        Some("can be written by everybody".to_owned())
    } else {
        None
    }
}
