//! `--kernel` and what goes with it: how a kernel is booted, and what its cloud-init is told.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vmm::spec::{MAX_KEYS, MAX_USER_DATA_BYTES, PublicKey, SliverSpec};

use crate::cli::RunArgs;
use crate::problem::Problem;
use crate::run::kind::Kind;
use crate::text::shell_word;

/// The largest file of public keys that is read: more than as many as a spec may have.
const MAX_KEY_FILE: u64 = (MAX_KEYS as u64) << 13;

/// How a kernel is booted, as the flags describe it; nothing of it for a native image.
#[derive(Debug, Clone, Default)]
pub(super) struct Kernel {
    kernel: Option<Value>,
    seed: Option<Value>,
}

impl Kernel {
    /// Reads the flags for an image of `kind`; what is wrong with them is added to `problems`.
    pub(super) fn read(args: &RunArgs, kind: Kind, problems: &mut Vec<Problem>) -> Self {
        if kind == Kind::Native {
            problems.extend(out_of_place(args));
            return Self::default();
        }
        let given = given(args);
        if kind == Kind::Unknown && given.is_empty() {
            return Self::default();
        }
        for (flag, wanted) in [
            ("--gdb", args.gdb.is_some()),
            ("--core", args.core.is_some()),
        ] {
            if wanted {
                problems.push(Problem::new(
                    flag,
                    "is for native images, and this is a kernel",
                ));
            }
        }
        let mut kernel = json!({ "append": args.append.join(" "), "acpi": !args.no_acpi });
        if let Some(initrd) = &args.initrd {
            kernel["initrd"] = json!(super::absolute(initrd));
        }
        if let Some(protocol) = &args.boot {
            kernel["protocol"] = json!(protocol);
        }
        if let Some(console) = &args.kernel_console {
            kernel["console"] = json!(console);
        }
        Self {
            kernel: Some(kernel),
            seed: seed(args, problems),
        }
    }

    /// Whether it is a kernel that is booted.
    pub(super) fn is_booted(&self) -> bool {
        self.kernel.is_some()
    }

    /// Adds it to a spec.
    pub(super) fn describe(&self, document: &mut Value) {
        for (field, value) in [("kernel", &self.kernel), ("seed", &self.seed)] {
            if let Some(value) = value {
                document[field] = value.clone();
            }
        }
    }
}

/// The flags that only kernels know and that are given.
fn given(args: &RunArgs) -> Vec<&'static str> {
    let flags = [
        ("--kernel", args.kernel.is_some()),
        ("--initrd", args.initrd.is_some()),
        ("--append", !args.append.is_empty()),
        ("--boot", args.boot.is_some()),
        ("--no-acpi", args.no_acpi),
        ("--kernel-console", args.kernel_console.is_some()),
        ("--ssh-key", !args.ssh_key.is_empty()),
        ("--hostname", args.hostname.is_some()),
        ("--user-data", args.user_data.is_some()),
    ];
    let given = flags.into_iter().filter(|(_, given)| *given);
    given.map(|(flag, _)| flag).collect()
}

/// What is said to flags for kernels beside a native image.
fn out_of_place(args: &RunArgs) -> Vec<Problem> {
    if let Some(kernel) = &args.kernel {
        let mend = format!("slicectl run {}", shell_word(Path::new(kernel)));
        let problem = Problem::new(format!("--kernel {kernel}"), "is a native image");
        return vec![problem.mend(mend)];
    }
    let image = args.image.as_deref().unwrap_or_default();
    let problem = |flag| {
        let why = format!("is for kernels, and {image} is a native image");
        Problem::new(flag, why)
    };
    given(args).into_iter().map(problem).collect()
}

fn seed(args: &RunArgs, problems: &mut Vec<Problem>) -> Option<Value> {
    let wanted = !args.ssh_key.is_empty() || args.hostname.is_some() || args.user_data.is_some();
    let mut seed = json!({ "ssh_keys": keys(&args.ssh_key, problems) });
    if let Some(name) = &args.hostname {
        seed["hostname"] = json!(name);
    }
    if let Some(path) = &args.user_data {
        let what = format!("--user-data {}", path.display());
        match read_text(path, MAX_USER_DATA_BYTES as u64) {
            Ok(text) => seed["user_data"] = json!(text),
            Err(why) => problems.push(Problem::new(what, why)),
        }
    }
    wanted.then_some(seed)
}

fn keys(texts: &[String], problems: &mut Vec<Problem>) -> Vec<String> {
    let mut keys = Vec::new();
    for text in texts {
        match keys_of(text) {
            // One that is given twice, as in two files, is no mistake.
            Ok(some) => some.into_iter().for_each(|key| {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }),
            Err(problem) => problems.push(problem),
        }
    }
    keys
}

/// The keys that `text` is, or that are in the file of this name.
fn keys_of(text: &str) -> Result<Vec<String>, Problem> {
    if text.contains("PRIVATE KEY") {
        // Not to be shown.
        return PublicKey::parse(text)
            .map(|_| Vec::new())
            .map_err(|why| Problem::new("--ssh-key", why));
    }
    let what = || format!("--ssh-key {text}");
    if text.trim().contains(' ') && !Path::new(text).exists() {
        let key = PublicKey::parse(text).map_err(|why| Problem::new(what(), why))?;
        return Ok(vec![key.to_string()]);
    }
    let path = PathBuf::from(text);
    let content = read_text(&path, MAX_KEY_FILE).map_err(|why| Problem::new(what(), why))?;
    if content.contains("PRIVATE KEY") {
        let public = format!("{text}.pub");
        let problem = Problem::new(what(), "is a private key, which stays where it is");
        return Err(match Path::new(&public).is_file() {
            true => problem.mend(format!("--ssh-key {}", shell_word(Path::new(&public)))),
            false => problem.mend(format!(
                "ssh-keygen -y -f {} tells the public one",
                shell_word(&path)
            )),
        });
    }
    let lines = content.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Result<Vec<String>, String> = lines
        .map(|line| PublicKey::parse(line).map(|key| key.to_string()))
        .collect();
    match keys {
        Ok(keys) if keys.is_empty() => Err(Problem::new(what(), "has no key in it")),
        Ok(keys) => Ok(keys),
        Err(why) => Err(Problem::new(what(), format!("holds no public keys: {why}"))),
    }
}

/// The text of a file of at most `max` bytes.
fn read_text(path: &Path, max: u64) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > max {
        return Err(format!("has more than {max} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not text (UTF-8)".to_owned())
}

/// Why a file cannot be this sliver's initial RAM disk.
pub(super) fn objection(spec: &SliverSpec) -> Option<Problem> {
    let path = spec.kernel()?.initrd()?;
    let problem = |why: String| Problem::new(format!("--initrd {}", path.display()), why);
    let unreadable = |error: io::Error| problem(format!("cannot be read: {error}"));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return Some(unreadable(error)),
    };
    if !metadata.is_file() {
        return Some(problem("is not a regular file".to_owned()));
    }
    if let Err(error) = File::open(path) {
        return Some(unreadable(error));
    }
    (metadata.len() == 0)
        .then(|| problem("is empty".to_owned()).mend("make it again, or leave it out"))
}

/// The flag that a field of `kernel` or `seed` comes from.
pub(super) fn flag_of(field: &str) -> Option<&'static str> {
    Some(match field.split('[').next().unwrap_or(field) {
        "kernel.initrd" => "--initrd",
        "kernel.append" => "--append",
        "kernel.protocol" => "--boot",
        "kernel.console" => "--kernel-console",
        "seed.ssh_keys" => "--ssh-key",
        "seed.hostname" => "--hostname",
        "seed.user_data" => "--user-data",
        _ => return None,
    })
}
