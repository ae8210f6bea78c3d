//! Makes the files of the lab, and keeps those that take long between runs.
//!
//! They lie in `lab` of cargo's target directory; what depends on a package has its version in the
//! name. Removing the directory makes everything anew, from the newest packages.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cpio::Archive;
use super::inside;
use super::modules::{self, Modules};
use super::packages::Packages;
use super::part::Part;
use super::vmlinux;
use crate::artifacts;
use crate::guests;

/// What the emulated host's kernel is given, and what that depends on.
const HOST_MODULES: &[&str] = &["kvm-amd", "tun"];

/// What the guests' kernel is given, and what that depends on.
const GUEST_MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "vmw_vsock_virtio_transport",
    "virtio_console",
    "virtio_balloon",
    "virtio-rng",
    "button",
    "evdev",
    "vfat",
    "nls_cp437",
    "nls_ascii",
];

/// Size of the root disk.
const ROOT_DISK: &str = "16m";

/// What an ssh server and its client are made of: packages, and what is taken of each.
const SSH: &[(&str, &[&str])] = &[
    (
        "dropbear-bin",
        &[
            "usr/sbin/dropbear",
            "usr/bin/dbclient",
            "usr/bin/dropbearkey",
        ],
    ),
    (
        "libc6",
        &[
            "lib64/ld-linux-x86-64.so.2",
            "lib/x86_64-linux-gnu/libc.so.6",
        ],
    ),
    ("libcrypt1", &["lib/x86_64-linux-gnu/libcrypt.so.1"]),
    ("libgmp10", &["usr/lib/x86_64-linux-gnu/libgmp.so.10"]),
    (
        "libtomcrypt1",
        &["usr/lib/x86_64-linux-gnu/libtomcrypt.so.1"],
    ),
    ("libtommath1", &["usr/lib/x86_64-linux-gnu/libtommath.so.1"]),
    ("zlib1g", &["lib/x86_64-linux-gnu/libz.so.1"]),
];

/// Firmware that QEMU's microvm machine loads.
const QEMU_FIRMWARE: &[&str] = &["bios-microvm.bin", "linuxboot_dma.bin", "pvh.bin"];

/// Where Debian has it.
const FIRMWARE_DIRECTORIES: &[&str] = &["/usr/share/qemu", "/usr/share/seabios"];

/// The program of QEMU.
pub const QEMU: &str = "qemu-system-x86_64";

/// Everything the lab is made of.
#[derive(Debug)]
pub struct Assembly {
    directory: PathBuf,
    packages: Packages,
    kernel: PathBuf,
    busybox: PathBuf,
    modules: Modules,
}

impl Assembly {
    /// Installs what is missing, downloads the packages, and makes these parts and what every case
    /// needs.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Result<Self> {
        let directory = artifacts::target_dir().join("lab");
        fs::create_dir_all(directory.join("parts"))?;
        // Until all is made: two processes would write the same files.
        let _alone = lock(&directory.join("lock"))?;
        let setup = artifacts::workspace().join("resources/setup.sh");
        run(Command::new(setup).arg("lab"))?;
        let packages = Packages::new(directory.join("packages"))?;
        let kernel = packages.kernel("linux-image-cloud-amd64")?;
        let busybox = packages.get("busybox-static")?.join("bin/busybox");
        let modules = modules::find(&kernel.join("lib/modules"))?;
        let assembly = Self {
            directory,
            packages,
            kernel,
            busybox,
            modules,
        };
        let mut wanted = vec![Part::Inside, Part::Monitor, Part::Busybox];
        wanted.extend(parts);
        wanted.sort();
        wanted.dedup();
        for part in wanted {
            assembly.ensure(part)?;
        }
        Ok(assembly)
    }

    /// Where all of it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of the parts.
    pub fn parts(&self) -> PathBuf {
        self.directory.join("parts")
    }

    /// The kernel of the emulated host, and of the guests.
    pub fn bzimage(&self) -> Result<PathBuf> {
        let boot = self.kernel.join("boot");
        let files = fs::read_dir(&boot)?.collect::<Result<Vec<_>, _>>()?;
        let mut paths = files.iter().map(fs::DirEntry::path);
        let is_kernel = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("vmlinuz-"))
        };
        let found = paths.find(is_kernel);
        found.with_context(|| format!("there is no kernel in {}", boot.display()))
    }

    /// Where a part is, once it is made.
    pub fn path(&self, part: Part) -> PathBuf {
        self.parts().join(part.file())
    }

    /// Makes the part if it is not there yet.
    fn ensure(&self, part: Part) -> Result<()> {
        match part {
            Part::BzImage => {
                self.make_once(part, &self.kernel, |into| copy(&self.bzimage()?, into))
            }
            Part::Vmlinux => self.make_once(part, &self.kernel, |into| {
                let bzimage = self.bzimage()?;
                let kernel = vmlinux::extract(&fs::read(&bzimage)?);
                let kernel = kernel.with_context(|| format!("{}", bzimage.display()))?;
                Ok(fs::write(into, kernel)?)
            }),
            Part::Inside => self.make(part, |_, into| strip(artifacts::lab_inside(), into)),
            Part::Monitor => self.make(part, |_, into| copy(artifacts::slicevmm(), into)),
            Part::Busybox => self.make(part, |_, into| copy(&self.busybox, into)),
            Part::Initrd => self.make(part, Self::initrd),
            Part::RootDisk => self.make(part, Self::root_disk),
            Part::Memtest => {
                let package = self.packages.get("memtest86+")?;
                let image = package.join("boot/memtest86+x64.bin");
                self.make_once(part, &package, |into| copy(&image, into))
            }
            Part::Spin => self.make(part, |_, into| copy(artifacts::image("spin"), into)),
            Part::Ssh => self.make(part, Self::ssh),
            Part::Metal => self.make(part, |_, into| copy(guests::metal(), into)),
            Part::Qemu => self.make(part, Self::qemu),
        }
    }

    /// Writes the initial file system of the emulated host, with these parts in it.
    pub fn write_initrd(&self, into: &Path, parts: &[Part]) -> Result<()> {
        let mut archive = Archive::new(BufWriter::new(File::create(into)?));
        archive.copy("init", &self.path(Part::Inside))?;
        self.add_modules(&mut archive, HOST_MODULES)?;
        let always = [Part::Monitor, Part::Busybox];
        let files = always.iter().chain(parts);
        for part in files.filter(|part| **part != Part::Qemu) {
            let file = format!("{}/{}", inside::PARTS, part.file());
            archive.copy(&file, &self.path(*part))?;
        }
        let mut file = archive.finish()?;
        if parts.contains(&Part::Qemu) {
            std::io::copy(&mut File::open(self.path(Part::Qemu))?, &mut file)?;
        }
        Ok(())
    }

    /// Makes a part anew.
    fn make(&self, part: Part, make: impl FnOnce(&Self, &Path) -> Result<()>) -> Result<()> {
        let into = self.path(part);
        let fresh = into.with_extension("new");
        make(self, &fresh).with_context(|| format!("making {}", into.display()))?;
        Ok(fs::rename(fresh, into)?)
    }

    /// Makes a part of what `package` has, once.
    fn make_once(
        &self,
        part: Part,
        package: &Path,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let into = self.path(part);
        let version = package.file_name().context("a package has a name")?;
        let known = into.with_extension("version");
        let current = fs::read(&known).is_ok_and(|of| of == version.as_encoded_bytes());
        if !current || !into.is_file() {
            self.make(part, |_, fresh| make(fresh))?;
            fs::write(known, version.as_encoded_bytes())?;
        }
        Ok(())
    }

    fn initrd(&self, into: &Path) -> Result<()> {
        let mut archive = Archive::new(BufWriter::new(File::create(into)?));
        let init = artifacts::workspace().join("integration/guests/linux/init");
        archive.copy("init", &init)?;
        archive.copy("bin/busybox", &self.busybox)?;
        archive.copy("bin/lab-guest", artifacts::lab_guest())?;
        let applets = Command::new(&self.busybox).arg("--list").output()?.stdout;
        for applet in String::from_utf8(applets)?.lines() {
            if applet != "busybox" {
                archive.link(&format!("bin/{applet}"), "busybox")?;
            }
        }
        for directory in ["proc", "sys", "dev", "tmp"] {
            archive.directory(directory)?;
        }
        self.add_modules(&mut archive, GUEST_MODULES)?;
        archive.finish()?;
        Ok(())
    }

    /// Adds modules, and their order.
    fn add_modules<W: std::io::Write>(
        &self,
        archive: &mut Archive<W>,
        names: &[&str],
    ) -> Result<()> {
        let mut order = String::new();
        for module in modules::with_dependencies(&self.modules, names)? {
            archive.file(
                &format!("modules/{}.ko", module.name),
                0o644,
                &module.content,
            )?;
            order.push_str(&module.name);
            order.push('\n');
        }
        Ok(archive.file("modules/order", 0o644, order.as_bytes())?)
    }

    fn root_disk(&self, into: &Path) -> Result<()> {
        let tree = tempfile::tempdir_in(&self.directory)?;
        let path = |name: &str| tree.path().join(name);
        for directory in ["bin", "sbin", "etc", "proc", "sys", "dev", "tmp"] {
            fs::create_dir(path(directory))?;
        }
        fs::copy(&self.busybox, path("bin/busybox"))?;
        for (link, target) in [
            ("bin/sh", "busybox"),
            ("bin/login", "busybox"),
            ("sbin/init", "../bin/busybox"),
        ] {
            std::os::unix::fs::symlink(target, path(link))?;
        }
        fs::write(path("etc/hostname"), "lab\n")?;
        fs::write(path("etc/passwd"), "root::0:0:root:/:/bin/sh\n")?;
        let inittab = "::sysinit:/bin/busybox mount -t proc none /proc\n\
                       ::sysinit:/bin/busybox mount -t devtmpfs none /dev\n\
                       ::sysinit:/bin/busybox hostname -F /etc/hostname\n\
                       ttyS0::respawn:/bin/busybox getty -L ttyS0 115200 vt100\n";
        fs::write(path("etc/inittab"), inittab)?;
        // It may be there from a run that was ended.
        let _ = fs::remove_file(into);
        // Not everybody's path leads to it.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        run(Command::new("mke2fs")
            .env("PATH", path)
            .args(["-q", "-t", "ext4", "-d"])
            .arg(tree.path())
            .arg(into)
            .arg(ROOT_DISK))
    }

    fn ssh(&self, into: &Path) -> Result<()> {
        let mut archive = Archive::new(BufWriter::new(File::create(into)?));
        for (package, files) in SSH {
            let from = self.packages.get(package)?;
            for file in *files {
                let from = from.join(file);
                let added = archive.copy(file, &from);
                added.with_context(|| format!("{}", from.display()))?;
            }
        }
        archive.finish()?;
        Ok(())
    }

    fn qemu(&self, into: &Path) -> Result<()> {
        let program = Path::new("/usr/bin").join(QEMU);
        let mut archive = Archive::new(BufWriter::new(File::create(into)?));
        archive.copy(&format!("usr/bin/{QEMU}"), &program)?;
        let output = Command::new("ldd").arg(&program).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            archive.copy(library, Path::new(library))?;
        }
        for name in QEMU_FIRMWARE {
            let mut places = FIRMWARE_DIRECTORIES
                .iter()
                .map(|dir| Path::new(dir).join(name));
            let from = places.find(|path| path.is_file());
            let from = from.with_context(|| format!("QEMU's {name} is not there"))?;
            archive.copy(&format!("usr/share/qemu/{name}"), &from)?;
        }
        archive.finish()?;
        Ok(())
    }
}

/// Waits until no other process holds the lock.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("{}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting until another process has done with the lab");
        file.lock()?;
    }
    Ok(file)
}

/// A copy without symbols, which are most of a program of the development profile.
fn strip(program: &Path, into: &Path) -> Result<()> {
    run(Command::new("strip").arg("-o").arg(into).arg(program))
}

fn copy(from: &Path, into: &Path) -> Result<()> {
    fs::copy(from, into).with_context(|| format!("{}", from.display()))?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", told.trim());
    Ok(())
}
