use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ me";

fn spec(seed: Value, nets: Value) -> SliverSpec {
    let document = json!({
        "version": 1, "name": "hello_1", "slice": "local_demo", "owner": "Ada",
        "contact": "ada@example.org", "image": "vmlinuz", "kernel": {}, "seed": seed, "nets": nets,
    });
    SliverSpec::parse(document.to_string().as_bytes()).unwrap()
}

fn told(spec: &SliverSpec) -> BTreeMap<&'static str, String> {
    files(spec, spec.seed().unwrap()).into_iter().collect()
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn meta_data_has_the_name_and_the_keys() {
    let told = told(&spec(
        json!({ "ssh_keys": [KEY], "hostname": "www.example.org" }),
        json!([]),
    ));
    let meta = json_of(&told["meta-data"]);
    assert_eq!(meta["local-hostname"], "www.example.org");
    assert_eq!(meta["public-keys"], json!([KEY]));
    assert_eq!(told["user-data"], NO_USER_DATA);
    let vendor = told["vendor-data"].strip_prefix("#cloud-config\n").unwrap();
    assert_eq!(json_of(vendor), json!({ "disable_root": false }));
    assert!(!told.contains_key("network-config"));
}

#[test]
fn without_a_host_name_it_is_the_sliver_s() {
    let told = told(&spec(json!({}), json!([])));
    assert_eq!(json_of(&told["meta-data"])["local-hostname"], "hello-1");
}

#[test]
fn user_data_is_left_as_it_is() {
    let mine = "#!/bin/sh\necho \"'\\\u{e4}\"\r\n";
    assert_eq!(
        told(&spec(json!({ "user_data": mine }), json!([])))["user-data"],
        mine
    );
}

#[test]
fn the_instance_is_another_when_something_else_is_told() {
    let id = |seed: Value, nets: Value| {
        let meta = json_of(&told(&spec(seed, nets))["meta-data"]);
        meta["instance-id"].as_str().unwrap().to_owned()
    };
    let mut ids = vec![
        id(json!({}), json!([])),
        id(json!({ "hostname": "a" }), json!([])),
        id(json!({ "ssh_keys": [KEY] }), json!([])),
        id(json!({ "user_data": "#!" }), json!([])),
        id(json!({}), json!([{}])),
    ];
    assert_eq!(ids[0], id(json!({}), json!([])));
    assert!(ids[0].starts_with("hello_1-"), "{}", ids[0]);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[test]
fn cards_are_described_as_netplan_does() {
    let nets = json!([
        {
            "mac": "02:00:00:00:00:01", "mtu": 1400, "ipv4": "10.0.2.15/24", "gateway4": "10.0.2.2",
            "ipv6": "fd00::15/64", "gateway6": "fe80::1", "dns": ["10.0.2.2"],
        },
        { "mac": "02:00:00:00:00:02", "dhcp": true },
        { "mac": "02:00:00:00:00:03" },
    ]);
    let told = told(&spec(json!({}), nets.clone()));
    let expected = json!({ "version": 2, "ethernets": {
        "eth0": {
            "match": { "macaddress": "02:00:00:00:00:01" }, "set-name": "eth0", "mtu": 1400,
            "dhcp4": false, "addresses": ["10.0.2.15/24", "fd00::15/64"],
            "routes": [
                { "to": "0.0.0.0/0", "via": "10.0.2.2" }, { "to": "::/0", "via": "fe80::1" },
            ],
            "nameservers": { "addresses": ["10.0.2.2"] },
        },
        "eth1": {
            "match": { "macaddress": "02:00:00:00:00:02" }, "set-name": "eth1", "mtu": 1500,
            "dhcp4": true,
        },
        "eth2": {
            "match": { "macaddress": "02:00:00:00:00:03" }, "set-name": "eth2", "mtu": 1500,
            "dhcp4": false, "optional": true,
        },
    }});
    assert_eq!(json_of(&told["network-config"]), expected);
    let silent = spec(json!({ "network": false }), nets);
    assert!(
        !files(&silent, silent.seed().unwrap())
            .iter()
            .any(|(name, _)| *name == "network-config")
    );
}

fn read_back(image: &File) -> BTreeMap<String, String> {
    let volume = FileSystem::new(Cursor::new(whole(image)), FsOptions::new()).unwrap();
    assert_eq!(volume.volume_label(), "CIDATA");
    let entries = volume.root_dir().iter().map(Result::unwrap);
    entries
        .map(|entry| {
            let mut text = String::new();
            entry.to_file().read_to_string(&mut text).unwrap();
            (entry.file_name(), text)
        })
        .collect()
}

fn whole(image: &File) -> Vec<u8> {
    let mut bytes = vec![0; image.metadata().unwrap().len() as usize];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn the_image_holds_the_files_and_nobody_can_change_it() {
    let spec = spec(json!({ "ssh_keys": [KEY] }), json!([{}]));
    let files = files(&spec, spec.seed().unwrap());
    let image = image(&files).unwrap();
    let expected = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.clone()));
    assert_eq!(read_back(&image), expected.collect());
    assert!(image.write_at(b"x", 0).is_err());
    assert!(image.set_len(0).is_err());
    assert!(image.metadata().unwrap().len().is_multiple_of(UNIT));
}

#[test]
fn the_same_spec_gives_the_same_bytes() {
    let spec = spec(json!({ "hostname": "a" }), json!([{}]));
    let bytes = || whole(&image(&files(&spec, spec.seed().unwrap())).unwrap());
    assert_eq!(bytes(), bytes());
}

#[test]
fn the_longest_of_everything_fits() {
    let key = format!("{KEY} {}", "x".repeat(3900));
    let seed = json!({
        "ssh_keys": vec![key; crate::spec::MAX_KEYS],
        "user_data": format!("#!{}", "x".repeat(crate::spec::MAX_USER_DATA_BYTES - 2)),
    });
    let spec = spec(seed, json!([{}]));
    let files = files(&spec, spec.seed().unwrap());
    assert_eq!(read_back(&image(&files).unwrap()).len(), 4);
}

proptest! {
    #[test]
    fn texts_of_any_length_are_read_back(lengths in prop::collection::vec(0usize..5000, 1..4)) {
        let names = ["meta-data", "user-data", "network-config"];
        let texts = lengths.iter().map(|len| "y".repeat(*len));
        let files: Vec<(&str, String)> = names.into_iter().zip(texts).collect();
        let read = read_back(&image(&files).unwrap());
        prop_assert_eq!(read.len(), files.len());
        for (name, text) in &files {
            prop_assert_eq!(&read[*name], text);
        }
    }
}
