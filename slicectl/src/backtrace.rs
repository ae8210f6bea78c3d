//! Backtraces of guests: addresses become functions, files and lines, from the image's own
//! symbols.
//!
//! An image is not trusted, and its debug information is a large, recursive format. It is
//! therefore read in a process of its own, with little memory and processor time: whatever an
//! image holds, the worst it can do is to leave the backtrace at bare addresses.

mod lookup;
#[cfg(test)]
mod made_elf;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::cli::SymboliseArgs;

/// The hidden command that runs [`look_up`] in the other process.
pub const COMMAND: &str = "symbolise-backtrace";

/// The most frames that are shown: a guest can make up any number.
const MAX_FRAMES: usize = 64;

/// The longest answer that is read from the other process.
const MAX_ANSWER: u64 = 4 << 20;

/// Processor seconds and bytes of memory for the other process.
const CPU_SECONDS: u64 = 5;
const MEMORY: u64 = 1 << 30;

/// One address of a backtrace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The address.
    pub address: u64,
    /// The functions it is in, an inlined one before the one it was inlined into; empty if the
    /// image does not tell.
    pub calls: Vec<Call>,
}

/// A function that an address is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its name, demangled.
    pub function: Option<String>,
    /// `file:line:column`.
    pub location: Option<String>,
}

/// Finds the functions at `addresses`, of which the first is that of an instruction and the
/// others are return addresses.
pub fn symbolise(image: &Path, addresses: &[u64]) -> Vec<Frame> {
    symbolise_with(Path::new("/proc/self/exe"), image, addresses)
}

/// The same with `program` as the slicectl that looks them up.
pub fn symbolise_with(program: &Path, image: &Path, addresses: &[u64]) -> Vec<Frame> {
    let addresses = &addresses[..addresses.len().min(MAX_FRAMES)];
    let mut frames = ask(program, image, addresses).unwrap_or_default();
    let ours = frames.iter().map(|frame| frame.address);
    if !ours.eq(addresses.iter().copied()) {
        let bare = |&address| Frame {
            address,
            calls: Vec::new(),
        };
        frames = addresses.iter().map(bare).collect();
    }
    frames
}

fn ask(program: &Path, image: &Path, addresses: &[u64]) -> Option<Vec<Frame>> {
    if addresses.is_empty() {
        return None;
    }
    let mut child = Command::new(program)
        .arg(COMMAND)
        .arg(image)
        .args(addresses.iter().map(u64::to_string))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = stdout.take(MAX_ANSWER).read_to_end(&mut answer);
    }
    child.wait().ok()?;
    serde_json::from_slice(&answer).ok()
}

/// What the hidden command does: prints the frames as JSON.
pub fn look_up(args: &SymboliseArgs) -> bool {
    let limit = |resource, most: u64| {
        setrlimit(
            resource,
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            },
        )
    };
    let limited = limit(Resource::Cpu, CPU_SECONDS)
        .and_then(|()| limit(Resource::As, MEMORY))
        .and_then(|()| limit(Resource::Core, 0));
    if limited.is_err() {
        return false;
    }
    let here = std::env::current_dir().ok();
    let frames = lookup::frames(&args.image, &args.addresses, here.as_deref());
    serde_json::to_string(&frames).is_ok_and(|json| crate::report::print(json).is_ok())
}
