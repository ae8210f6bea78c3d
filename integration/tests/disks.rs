//! A slice's disks as `slicectl run` attaches them: what cannot be one is refused by its name, and
//! one that fails later gives the guest an error and loses nothing that was flushed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use integration::ended::assert_refused;
use integration::kv::{Kv, Reply};
use integration::needs_kvm;
use integration::service::{Kind, Service};
use integration::sliver::new_place;
use tempfile::TempDir;

fn disk(place: &TempDir, name: &str, bytes: u64) -> PathBuf {
    let path = place.path().join(name);
    let file = File::create(&path).expect("the disk is made");
    file.set_len(bytes).expect("the disk has room");
    path
}

/// Reads or writes a disk for a moment.
fn blast(disk: impl Into<std::ffi::OsString>, way: &str) -> Output {
    let args = ["--disk", "disk0", "--seconds", "0.05", "--depth", "2", way];
    Service::program("blast")
        .cards(&[])
        .disk(disk)
        .args(args)
        .run(Kind::Slice)
}

#[test]
fn a_disk_that_is_given_to_be_read_is_not_written() {
    needs_kvm!();
    let place = new_place();
    let path = disk(&place, "ro.img", 1 << 20);
    let mut read_only = path.clone().into_os_string();
    read_only.push(",ro");
    let output = blast(read_only.clone(), "--read");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = blast(read_only, "--write");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("disk0") && told.contains("read-only"),
        "{output:?}"
    );
    let bytes = fs::read(path).expect("it is there");
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn what_cannot_be_a_disk_is_refused_by_its_name() {
    needs_kvm!();
    let place = new_place();
    for (name, bytes, word) in [("empty.img", 0, "empty"), ("odd.img", 1000, "1000 bytes")] {
        assert_refused(
            &blast(disk(&place, name, bytes), "--read"),
            2,
            &[name, word],
        );
    }
    let missing = place.path().join("missing.img");
    assert_refused(
        &blast(missing, "--read"),
        2,
        &["missing.img", "No such file"],
    );
    assert_refused(
        &blast(place.path(), "--read"),
        2,
        &["neither a file nor a block device"],
    );
}

#[test]
fn a_disk_that_another_sliver_uses_is_refused_and_the_other_notices_nothing() {
    needs_kvm!();
    let place = new_place();
    let path = disk(&place, "shared.img", 4 << 20);
    let store = Service::new("kv").disk(&path).start(Kind::Slice);
    let mut client = Kv::connect(store.tcp()).expect("it listens");
    let ok = Reply::Simple("OK".to_owned());
    assert_eq!(client.ask(&[b"SET", b"a", b"1"]).expect("an answer"), ok);
    let mut read_only = path.clone().into_os_string();
    read_only.push(",ro");
    // Whoever reads a disk that another writes reads nonsense.
    for again in [path.into_os_string(), read_only] {
        assert_refused(&blast(again, "--read"), 125, &["shared.img", "use"]);
    }
    assert_eq!(client.ask(&[b"SET", b"b", b"2"]).expect("an answer"), ok);
    assert_eq!(client.get(b"a"), Some(b"1".to_vec()));
}

#[test]
fn readers_of_a_disk_may_share_it() {
    needs_kvm!();
    let place = new_place();
    let mut path = disk(&place, "base.img", 1 << 20).into_os_string();
    path.push(",ro");
    let args = ["--disk", "disk0", "--seconds", "60"];
    let _reader = Service::program("blast")
        .cards(&[])
        .disk(&path)
        .args(args)
        .spawn(Kind::Slice);
    let output = blast(path, "--read");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// A small file system that only a process of this test has mounted.
struct SmallFileSystem {
    holder: Child,
    place: TempDir,
}

impl SmallFileSystem {
    fn new(bytes: u64) -> Self {
        let place = new_place();
        let script = r#"mount -t tmpfs -o size="$1" none "$0" && echo mounted && exec cat"#;
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(place.path())
            .arg(bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let mut line = String::new();
        let told = holder.stdout.as_mut().expect("a pipe");
        BufReader::new(told)
            .read_line(&mut line)
            .expect("it writes text");
        assert_eq!(line, "mounted\n", "a file system can be mounted by root");
        Self { holder, place }
    }

    /// A path in it, as everybody else reaches it.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let inside = self.place.path().join(name);
        root.join(inside.strip_prefix("/").unwrap_or(Path::new(name)))
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        // It ends with its input; what it has mounted is gone then.
        self.holder.stdin.take();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_file_system_that_fills_up_is_an_error_to_the_guest_and_nothing_flushed_is_lost() {
    needs_kvm!();
    let small = SmallFileSystem::new(1 << 20);
    let path = small.path("disk.img");
    let file = File::create(&path).expect("the disk is made");
    file.set_len(16 << 20).expect("a file may have holes");
    let store = Service::new("kv").disk(&path);
    let mut running = store.clone().start(Kind::Slice);
    let mut client = Kv::connect(running.tcp()).expect("it listens");
    let value = vec![3; 20_000];
    let mut stored = 0..0;
    let told = loop {
        let key = stored.end.to_string();
        match client
            .ask(&[b"SET", key.as_bytes(), &value])
            .expect("an answer")
        {
            Reply::Error(why) => break why,
            reply => assert_eq!(reply, Reply::Simple("OK".to_owned())),
        }
        stored.end += 1;
    };
    assert!(told.contains("writing the disk"), "{told}");
    assert!(stored.end > 10, "{stored:?}");
    let all_there = |client: &mut Kv| {
        for key in stored.clone() {
            assert!(
                client.get(key.to_string().as_bytes()).as_ref() == Some(&value),
                "{key}"
            );
        }
        assert_eq!(client.keys().len(), stored.len());
    };
    all_there(&mut client);
    assert!(
        running.errors().contains("disk"),
        "nothing was told: {:?}",
        running.errors()
    );
    running.crash();
    let running = store.start(Kind::Slice);
    all_there(&mut Kv::connect(running.tcp()).expect("it listens"));
}
