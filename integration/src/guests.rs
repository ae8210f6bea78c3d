//! The images of the guests that misbehave, compiled by rustc on the bare machine.
//!
//! They use no runtime, so that nothing corrects them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use slicectl::cargo::IMAGE_RUSTFLAGS;

use crate::artifacts::{target_dir, workspace};

/// No SSE in ring 0: a KVM without VMX or SVM emulates that ring, and knows no arithmetic of SSE.
/// The compiler warns that functions could not pass floats then; there are none.
const METAL_RUSTFLAGS: &[&str] = &["-Ctarget-feature=-sse,-sse2"];

/// The guest of `guests/bare`, a slice, which takes what to do as its argument.
///
/// # Panics
/// If it does not compile.
pub fn bare() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("bare", &[]).unwrap_or_else(|error| panic!("{error:#}")))
}

/// The guest of `guests/metal`, a kernel to be entered as PVH says, which takes what to do from its
/// command line, after `--`. It finds its devices there, too.
///
/// # Panics
/// If it does not compile.
pub fn metal() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| build("metal", METAL_RUSTFLAGS).unwrap_or_else(|error| panic!("{error:#}")))
}

fn build(name: &str, flags: &[&str]) -> Result<PathBuf> {
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
            .arg(root.join("guest-shim/abi/src/lib.rs"))
            .args(flags),
    )?;
    let fresh = scratch.path().join(name);
    rustc(
        Command::new("rustc")
            .args(["--crate-name", name, "--crate-type", "bin", "-o"])
            .arg(&fresh)
            .arg("--extern")
            .arg(format!("slice_abi={}", abi.display()))
            .arg(root.join("integration/guests").join(name).join("main.rs"))
            .args(flags),
    )?;
    let image = into.join(name);
    fs::rename(&fresh, &image).with_context(|| format!("{}", image.display()))?;
    Ok(image)
}

/// Compiles; what the compiler says is told if it fails.
fn rustc(command: &mut Command) -> Result<()> {
    command
        .args(["--edition", "2024", "-O", "-Cpanic=abort"])
        .args(IMAGE_RUSTFLAGS);
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed:\n{said}");
    Ok(())
}
