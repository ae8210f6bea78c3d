//! A guest is entered with a key that it has from its seed.
//!
//! The server runs in the RAM disk; what cloud-init would do with the seed is done by hand.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;

use super::net;
use crate::lab::guest::{Guest, append, legacy};
use crate::lab::inside::Stage;
use crate::lab::part::Part;
use crate::sliver::new_place;

/// Where the programs are once they are unpacked.
struct Programs(PathBuf);

pub(super) fn key_of_the_seed(stage: &Stage) {
    let place = new_place();
    let programs = Programs::unpack(stage, place.path());
    let (right, public) = programs.key(place.path(), "right");
    let (wrong, _) = programs.key(place.path(), "wrong");
    net::tap(stage);
    let initrd = place.path().join("initrd.cpio");
    concatenate(&[stage.part(Part::Initrd), stage.part(Part::Ssh)], &initrd);
    let how = json!({ "initrd": initrd, "append": append("serve") });
    let seed = json!({ "hostname": "reached", "ssh_keys": [public] });
    let sliver = legacy(stage, Part::BzImage, how)
        .field(
            "nets",
            json!([{ "tap": net::TAP, "ipv4": format!("{}/24", net::GUEST) }]),
        )
        .field("seed", seed);
    let mut guest = Guest::serve(stage, sliver);
    stage.step("reading the seed");
    guest.run("mkdir -p /seed /etc/dropbear /root/.ssh && mount -t vfat -o ro /dev/vda /seed");
    guest.run("grep -o 'ssh-ed25519 [A-Za-z0-9+/=]*' /seed/user-data /seed/meta-data >/keys; :");
    guest.run("sed 's/.*:ssh/ssh/' /keys >/root/.ssh/authorized_keys; cat /keys");
    guest.run("hostname \"$(grep -o 'hostname.*' /seed/meta-data | grep -o reached)\"");
    guest.run("chmod 700 /root /root/.ssh && chmod 600 /root/.ssh/authorized_keys");
    guest.run("echo root:x:0:0:root:/root:/bin/sh >/etc/passwd");
    guest.run(&format!(
        "ifconfig eth0 {} netmask {} up",
        net::GUEST,
        net::MASK
    ));
    guest.run("/usr/sbin/dropbear -R -s -P /dropbear.pid");
    stage.step("the right key");
    let output = programs.ssh(&right, "hostname; echo $((6 * 7))");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "reached\n42\n",
        "{output:?}"
    );
    stage.step("a wrong key");
    let output = programs.ssh(&wrong, "hostname");
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}

impl Programs {
    fn unpack(stage: &Stage, into: &Path) -> Self {
        let archive = File::open(stage.part(Part::Ssh)).expect("it is there");
        let unpacked = Command::new(stage.part(Part::Busybox))
            .args(["cpio", "-i", "-d"])
            .current_dir(into)
            .stdin(archive)
            .output()
            .expect("busybox is there");
        assert!(unpacked.status.success(), "{unpacked:?}");
        Self(into.to_owned())
    }

    /// One of them, with its libraries wherever they are.
    fn command(&self, program: &str) -> Command {
        let path = |name: &str| self.0.join(name);
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(path);
        let mut command = Command::new(path("lib64/ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(std::env::join_paths(libraries).expect("no path has a colon"))
            .arg(path(program))
            .env("HOME", &self.0)
            .stdin(Stdio::null());
        command
    }

    /// A new key's file, and its public half.
    fn key(&self, place: &Path, name: &str) -> (PathBuf, String) {
        let file = place.join(name);
        let mut command = self.command("usr/bin/dropbearkey");
        command.args(["-t", "ed25519", "-f"]).arg(&file);
        let output = command.output().expect("it starts");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let public = told.lines().find(|line| line.starts_with("ssh-ed25519 "));
        let public = public.unwrap_or_else(|| panic!("no key was made: {output:?}"));
        (file, public.to_owned())
    }

    /// Runs a command in the guest.
    fn ssh(&self, key: &Path, remote: &str) -> Output {
        let mut command = self.command("usr/bin/dbclient");
        // Twice: the guest's own key is new, and none is known.
        command.args(["-y", "-y", "-T", "-i"]).arg(key);
        command.arg(format!("root@{}", net::GUEST)).arg(remote);
        command.output().expect("it starts")
    }
}

fn concatenate(parts: &[PathBuf], into: &Path) {
    let whole: Vec<u8> = { parts.iter() }
        .flat_map(|part| fs::read(part).expect("it is there"))
        .collect();
    fs::write(into, whole).expect("there is room");
}
