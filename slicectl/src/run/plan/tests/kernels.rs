//! Kernels: their flags, their defaults, and where they are refused.

use std::fs;
use std::path::Path;

use super::*;
use crate::images::Wanted;
use vmm::spec::{KernelConsole, Protocol};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ me";

fn able() -> Surroundings {
    Surroundings {
        processor: Processor::Svm,
        ..around()
    }
}

fn plan(line: &[&str], kind: Kind) -> Result<Plan, Vec<String>> {
    let told = |failure: Failure| failure.problems.iter().map(ToString::to_string).collect();
    check(&args(line), &kind.into(), &able()).map_err(told)
}

fn spec(line: &[&str]) -> SliverSpec {
    let plan = plan(line, Kind::Legacy).unwrap_or_else(|told| panic!("{told:?}"));
    plan.spec("/vmlinuz".as_ref(), None, &Known::default())
        .expect("valid")
}

fn refused(line: &[&str], kind: Kind) -> Vec<String> {
    plan(line, kind).expect_err("must be refused")
}

fn file(dir: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.path().join(name);
    fs::write(&path, content).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_kernel_has_the_memory_of_a_legacy_sliver_and_a_part_in_the_spec() {
    let spec = spec(&["vmlinuz"]);
    assert_eq!(spec.memory_bytes(), 256 << 20);
    assert_eq!(spec.kernel(), Some(&Default::default()));
    assert!(spec.seed().is_none() && !spec.console().input());
}

#[test]
fn what_the_flags_say_is_in_the_spec() {
    let dir = tempfile::tempdir().expect("a directory");
    let initrd = file(&dir, "initrd", "070701");
    let spec = spec(&[
        "vmlinuz",
        "--initrd",
        &initrd,
        "--append",
        "quiet",
        "--append",
        "ro",
        "--boot",
        "pvh",
        "--no-acpi",
        "--kernel-console",
        "virtio",
        "--mem",
        "1G",
        "--",
        "single",
    ]);
    let kernel = spec.kernel().expect("a kernel");
    assert_eq!(kernel.initrd(), Some(Path::new(&initrd)));
    assert_eq!(kernel.append(), "quiet ro");
    assert_eq!(kernel.protocol(), Protocol::Pvh);
    assert_eq!(kernel.console(), KernelConsole::Virtio);
    assert!(!kernel.acpi());
    assert_eq!(spec.memory_bytes(), 1 << 30);
    assert_eq!(spec.args(), ["single"]);
}

#[test]
fn beside_a_kernel_the_image_is_the_first_disk_and_gives_the_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let (root, data) = (
        file(&dir, "debian.img", [0; 512]),
        file(&dir, "data", [0; 512]),
    );
    let spec = spec(&["--kernel", "vmlinuz", &root, "--disk", &data]);
    let disks: Vec<_> = spec.disks().iter().map(|disk| disk.path()).collect();
    assert_eq!(disks, [Path::new(&root), Path::new(&data)]);
    assert_eq!(spec.name(), "debian-7");
    let told = refused(&["--kernel", "vmlinuz", "/nowhere.img"], Kind::Legacy);
    assert!(
        told[0].starts_with("IMAGE /nowhere.img: cannot be read"),
        "{told:?}"
    );
}

#[test]
fn keys_are_read_from_files_and_from_the_command_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let two = format!("# mine\n{KEY}\n\n{KEY}2\n");
    let (keys, data) = (
        file(&dir, "keys", two),
        file(&dir, "user-data", "#cloud-config\n"),
    );
    let spec = spec(&[
        "vmlinuz",
        "--ssh-key",
        KEY,
        "--ssh-key",
        &keys,
        "--hostname",
        "www",
        "--user-data",
        &data,
    ]);
    let seed = spec.seed().expect("a seed");
    assert_eq!(seed.ssh_keys().len(), 2, "{seed:?}");
    assert_eq!(seed.hostname().map(|name| name.as_str()), Some("www"));
    assert_eq!(seed.user_data(), Some("#cloud-config\n"));
}

#[test]
fn a_private_key_stays_where_it_is_and_the_public_one_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n";
    let path = file(&dir, "id", private);
    let told = refused(&["vmlinuz", "--ssh-key", &path], Kind::Legacy).join("\n");
    assert!(
        told.contains("is a private key") && told.contains("ssh-keygen -y"),
        "{told}"
    );
    file(&dir, "id.pub", KEY);
    let told = refused(&["vmlinuz", "--ssh-key", &path], Kind::Legacy).join("\n");
    assert!(told.ends_with(&format!("--ssh-key {path}.pub")), "{told}");
    let told = refused(&["vmlinuz", "--ssh-key", private], Kind::Legacy).join("\n");
    assert!(!told.contains("secret") && told.contains(".pub"), "{told}");
}

#[test]
fn every_mistake_about_a_kernel_is_told_with_its_flag() {
    let dir = tempfile::tempdir().expect("a directory");
    let (none, junk) = (file(&dir, "none", ""), file(&dir, "junk", [0xff, 0xfe]));
    let directory = dir.path().to_str().expect("UTF-8");
    for (line, expected) in [
        (
            vec!["--initrd", "/nowhere"],
            "--initrd /nowhere: cannot be read",
        ),
        (vec!["--initrd", &none], "is empty"),
        (vec!["--initrd", directory], "is not a regular file"),
        (vec!["--append", "a\nb"], "--append: contains"),
        (vec!["--boot", "uefi"], "--boot: is \"uefi\""),
        (
            vec!["--kernel-console", "vga"],
            "--kernel-console: is \"vga\"",
        ),
        (
            vec!["--ssh-key", "/nowhere"],
            "--ssh-key /nowhere: cannot be read",
        ),
        (vec!["--ssh-key", &none], "has no key in it"),
        (
            vec!["--ssh-key", "ssh-dss AAAA"],
            "is not the type of a public key",
        ),
        (vec!["--hostname", "a_b"], "--hostname: "),
        (vec!["--user-data", &junk], "is not text"),
        (vec!["--user-data", directory], "is not a regular file"),
        (vec!["--user-data", &none], "--user-data: does not begin"),
        (vec!["--gdb", ":1234"], "--gdb: is for native images"),
        (vec!["--core", "core.elf"], "--core: is for native images"),
        (
            vec!["--detach-keys", "ctrl-]"],
            "--detach-keys: needs --console stdio",
        ),
    ] {
        let line = [vec!["vmlinuz"], line].concat();
        let told = refused(&line, Kind::Legacy);
        assert!(
            told.iter().any(|one| one.contains(expected)),
            "{expected} not in {told:?}"
        );
    }
}

#[test]
fn a_kernel_and_an_initial_ram_disk_that_memory_cannot_hold_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let kernel = file(&dir, "vmlinuz", crate::run::kind::tests::bzimage());
    let initrd = file(&dir, "initrd", "");
    let sparse = fs::File::options().write(true).open(&initrd).expect("open");
    sparse.set_len(300 << 20).expect("sparse");
    let look = Look::at(&Wanted::File(kernel.into()), None);
    let told = |line: &[&str]| check(&args(line), &look, &able()).map_err(|f| f.summary());
    assert!(told(&["vmlinuz"]).is_ok());
    let small = told(&["vmlinuz", "--mem", "32M"]).expect_err("too small");
    assert!(
        small.starts_with("the kernel: needs 64 MiB of memory to begin"),
        "{small}"
    );
    let large = told(&["vmlinuz", "--initrd", &initrd]).expect_err("too large");
    assert!(
        large.contains("the sliver has 256 MiB; give it more: --mem"),
        "{large}"
    );
}

#[test]
fn what_is_no_kernel_after_all_is_told_before_the_host_is_judged() {
    let dir = tempfile::tempdir().expect("a directory");
    let cut = &crate::run::kind::tests::bzimage()[..0x2000];
    let look = Look::at(&Wanted::File(file(&dir, "vmlinuz", cut).into()), None);
    let failure = check(&args(&["vmlinuz"]), &look, &around()).expect_err("cut off");
    assert_eq!(failure.status, MONITOR);
    assert!(
        failure.summary().contains("truncated"),
        "{}",
        failure.summary()
    );
}

#[test]
fn flags_of_kernels_beside_a_native_image_are_refused_by_name() {
    let told = refused(
        &["hello", "--append", "x", "--no-acpi", "--ssh-key", KEY],
        Kind::Native,
    );
    assert_eq!(
        told,
        [
            "--append: is for kernels, and hello is a native image",
            "--no-acpi: is for kernels, and hello is a native image",
            "--ssh-key: is for kernels, and hello is a native image",
        ]
    );
    let told = refused(&["--kernel", "./hello"], Kind::Native);
    assert_eq!(
        told,
        ["--kernel ./hello: is a native image; slicectl run ./hello"]
    );
}

#[test]
fn what_is_neither_is_left_to_the_monitor_as_the_flags_would_have_it() {
    let boots = |line: &[&str]| {
        plan(line, Kind::Unknown)
            .expect("fine")
            .devices
            .boots_kernel()
    };
    assert!(!boots(&["some-file"]));
    assert!(boots(&["some-file", "--append", "quiet"]));
}

#[test]
fn a_terminal_gives_a_kernel_every_key_and_a_native_image_none() {
    let around = Surroundings {
        terminal: true,
        ..able()
    };
    let devices = |line: &[&str], kind: Kind| {
        let plan = check(&args(line), &kind.into(), &around).expect("fine");
        (
            plan.devices.console.clone(),
            plan.devices.detach_keys.map(|keys| keys.told()),
        )
    };
    use crate::run::flags::Console;
    let keys = Some("Ctrl-]".to_owned());
    assert_eq!(devices(&["vmlinuz"], Kind::Legacy), (Console::Stdio, keys));
    let silent = devices(&["vmlinuz", "--console", "none"], Kind::Legacy);
    assert_eq!(silent, (Console::Nowhere, None));
    assert_eq!(devices(&["hello"], Kind::Native), (Console::Stdout, None));
    let lines = devices(&["hello", "--console", "stdio"], Kind::Native);
    assert_eq!(lines, (Console::Stdio, None));
    let all = ["hello", "--console", "stdio", "--detach-keys", "ctrl-a,d"];
    assert_eq!(devices(&all, Kind::Native).1.as_deref(), Some("Ctrl-A d"));
}

#[test]
fn a_kernel_on_a_page_table_kvm_is_refused_unless_somebody_has_time() {
    let failure = check(&args(&["vmlinuz"]), &Kind::Legacy.into(), &around()).expect_err("slow");
    assert_eq!(failure.status, MONITOR);
    let told = failure.summary();
    for part in ["page-table based", "integration --bin lab", "--slow"] {
        assert!(told.contains(part), "{part} not in {told}");
    }
    assert!(
        check(
            &args(&["vmlinuz", "--slow"]),
            &Kind::Legacy.into(),
            &around()
        )
        .is_ok()
    );
    assert!(check(&args(&["hello"]), &Kind::Native.into(), &around()).is_ok());
}
