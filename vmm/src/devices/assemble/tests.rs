use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use serde_json::json;

use super::*;
use crate::devices::outside::Opened;
use crate::devices::virtio::vsock::GuestSocket;
use crate::disk::SECTOR;

/// What a spec names, as its monitor would have it.
fn outside(spec: &SliverSpec) -> Outside {
    let opened = Opened::open(spec, BTreeMap::new()).unwrap();
    let listener = |socket: GuestSocket| socket.as_fd().try_clone_to_owned().unwrap();
    let dir = spec.vsock().map(|vsock| vsock.dir().to_owned());
    Outside {
        console: File::options().write(true).open("/dev/null").unwrap(),
        input: None,
        disks: opened.disks,
        cards: opened.cards,
        uplink: opened.uplink,
        vsock: opened.vsock.map(listener).zip(dir),
    }
}

#[test]
fn the_seed_is_the_last_disk_and_comes_before_the_vsock() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.img");
    File::create(&disk)
        .unwrap()
        .write_at(&[1], SECTOR - 1)
        .unwrap();
    let spec = json!({
        "version": 1, "name": "a", "slice": "local_a", "owner": "Ada", "contact": "ada@host",
        "image": "vmlinuz", "kernel": {}, "seed": { "hostname": "www" },
        "disks": [{ "path": disk }], "vsock": { "dir": dir.path() },
    });
    let spec = SliverSpec::parse(spec.to_string().as_bytes()).unwrap();
    let assembly = assemble(&spec, outside(&spec)).unwrap();
    let tags: Vec<String> = assembly.backends.iter().map(|b| b.identity().tag).collect();
    assert_eq!(
        tags,
        ["console", "rng", "balloon", "disk0", "seed", "vsock"]
    );
}
