//! What a sliver is made of, as JSON, checked once into types that hold only valid values.
//!
//! [`SliverSpec::parse`] reports every mistake of a document at once, each with the path of the
//! field. What it returns needs no further checks, except against the host (is there that much
//! memory?) and the image (does it fit?), which the monitor makes before it creates anything.
//!
//! ```json
//! {
//!   "version": 1,
//!   "name": "hello-1",
//!   "slice": "local_demo",
//!   "owner": "Ada Lovelace",
//!   "contact": "ada@example.org",
//!   "image": "/var/lib/slices/hello",
//!   "memory_mib": 64,
//!   "vcpus": 1,
//!   "args": ["--greeting", "hi"],
//!   "time_limit_ms": 10000,
//!   "start_paused": false
//! }
//! ```
//!
//! `version`, `name`, `slice`, `owner`, `contact` and `image` are required.

mod fields;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use slice_abi::info::{MAX_ARGS_BYTES, NAME_BYTES};
use slice_abi::layout::{MAX_VCPUS, RAM_BASE, RAM_LIMIT};

use fields::Fields;

/// The version of the document that this code reads.
pub const SPEC_VERSION: u64 = 1;

/// Memory of a native sliver whose spec names none (the PlanetLab default for a legacy one is 256).
pub const DEFAULT_MEMORY_MIB: u64 = 64;

/// The most memory a sliver can have, in MiB.
pub const MAX_MEMORY_MIB: u64 = (RAM_LIMIT - RAM_BASE) >> 20;

/// The largest document that is looked at.
pub const MAX_SPEC_BYTES: usize = 1 << 20;

/// A sliver, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SliverSpec {
    version: u64,
    name: SliverName,
    slice: SliceName,
    owner: String,
    contact: String,
    image: PathBuf,
    memory_mib: u64,
    vcpus: usize,
    args: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_limit_ms: Option<u64>,
    start_paused: bool,
}

/// Name of a sliver: 1 to 63 of `a-z A-Z 0-9 . _ -`, beginning with a letter or digit, so that it
/// can be a file name anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SliverName(String);

/// Name of a slice, PlanetLab's form: `site_name`, matching `^[a-z0-9.]+_[a-zA-Z0-9_.]+$`, at most
/// 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SliceName(String);

/// One mistake in a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Path of the field, or `spec` for the document as a whole.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

/// All mistakes of a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SpecError {
    mistakes: Vec<Mistake>,
}

impl SpecError {
    /// The mistakes, at least one, in the order of the document's description.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid spec: ")?;
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}: {}", mistake.field, mistake.problem)?;
        }
        Ok(())
    }
}

impl SliverSpec {
    /// Reads and checks a document.
    pub fn parse(text: &[u8]) -> Result<Self, SpecError> {
        let mut fields = Fields::parse(text)?;
        match fields.required_u64("version") {
            Some(SPEC_VERSION) | None => {}
            Some(other) => fields.mistake(
                "version",
                format!("is {other}, this monitor reads version {SPEC_VERSION}"),
            ),
        }
        let name = fields.required_parsed("name", SliverName::parse);
        let slice = fields.required_parsed("slice", SliceName::parse);
        let owner = fields.required_parsed("owner", |s| one_line(s, 128));
        let contact = fields.required_parsed("contact", |s| one_line(s, 256));
        let image = fields.required_parsed("image", image_path);
        let memory_mib = fields.ranged_u64("memory_mib", 1, MAX_MEMORY_MIB, DEFAULT_MEMORY_MIB);
        let vcpus = fields.ranged_u64("vcpus", 1, MAX_VCPUS as u64, 1) as usize;
        let args = fields.strings("args");
        if let Err(problem) = check_args(&args) {
            fields.mistake("args", problem);
        }
        let time_limit_ms = fields.optional_ranged_u64("time_limit_ms", 1, MAX_TIME_LIMIT_MS);
        let start_paused = fields.bool("start_paused", false);
        let mistakes = fields.finish();
        match (name, slice, owner, contact, image) {
            (Some(name), Some(slice), Some(owner), Some(contact), Some(image))
                if mistakes.is_empty() =>
            {
                Ok(Self {
                    version: SPEC_VERSION,
                    name,
                    slice,
                    owner,
                    contact,
                    image,
                    memory_mib,
                    vcpus,
                    args,
                    time_limit_ms,
                    start_paused,
                })
            }
            _ => Err(SpecError { mistakes }),
        }
    }

    /// The document, as [`parse`](Self::parse) reads it.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a spec has only string keys")
    }

    /// Name of the sliver, unique on its node.
    pub fn name(&self) -> &str {
        &self.name.0
    }

    /// Name of the slice.
    pub fn slice(&self) -> &str {
        &self.slice.0
    }

    /// Who answers for the slice.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// How to reach the owner.
    pub fn contact(&self) -> &str {
        &self.contact
    }

    /// The image file.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Memory, in bytes; a multiple of 1 MiB.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_mib << 20
    }

    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// Arguments of the guest.
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// How long it may run, if that is limited.
    pub fn time_limit(&self) -> Option<Duration> {
        self.time_limit_ms.map(Duration::from_millis)
    }

    /// Whether it waits for a `resume` before its first instruction.
    pub fn start_paused(&self) -> bool {
        self.start_paused
    }
}

/// A year: beyond it, arithmetic on deadlines would need care for no use.
const MAX_TIME_LIMIT_MS: u64 = 365 * 86_400 * 1000;

impl SliverName {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let valid = text.len() < NAME_BYTES
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a sliver name: 1 to {} of a-z A-Z 0-9 . _ -, beginning with a \
                 letter or digit",
                NAME_BYTES - 1
            ))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SliceName {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let valid = text.len() < NAME_BYTES
            && text.split_once('_').is_some_and(|(site, rest)| {
                !site.is_empty()
                    && site
                        .chars()
                        .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.'))
                    && !rest.is_empty()
                    && rest
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'))
            });
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a slice name: SITE_NAME, SITE of a-z 0-9 . and NAME of \
                 a-z A-Z 0-9 . _, at most {} bytes",
                NAME_BYTES - 1
            ))
        }
    }
}

fn one_line(text: &str, max: usize) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("is empty".to_owned())
    } else if text.len() > max {
        Err(format!("has {} bytes, {max} are allowed", text.len()))
    } else if text.chars().any(char::is_control) {
        Err("contains a control character".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn image_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        Err("is empty".to_owned())
    } else if text.contains('\0') {
        Err("contains a NUL character".to_owned())
    } else {
        Ok(PathBuf::from(text))
    }
}

fn check_args(args: &[String]) -> Result<(), String> {
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err("an argument contains a NUL character".to_owned());
    }
    let bytes: usize = args.iter().map(|arg| arg.len() + 1).sum();
    if bytes > MAX_ARGS_BYTES {
        return Err(format!(
            "need {bytes} bytes with their terminators, {MAX_ARGS_BYTES} are available"
        ));
    }
    Ok(())
}
