//! What the tests and benchmarks run, built from this source tree through cargo, once per process.
//!
//! Cargo does nothing when all is up to date, so that a test process pays a fraction of a second.
//! Images go into a target directory of their own: other flags must not rebuild the workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use slicectl::cargo::{IMAGE_RUSTFLAGS, TARGET};

/// The root of the source tree.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace")
}

/// Where cargo builds.
pub fn target_dir() -> PathBuf {
    workspace().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

static GIVEN_SLICEVMM: OnceLock<PathBuf> = OnceLock::new();

/// Takes this as the monitor, where there is neither source tree nor cargo.
///
/// # Panics
/// If there is another one already.
pub fn give_slicevmm(path: PathBuf) {
    let given = GIVEN_SLICEVMM.set(path);
    given.expect("the monitor is given once");
}

/// The monitor, as it is released.
pub fn slicevmm() -> &'static Path {
    if let Some(given) = GIVEN_SLICEVMM.get() {
        return given;
    }
    static BUILT: OnceLock<Executables> = OnceLock::new();
    &built(&BUILT, || {
        cargo_build(&["--release", "-p", "vmm", "--bin", "slicevmm"], None)
    })["slicevmm"]
}

/// The command line tool, as it is released.
pub fn slicectl() -> &'static Path {
    static BUILT: OnceLock<Executables> = OnceLock::new();
    &built(&BUILT, || {
        cargo_build(&["--release", "-p", "slicectl", "--bin", "slicectl"], None)
    })["slicectl"]
}

/// What runs the lab's cases.
pub fn lab_inside() -> &'static Path {
    static BUILT: OnceLock<Executables> = OnceLock::new();
    &built(&BUILT, || {
        cargo_build(&["-p", "integration", "--bin", "lab-inside"], None)
    })["lab-inside"]
}

/// The tool of the lab's Linux guests.
pub fn lab_guest() -> &'static Path {
    static BUILT: OnceLock<Executables> = OnceLock::new();
    &built(&BUILT, || {
        cargo_build(&["--release", "-p", "lab-guest"], None)
    })["lab-guest"]
}

/// The native image of an example slice.
///
/// # Panics
/// If there is no such example or it does not build.
pub fn image(example: &str) -> &'static Path {
    static BUILT: OnceLock<Executables> = OnceLock::new();
    let images = built(&BUILT, || {
        let into = target_dir().join("slice");
        let into = into.to_str().context("the target directory is not UTF-8")?;
        let args = [
            "-p",
            "guest-shim",
            "--examples",
            "--no-default-features",
            "--profile",
            "slice",
            "--target-dir",
            into,
        ];
        cargo_build(&args, Some(IMAGE_RUSTFLAGS))
    });
    named(images, example)
}

/// The same example as an ordinary process, compiled as its image is, except that a panic unwinds.
///
/// # Panics
/// If there is no such example or it does not build.
pub fn desktop(example: &str) -> &'static Path {
    static BUILT: OnceLock<Executables> = OnceLock::new();
    let processes = built(&BUILT, || {
        let unwinding = "profile.slice.panic='unwind'";
        let args = [
            "-p",
            "guest-shim",
            "--examples",
            "--profile",
            "slice",
            "--config",
            unwinding,
        ];
        cargo_build(&args, None)
    });
    named(processes, example)
}

type Executables = BTreeMap<String, PathBuf>;

fn built(
    once: &'static OnceLock<Executables>,
    build: impl FnOnce() -> Result<Executables>,
) -> &'static Executables {
    once.get_or_init(|| build().unwrap_or_else(|error| panic!("{error:#}")))
}

fn named(executables: &'static Executables, name: &str) -> &'static Path {
    executables.get(name).unwrap_or_else(|| {
        let known: Vec<_> = executables.keys().collect();
        panic!("no example is called {name:?}, there are {known:?}")
    })
}

/// A line of what cargo says about its work.
#[derive(Deserialize)]
struct Message {
    target: Option<MessageTarget>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct MessageTarget {
    name: String,
}

fn cargo_build(args: &[&str], rustflags: Option<&[&str]>) -> Result<Executables> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .args(["build", "--locked", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if let Some(flags) = rustflags {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    }
    let output = cargo.output().with_context(|| format!("{cargo:?}"))?;
    ensure!(output.status.success(), "{cargo:?} failed, see above");
    let mut executables = Executables::new();
    for line in output.stdout.split(|&byte| byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Message>(line) else {
            continue;
        };
        if let (Some(target), Some(path)) = (message.target, message.executable) {
            executables.insert(target.name, path);
        }
    }
    if executables.is_empty() {
        bail!("{cargo:?} built no executable");
    }
    Ok(executables)
}
