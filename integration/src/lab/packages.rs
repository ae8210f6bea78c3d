//! Debian packages, downloaded once and unpacked, not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A directory of unpacked packages, each in a directory called as its file was.
#[derive(Debug)]
pub struct Packages {
    into: PathBuf,
}

impl Packages {
    /// Packages in `into`, which is made if it is not there.
    pub fn new(into: PathBuf) -> Result<Self> {
        fs::create_dir_all(&into).with_context(|| format!("{}", into.display()))?;
        Ok(Self { into })
    }

    /// Where the files of the package `name` are. Once it has been downloaded, nobody is asked
    /// whether there is a newer one.
    pub fn get(&self, name: &str) -> Result<PathBuf> {
        if let Some(there) = self.unpacked(&format!("{name}_"))? {
            return Ok(there);
        }
        eprintln!("downloading the Debian package {name}");
        self.fetch(name)?;
        let unpacked = self.unpacked(&format!("{name}_"))?;
        unpacked.with_context(|| format!("apt-get downloaded something else than {name}"))
    }

    /// The same for the newest kernel of the family `meta`, a package that only names another.
    pub fn kernel(&self, meta: &str) -> Result<PathBuf> {
        let flavour = meta.trim_start_matches("linux-image-");
        let suffix = format!("-{flavour}_");
        let all = self.all()?;
        let mut there = all.into_iter().filter(|path| {
            let name = file_name(path);
            name.starts_with("linux-image-") && name.contains(&suffix)
        });
        if let Some(there) = there.next_back() {
            return Ok(there);
        }
        let real = real_package(meta).or_else(|_| {
            update()?;
            real_package(meta)
        })?;
        self.get(&real)
    }

    fn unpacked(&self, prefix: &str) -> Result<Option<PathBuf>> {
        let all = self.all()?;
        Ok(all
            .into_iter()
            .rfind(|path| file_name(path).starts_with(prefix)))
    }

    fn all(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.into)?.collect::<Result<Vec<_>, _>>()?;
        let mut all: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
        all.retain(|path| path.is_dir() && !file_name(path).starts_with('.'));
        all.sort();
        Ok(all)
    }

    fn fetch(&self, name: &str) -> Result<()> {
        let scratch = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&self.into)?;
        if download(name, scratch.path()).is_err() {
            update()?;
            download(name, scratch.path())?;
        }
        let file = fs::read_dir(scratch.path())?
            .next()
            .with_context(|| format!("apt-get downloaded nothing for {name}"))??
            .path();
        let fresh = scratch.path().join("files");
        run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&fresh))?;
        let into = self
            .into
            .join(file.file_stem().context("a file has a name")?);
        fs::rename(&fresh, &into).with_context(|| format!("{}", into.display()))
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn download(name: &str, into: &Path) -> Result<()> {
    run(Command::new("apt-get")
        .args(["-qq", "download", name])
        .current_dir(into))
}

/// Asks for the lists of packages again.
fn update() -> Result<()> {
    let update = ["apt-get", "-qq", "update"];
    if rustix::process::geteuid().is_root() {
        run(Command::new(update[0]).args(&update[1..]))
    } else {
        run(Command::new("sudo").args(update))
    }
}

/// The package on which `meta` depends.
fn real_package(meta: &str) -> Result<String> {
    let output = Command::new("apt-cache").args(["depends", meta]).output();
    let output = output.context("apt-cache does not run: the lab is made of Debian's packages")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let depends = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "));
    match depends {
        Some(name) => Ok(name.to_owned()),
        None => bail!("apt-cache knows no dependency of {meta}"),
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
