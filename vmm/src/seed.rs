//! The disk from which a guest's cloud-init learns who it is: a NoCloud seed.
//!
//! [`files`] says what is in it, from nothing but the spec; [`image`] puts that into a FAT file
//! system in memory which nobody can change any more. The same spec always gives the same bytes.
//! YAML is written as JSON, which it includes: nothing an owner writes can be anything but text.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Cursor, Seek, SeekFrom, Write};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde_json::{Map, Value, json};

use crate::spec::{Hostname, NetSpec, PublicKey, SeedSpec, SliverSpec};

/// The label by which cloud-init finds the disk.
const LABEL: [u8; 11] = *b"CIDATA     ";

/// Bytes of a cluster: of a sector, the files are small.
const CLUSTER: u64 = 512;

/// Room for the tables and the root directory, which has entries for far more files.
const OVERHEAD: u64 = 64 << 10;

/// What the size of the image is a multiple of.
const UNIT: u64 = 4096;

/// What a guest's user data is if its owner has given none.
const NO_USER_DATA: &str = "#cloud-config\n{}\n";

/// The files of a seed by their names. `network-config` is left out if there is nothing to say.
pub fn files(spec: &SliverSpec, seed: &SeedSpec) -> Vec<(&'static str, String)> {
    let user_data = seed.user_data().unwrap_or(NO_USER_DATA).to_owned();
    let nets = spec.nets();
    let network = (seed.network() && !nets.is_empty()).then(|| pretty(&network(nets)));
    let host = seed.hostname().cloned();
    let host = host.unwrap_or_else(|| Hostname::of_sliver(spec.name()));
    let keys: Vec<&str> = seed.ssh_keys().iter().map(PublicKey::as_str).collect();
    let parts = [host.as_str(), &keys.join("\n"), &user_data];
    let content = parts.into_iter().chain(network.as_deref());
    let meta_data = json!({
        // Another one makes cloud-init begin anew, as it has to when it is told something else.
        "instance-id": format!("{}-{:016x}", spec.name(), digest(content)),
        "local-hostname": host.as_str(),
        "public-keys": keys,
    });
    // Below the user data in rank: an owner who wants it otherwise says so there.
    let vendor_data = format!(
        "#cloud-config\n{}",
        pretty(&json!({ "disable_root": false }))
    );
    let mut files = vec![
        ("meta-data", pretty(&meta_data)),
        ("user-data", user_data),
        ("vendor-data", vendor_data),
    ];
    files.extend(network.map(|network| ("network-config", network)));
    files
}

/// The disk's file: sealed, so that nobody can change it, and of a size that is its own.
pub fn image(files: &[(&str, String)]) -> io::Result<File> {
    let bytes = file_system(files)?;
    let fd = memfd_create(
        "slice-seed",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut file = File::from(fd);
    file.write_all(&bytes)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// A FAT file system with `files` in its root directory.
fn file_system(files: &[(&str, String)]) -> io::Result<Vec<u8>> {
    let content: u64 = files
        .iter()
        .map(|(_, text)| (text.len() as u64).next_multiple_of(CLUSTER))
        .sum();
    let mut bytes = vec![0; (content + OVERHEAD).next_multiple_of(UNIT) as usize];
    let options = FormatVolumeOptions::new()
        .bytes_per_cluster(CLUSTER as u32)
        .fat_type(FatType::Fat12)
        .max_root_dir_entries(64)
        .volume_label(LABEL);
    format_volume(Cursor::new(&mut bytes), options)?;
    let volume = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new())?;
    for (name, text) in files {
        let mut file = volume.root_dir().create_file(name)?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(bytes)
}

/// The cards as netplan describes them, version 2: each found by its address and named in turn.
fn network(nets: &[NetSpec]) -> Value {
    let card = |(index, net): (usize, &NetSpec)| {
        let name = format!("eth{index}");
        let card = card(net, &name);
        (name, card)
    };
    let cards: Map<String, Value> = nets.iter().enumerate().map(card).collect();
    json!({ "version": 2, "ethernets": cards })
}

fn card(net: &NetSpec, name: &str) -> Value {
    let with_prefix = |address: String, prefix: u8| json!(format!("{address}/{prefix}"));
    let four = net
        .ipv4()
        .map(|(a, prefix)| with_prefix(a.to_string(), prefix));
    let six = net
        .ipv6()
        .map(|(a, prefix)| with_prefix(a.to_string(), prefix));
    let addresses: Vec<Value> = four.into_iter().chain(six).collect();
    let four = net.gateway4().map(|gw| ("0.0.0.0/0", gw.to_string()));
    let six = net.gateway6().map(|gw| ("::/0", gw.to_string()));
    let routes = four.into_iter().chain(six);
    let routes: Vec<Value> = routes
        .map(|(to, via)| json!({ "to": to, "via": via }))
        .collect();
    let mut card = json!({
        "match": { "macaddress": net.mac().to_string() },
        "set-name": name,
        "mtu": net.mtu(),
        "dhcp4": net.dhcp(),
    });
    if !addresses.is_empty() {
        card["addresses"] = Value::Array(addresses);
    } else if !net.dhcp() {
        // Nobody has to wait for a card that will have no address.
        card["optional"] = json!(true);
    }
    if !routes.is_empty() {
        card["routes"] = Value::Array(routes);
    }
    if !net.dns().is_empty() {
        card["nameservers"] = json!({ "addresses": net.dns() });
    }
    card
}

/// 64-bit FNV-1a of texts and of where they end.
fn digest<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let bytes = texts.flat_map(|text| text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
