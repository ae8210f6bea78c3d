use super::*;
use crate::spec::SliverSpec;
use std::path::PathBuf;

/// The spec of a disk.
pub(crate) fn spec(path: &Path, read_only: bool, direct: bool) -> DiskSpec {
    let value = serde_json::json!({
        "version": 1, "name": "hello-1", "slice": "local_demo", "owner": "Ada",
        "contact": "ada@example.org", "image": "hello",
        "disks": [{ "path": path, "read_only": read_only, "direct": direct, "serial": "kv0" }],
    });
    let spec = SliverSpec::parse(value.to_string().as_bytes()).unwrap();
    spec.disks()[0].clone()
}

/// Has a disk pass for one that wants all it is given aligned to so much.
pub(crate) fn demand_alignment(disk: &mut Disk, bytes: u64) {
    disk.direct = Some(Alignment {
        memory: bytes,
        place: bytes,
    });
}

/// A directory on a real file system: the usual place for temporary files may be in memory.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

fn open(path: &Path) -> Result<Disk, DiskError> {
    Disk::open(&spec(path, false, false))
}

fn file(dir: &tempfile::TempDir, bytes: u64) -> PathBuf {
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

#[test]
fn a_plain_file_is_a_disk() {
    let dir = temp_dir();
    let disk = open(&file(&dir, 1 << 20)).unwrap();
    assert_eq!((disk.bytes(), disk.block_bytes()), (1 << 20, 512));
    assert!(!disk.read_only());
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let dir = temp_dir();
    let refusal = |path: &Path| {
        let refusal = open(path).unwrap_err();
        let line = refusal.to_string();
        assert!(line.contains(path.to_str().unwrap()) && !line.contains('\n'));
        refusal
    };
    let missing = dir.path().join("none");
    assert!(matches!(refusal(&missing), DiskError::Missing(_)));
    assert!(matches!(refusal(dir.path()), DiskError::Directory(_)));
    assert!(matches!(
        Disk::open(&spec(dir.path(), true, false)),
        Err(DiskError::Directory(_))
    ));
    let null = Path::new("/dev/zero");
    assert!(matches!(refusal(null), DiskError::OddKind(_)));
    let pipe = dir.path().join("pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(matches!(refusal(&pipe), DiskError::OddKind(_)));
    let path = file(&dir, 0);
    assert!(matches!(refusal(&path), DiskError::Empty(_)));
    let path = file(&dir, 1000);
    assert!(matches!(
        refusal(&path),
        DiskError::Ragged { bytes: 1000, .. }
    ));
}

#[test]
fn what_may_not_be_written_is_refused_with_advice() {
    let name = "/x/disk.img";
    let told = |errno, read_only| refusal(errno, name, read_only).to_string();
    assert!(told(Errno::ROFS, false).contains("read-only"));
    assert!(told(Errno::ACCESS, false).contains("written"));
    assert!(told(Errno::ACCESS, true).contains("read"));
    assert!(told(Errno::IO, true).contains(name));
}

#[test]
fn a_disk_is_written_by_one_or_read_by_many() {
    let dir = temp_dir();
    let path = file(&dir, 4096);
    let read = |path| Disk::open(&spec(path, true, false));
    let writer = open(&path).unwrap();
    assert!(matches!(open(&path), Err(DiskError::InUse(_))));
    assert!(matches!(read(&path), Err(DiskError::InUse(_))));
    drop(writer);
    let readers = [read(&path).unwrap(), read(&path).unwrap()];
    assert!(matches!(open(&path), Err(DiskError::InUse(_))));
    // By another name it is the same disk.
    let other = dir.path().join("other.img");
    std::fs::hard_link(&path, &other).unwrap();
    assert!(matches!(open(&other), Err(DiskError::InUse(_))));
    drop(readers);
    open(&other).unwrap();
}

#[test]
fn passing_the_cache_by_needs_a_file_system_that_can() {
    let dir = temp_dir();
    let path = file(&dir, 1 << 20);
    match Disk::open(&spec(&path, false, true)) {
        Ok(disk) => {
            let alignment = disk.direct().unwrap();
            assert!(alignment.place.is_power_of_two() && alignment.memory.is_power_of_two());
            assert_eq!(disk.block_bytes(), alignment.place.max(SECTOR));
        }
        Err(error) => assert!(matches!(error, DiskError::NoDirect(_)), "{error}"),
    }
}

#[test]
fn a_file_of_our_own_is_a_disk_that_is_only_read_if_it_is_whole_sectors() {
    let own = |bytes: u64| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        Disk::of_own_file(file, "seed")
    };
    let disk = own(2 * SECTOR).unwrap();
    assert_eq!((disk.bytes(), disk.read_only()), (2 * SECTOR, true));
    assert!(matches!(own(0), Err(DiskError::Empty(_))));
    assert!(matches!(own(SECTOR + 1), Err(DiskError::Ragged { .. })));
}
