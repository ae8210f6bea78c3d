//! The image of the guest that misbehaves, compiled by rustc on the bare ABI.
//!
//! It uses no runtime, so that nothing corrects it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use slicectl::cargo::IMAGE_RUSTFLAGS;

use crate::artifacts::{target_dir, workspace};

/// The guest of `guests/bare`, which takes what to do as its argument.
///
/// # Panics
/// If it does not compile.
pub fn bare() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("bare").unwrap_or_else(|error| panic!("{error:#}")))
}

fn build(name: &str) -> Result<PathBuf> {
    let root = workspace();
    let into = target_dir().join("guests");
    fs::create_dir_all(&into).with_context(|| format!("{}", into.display()))?;
    // Built apart and moved into place: another test process may be running the old one.
    let scratch = tempfile::tempdir_in(&into)?;
    let abi = scratch.path().join("libslice_abi.rlib");
    rustc(
        Command::new("rustc")
            .args(["--crate-name", "slice_abi", "--crate-type", "rlib", "-o"])
            .arg(&abi)
            .arg(root.join("guest-shim/abi/src/lib.rs")),
    )?;
    let fresh = scratch.path().join(name);
    rustc(
        Command::new("rustc")
            .args(["--crate-name", name, "--crate-type", "bin", "-o"])
            .arg(&fresh)
            .arg("--extern")
            .arg(format!("slice_abi={}", abi.display()))
            .arg(root.join("integration/guests").join(name).join("main.rs")),
    )?;
    let image = into.join(name);
    fs::rename(&fresh, &image).with_context(|| format!("{}", image.display()))?;
    Ok(image)
}

fn rustc(command: &mut Command) -> Result<()> {
    command
        .args(["--edition", "2024", "-O", "-Cpanic=abort"])
        .args(IMAGE_RUSTFLAGS);
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} failed, see above");
    Ok(())
}
