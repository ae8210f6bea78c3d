//! Runs cargo: progress and diagnostics go to stderr as cargo prints them, the path of what was
//! built comes back, and nothing reaches stdout.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::problem::Problem;
use crate::signals::{self, EndSignals};

/// The one target that slices and monitors are built for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What makes an executable a native image: static, where a sliver's memory begins, each segment
/// on pages of its own with one permission, and with frame pointers for backtraces.
pub const IMAGE_RUSTFLAGS: &[&str] = &[
    // Lets a package leave out of its images' builds what only its tests need.
    "--cfg=slice_image",
    "-Crelocation-model=static",
    "-Cforce-frame-pointers=yes",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--image-base=0x200000",
    "-Clink-arg=-Wl,-z,separate-code",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
    "-Clink-arg=-Wl,-z,norelro",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,--gc-sections",
];

/// The profile of images, for packages that do not have it in their Cargo.toml. Their symbols stay,
/// whatever the package does with those of its releases: a fault's backtrace is told from them.
const IMAGE_PROFILE: &[&str] = &[
    "profile.slice.inherits='release'",
    "profile.slice.panic='abort'",
    "profile.slice.lto='fat'",
    "profile.slice.codegen-units=1",
    "profile.slice.debug='line-tables-only'",
    "profile.slice.strip='none'",
];

/// What of a package is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Product {
    /// A binary.
    Bin(String),
    /// An example.
    Example(String),
}

impl Product {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Bin(name) | Self::Example(name) => name,
        }
    }

    /// What cargo calls this kind of target.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bin(_) => "bin",
            Self::Example(_) => "example",
        }
    }
}

/// One run of `cargo build`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    manifest: PathBuf,
    product: Product,
    arguments: Vec<String>,
    rustflags: Option<String>,
}

impl Build {
    /// An ordinary release build, as the package's workspace configures it.
    pub fn release(manifest: PathBuf, product: Product) -> Self {
        Self {
            manifest,
            product,
            arguments: ["--release", "--target", TARGET]
                .map(str::to_owned)
                .to_vec(),
            rustflags: None,
        }
    }

    /// A native image, in a target directory of its own: its flags differ from everything else's.
    pub fn image(manifest: PathBuf, product: Product, features: &[String], target: &Path) -> Self {
        let mut arguments: Vec<String> = ["--no-default-features", "--profile", "slice"]
            .map(str::to_owned)
            .to_vec();
        for setting in IMAGE_PROFILE {
            arguments.extend(["--config".to_owned(), (*setting).to_owned()]);
        }
        arguments.extend(["--target".to_owned(), TARGET.to_owned()]);
        arguments.extend(["--target-dir".to_owned(), target.display().to_string()]);
        if !features.is_empty() {
            arguments.extend(["--features".to_owned(), features.join(",")]);
        }
        Self {
            manifest,
            product,
            arguments,
            rustflags: Some(IMAGE_RUSTFLAGS.join("\u{1f}")),
        }
    }

    /// Everything that decides what the build makes, as text.
    pub fn recipe(&self) -> String {
        format!(
            "{} {} {} {}",
            self.product.kind(),
            self.product.name(),
            self.arguments.join(" "),
            self.rustflags.as_deref().unwrap_or_default()
        )
    }

    /// Runs cargo; the path of the executable.
    pub fn run(&self) -> Result<PathBuf, Problem> {
        let what = || format!("building {}", self.product.name());
        let mut command = cargo(&self.manifest);
        command
            .args(["build", "--message-format", "json-render-diagnostics"])
            .arg("--manifest-path")
            .arg(&self.manifest)
            .arg(format!("--{}", self.product.kind()))
            .arg(self.product.name())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(rustflags) = &self.rustflags {
            command.env("CARGO_ENCODED_RUSTFLAGS", rustflags);
        }
        let lost = |error: io::Error| Problem::new(what(), format!("cargo is lost: {error}"));
        let signals = EndSignals::catch().map_err(lost)?;
        let mut child = command.spawn().map_err(|error| no_cargo(&error))?;
        let told = child
            .stdout
            .take()
            .and_then(|stdout| hear(stdout, &signals));
        if told.is_none() {
            // At a terminal it has heard of it already.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        }
        let status = child.wait().map_err(lost)?;
        let Some(told) = told else {
            let signal = signals::arrived().map(signals::signal_name);
            let signal = signal.unwrap_or_default();
            return Err(Problem::new(what(), format!("stopped by {signal}")));
        };
        let mut executables = told
            .lines()
            .filter_map(|line| executable_in(line, &self.product));
        match executables.next_back() {
            Some(path) if status.success() => Ok(path),
            _ if status.success() => Err(Problem::new(what(), "cargo has made no executable")),
            _ => Err(Problem::new(
                what(),
                format!("cargo failed ({status}), its messages are above"),
            )),
        }
    }
}

/// All that cargo has to tell, or nothing if a signal comes before it is done.
fn hear(mut stdout: ChildStdout, signals: &EndSignals) -> Option<String> {
    let mut told = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN),
        ];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[0].revents().is_empty() {
            return None;
        }
        match stdout.read(&mut chunk) {
            Ok(len @ 1..) => told.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            _ => return Some(String::from_utf8_lossy(&told).into_owned()),
        }
    }
}

/// What `cargo metadata` tells about one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its binaries and examples.
    pub products: Vec<Product>,
    /// Its features.
    pub features: Vec<String>,
    /// Where its workspace puts what it builds.
    pub target_directory: PathBuf,
}

/// Asks cargo about the package with this manifest.
pub fn package(manifest: &Path) -> Result<Package, Problem> {
    let what = || manifest.display().to_string();
    let output = cargo(manifest)
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
        ])
        .arg(manifest)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| no_cargo(&error))?;
    if !output.status.success() {
        return Err(Problem::new(
            what(),
            "cargo cannot read it, its messages are above",
        ));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|error| Problem::new(what(), format!("cargo metadata: {error}")))?;
    let found = metadata
        .packages
        .into_iter()
        .find(|package| package.manifest_path == manifest)
        .ok_or_else(|| {
            Problem::new(what(), "is a workspace without a package of its own")
                .mend("name the directory of one of its packages")
        })?;
    let products = found.targets.iter().filter_map(TargetInfo::product);
    Ok(Package {
        name: found.name,
        products: products.collect(),
        features: found.features.into_keys().collect(),
        target_directory: metadata.target_directory,
    })
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<PackageInfo>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct PackageInfo {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<TargetInfo>,
    features: std::collections::BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct TargetInfo {
    name: String,
    kind: Vec<String>,
}

impl TargetInfo {
    fn product(&self) -> Option<Product> {
        match self.kind.first().map(String::as_str) {
            Some("bin") => Some(Product::Bin(self.name.clone())),
            Some("example") => Some(Product::Example(self.name.clone())),
            _ => None,
        }
    }
}

/// The executable in one message of cargo's, if it tells of this product.
fn executable_in(line: &str, product: &Product) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        target: TargetInfo,
        executable: Option<PathBuf>,
    }
    let message: Message = serde_json::from_str(line).ok()?;
    (message.target.product().as_ref() == Some(product))
        .then_some(message.executable)
        .flatten()
}

/// The cargo that runs this program, or else the one in the path, without the variables that
/// describe the package being run: they are not those of what is to be built. It runs beside the
/// manifest, because it looks for its configuration from where it runs.
fn cargo(manifest: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    if let Some(dir) = manifest.parent() {
        command.current_dir(dir);
    }
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        command.env(
            "CARGO_TARGET_DIR",
            std::path::absolute(&target).unwrap_or(target.into()),
        );
    }
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text.starts_with("CARGO_BIN_")
            || text == "CARGO_CRATE_NAME"
            || text == "CARGO_PRIMARY_PACKAGE"
        {
            command.env_remove(&name);
        }
    }
    command
}

fn no_cargo(error: &std::io::Error) -> Problem {
    Problem::new("cargo", format!("cannot be started: {error}"))
        .mend("install Rust from your distribution or with rustup, or add --no-build to run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_taken_from_the_message_about_the_product() {
        let hello = Product::Example("hello".to_owned());
        let line = r#"{"reason":"compiler-artifact","target":{"name":"hello","kind":["example"]},"executable":"/t/hello"}"#;
        assert_eq!(executable_in(line, &hello), Some(PathBuf::from("/t/hello")));
        assert_eq!(executable_in(line, &Product::Bin("hello".to_owned())), None);
        assert_eq!(
            executable_in(&line.replace("\"/t/hello\"", "null"), &hello),
            None
        );
        assert_eq!(executable_in("not json", &hello), None);
        assert_eq!(
            executable_in(r#"{"reason":"build-finished","success":true}"#, &hello),
            None
        );
    }

    #[test]
    fn an_image_is_built_without_default_features_and_with_its_own_flags() {
        let product = Product::Bin("server".to_owned());
        let features = ["a".to_owned(), "b".to_owned()];
        let build = Build::image(
            "Cargo.toml".into(),
            product,
            &features,
            Path::new("t/slice"),
        );
        let recipe = build.recipe();
        for part in [
            "--no-default-features",
            "--profile slice",
            "--target-dir t/slice",
            "--features a,b",
            "--image-base=0x200000",
        ] {
            assert!(recipe.contains(part), "{part} is not in {recipe}");
        }
    }
}
