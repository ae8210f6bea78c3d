//! Sweeping and the checks before it, on directories made for it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::*;

fn later() -> SystemTime {
    SystemTime::now() + SETTLING + Duration::from_secs(1)
}

fn sliver_dir(root: &Path, name: &str) -> PathBuf {
    let dir = root.join(name);
    DirBuilder::new().mode(0o700).create(&dir).expect("made");
    UnixListener::bind(dir.join(CONTROL_SOCKET)).expect("bound");
    dir
}

#[test]
fn what_a_dead_monitor_left_is_removed() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = sliver_dir(root.path(), "dead");
    assert!(sweep_one(&dir, later()).expect("swept"));
    assert!(!dir.exists());
}

#[test]
fn a_locked_directory_stays() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = sliver_dir(root.path(), "alive");
    let held = File::create(dir.join(LOCK)).expect("made");
    rustix::fs::flock(&held, FlockOperation::LockExclusive).expect("locked");
    assert!(!sweep_one(&dir, later()).expect("looked at"));
    assert!(dir.join(CONTROL_SOCKET).exists());
}

#[test]
fn a_young_directory_stays() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = sliver_dir(root.path(), "young");
    assert!(!sweep_one(&dir, SystemTime::now()).expect("looked at"));
    assert!(dir.exists());
}

#[test]
fn exit_records_and_foreign_directories_stay() {
    let root = tempfile::tempdir().expect("a directory");
    let ended = sliver_dir(root.path(), "ended");
    fs::write(ended.join(EXIT_RECORD), "{}").expect("written");
    let foreign = root.path().join("foreign");
    fs::create_dir(&foreign).expect("made");
    fs::write(foreign.join("precious"), "data").expect("written");
    let empty = root.path().join("empty");
    fs::create_dir(&empty).expect("made");
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o755)).expect("set");
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&ended, &link).expect("linked");
    for dir in [&ended, &foreign, &empty, &link] {
        assert!(!sweep_one(dir, later()).expect("looked at"), "{dir:?}");
        assert!(dir.exists());
    }
}

#[test]
fn an_empty_directory_of_a_monitor_that_died_early_is_removed() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("early");
    DirBuilder::new().mode(0o700).create(&dir).expect("made");
    assert!(sweep_one(&dir, later()).expect("swept"));
}

#[test]
fn only_directories_with_a_socket_are_slivers() {
    let root = tempfile::tempdir().expect("a directory");
    sliver_dir(root.path(), "b");
    sliver_dir(root.path(), "a");
    fs::create_dir(root.path().join("none")).expect("made");
    assert_eq!(slivers(root.path()).expect("listed"), ["a", "b"]);
    assert!(
        slivers(&root.path().join("absent"))
            .expect("empty")
            .is_empty()
    );
}

#[test]
fn a_directory_that_everybody_can_write_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let open = root.path().join("open");
    fs::create_dir(&open).expect("made");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("set");
    let problem = prepare(&open).expect_err("must be refused");
    assert!(problem.why().contains("everybody"), "{problem}");
    prepare(&root.path().join("new/nested")).expect("is made");
}

#[test]
fn a_socket_path_that_cannot_be_bound_is_refused_beforehand() {
    let root = Path::new("/run/slicevisor");
    check_socket_path(root, &"n".repeat(63)).expect("fits");
    let deep = PathBuf::from(format!("/{}", "d".repeat(60)));
    assert!(check_socket_path(&deep, &"n".repeat(63)).is_err());
}
