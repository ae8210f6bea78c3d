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
//!   "start_paused": false,
//!   "console": { "input": false, "rate_kib_s": 1024 },
//!   "nets": [{ "tap": "tap3", "ipv4": "10.0.0.2/24", "gateway4": "10.0.0.1" }],
//!   "disks": [{ "path": "/var/lib/slices/disk.img", "read_only": true }],
//!   "public": { "ports": "20000-20999", "address": "192.0.2.1" },
//!   "vsock": { "dir": "/run/hello", "cid": 3 },
//!   "balloon_mib": 0,
//!   "cpu_cap": 50, "cpu_pct": 5, "cpu_share": 2, "cpu_burst": 20, "cpu_period": 10,
//!   "uplink": { "interface": "eth0", "rate": 100000 },
//!   "net_min_rate": 500, "net_max_rate": 20000, "net_share": 2, "net_exempt": ["192.0.2.0/24"],
//!   "disk_rate": 51200, "disk_iops": 1000
//! }
//! ```
//!
//! `version`, `name`, `slice`, `owner`, `contact` and `image` are required. [`NetSpec`],
//! [`PublicSpec`], [`DiskSpec`], [`VsockSpec`] and [`ConsoleSpec`] tell all fields of the parts, [`CpuLimits`],
//! [`NetLimits`] and [`DiskLimits`] the quotas, [`UplinkSpec`] what slivers share on the way out,
//! [`GuardSpec`] what may leave them. A legacy image may
//! have a `kernel`, too, and a `seed` for its cloud-init: see [`KernelSpec`] and [`SeedSpec`].

mod bandwidth;
mod console;
mod cpu;
mod disk;
pub(crate) mod fields;
mod guard;
mod kernel;
mod limits;
mod mistakes;
mod names;
mod net;
mod public;
mod seed;
#[cfg(test)]
mod tests;
mod vsock;

pub use bandwidth::{
    Class, DiskChange, DiskLimits, MAX_KBIT, Most, NetChange, NetLimits, UplinkSpec,
};
pub use console::ConsoleSpec;
pub use cpu::{Cap, CpuChange, CpuLimits, DEFAULT_PERIOD_MS, MAX_SHARE, MilliCpu, Percent};
pub use disk::{DiskSpec, MAX_DISKS, MAX_SERIAL_BYTES};
pub use guard::{GuardMode, GuardSpec};
pub use kernel::{KernelConsole, KernelSpec, MAX_APPEND_BYTES, Protocol};
pub use limits::{Bounds, Limits, LimitsChange};
pub(crate) use mistakes::told as mistakes_told;
pub use mistakes::{Mistake, SpecError};
pub use names::{SliceName, SliverName};
pub use net::{DEFAULT_MTU, MAX_DNS, Mac, NetSpec, TapName};
pub use public::PublicSpec;
pub use seed::{Hostname, MAX_KEYS, MAX_USER_DATA_BYTES, PublicKey, SEED_SERIAL, SeedSpec};
pub use vsock::VsockSpec;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use slice_abi::info::MAX_ARGS_BYTES;
use slice_abi::layout::{MAX_VCPUS, RAM_BASE, RAM_LIMIT};

use crate::net::shaper::UsedToday;
use bandwidth::Network;
use fields::Fields;
use names::one_line;

/// The version of the document that this code reads.
pub const SPEC_VERSION: u64 = 1;

/// Memory of a native sliver whose spec names none.
pub const DEFAULT_MEMORY_MIB: u64 = 64;

/// Memory of a sliver with a `kernel` whose spec names none, as on PlanetLab.
pub const DEFAULT_LEGACY_MEMORY_MIB: u64 = 256;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<KernelSpec>,
    memory_mib: u64,
    vcpus: usize,
    args: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_limit_ms: Option<u64>,
    start_paused: bool,
    console: ConsoleSpec,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nets: Vec<NetSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public: Option<PublicSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disks: Vec<DiskSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<SeedSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsock: Option<VsockSpec>,
    balloon_mib: u64,
    #[serde(flatten)]
    cpu: CpuLimits,
    #[serde(flatten)]
    network: Network,
    #[serde(flatten)]
    disk_limits: DiskLimits,
    #[serde(skip_serializing_if = "UsedToday::is_nothing")]
    net_used_today: UsedToday,
    guard: GuardSpec,
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
        let image = fields.required_parsed("image", path);
        let kernel = fields.object("kernel", KernelSpec::read);
        let usual = match kernel {
            Some(_) => DEFAULT_LEGACY_MEMORY_MIB,
            None => DEFAULT_MEMORY_MIB,
        };
        let memory_mib = fields.ranged_u64("memory_mib", 1, MAX_MEMORY_MIB, usual);
        let vcpus = fields.ranged_u64("vcpus", 1, MAX_VCPUS as u64, 1) as usize;
        let args = fields.strings("args");
        if let Err(problem) = check_args(&args) {
            fields.mistake("args", problem);
        }
        let time_limit_ms = fields.optional_ranged_u64("time_limit_ms", 1, MAX_TIME_LIMIT_MS);
        let start_paused = fields.bool("start_paused", false);
        let console = fields.object("console", ConsoleSpec::read);
        let sliver = name.as_ref().map_or("", SliverName::as_str);
        let nets = net::read_all(&mut fields, sliver);
        let public = fields.object("public", PublicSpec::read).flatten();
        if public.is_some() && nets.is_empty() {
            fields.mistake("public", "is of no use without a network card".to_owned());
        }
        let disks = disk::read_all(&mut fields);
        let seed = seed::read(&mut fields, kernel.is_some(), &disks);
        let vsock = fields.object("vsock", VsockSpec::read).flatten();
        // All of the memory would leave nothing to run in.
        let balloon_mib = fields.ranged_u64("balloon_mib", 0, memory_mib - 1, 0);
        let cpu = CpuLimits::read(&mut fields, vcpus);
        let network = Network::read(&mut fields);
        let net_used_today = bandwidth::read_used(&mut fields);
        let disk_limits = DiskLimits::read(&mut fields);
        let guard = fields.object("guard", GuardSpec::read).unwrap_or_default();
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
                    kernel,
                    memory_mib,
                    vcpus,
                    args,
                    time_limit_ms,
                    start_paused,
                    console: console.unwrap_or_default(),
                    nets,
                    public,
                    disks,
                    seed,
                    vsock,
                    balloon_mib,
                    cpu,
                    network,
                    disk_limits,
                    net_used_today,
                    guard,
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
        self.name.as_str()
    }

    /// Name of the slice.
    pub fn slice(&self) -> &str {
        self.slice.as_str()
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

    /// How to boot the image, if it is a legacy one and the spec says how.
    pub fn kernel(&self) -> Option<&KernelSpec> {
        self.kernel.as_ref()
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

    /// Its console.
    pub fn console(&self) -> &ConsoleSpec {
        &self.console
    }

    /// Its network cards, at most [`MAX_NETS`](slice_abi::info::MAX_NETS).
    pub fn nets(&self) -> &[NetSpec] {
        &self.nets
    }

    /// What the outside sees of it, if its ports are translated.
    pub fn public(&self) -> Option<&PublicSpec> {
        self.public.as_ref()
    }

    /// Its disks, at most [`MAX_DISKS`] with that of the seed.
    pub fn disks(&self) -> &[DiskSpec] {
        &self.disks
    }

    /// What its cloud-init is told, if it is told something: one more disk, after the others.
    pub fn seed(&self) -> Option<&SeedSpec> {
        self.seed.as_ref()
    }

    /// Its vsock, if it has one.
    pub fn vsock(&self) -> Option<&VsockSpec> {
        self.vsock.as_ref()
    }

    /// What it is granted of the processors.
    pub fn cpu(&self) -> &CpuLimits {
        &self.cpu
    }

    /// What it is granted of its node's network.
    pub fn net_limits(&self) -> &NetLimits {
        &self.network.limits
    }

    /// What its slice has sent today before it begins.
    pub fn net_used_today(&self) -> UsedToday {
        self.net_used_today
    }

    /// The node's way out, if it shares one with others.
    pub fn uplink(&self) -> Option<&UplinkSpec> {
        self.network.uplink.as_ref()
    }

    /// What it is granted of its disks, all together.
    pub fn disk_limits(&self) -> &DiskLimits {
        &self.disk_limits
    }

    /// What its guard lets through.
    pub fn guard(&self) -> &GuardSpec {
        &self.guard
    }

    /// Memory that the balloon holds at the start, in MiB; less than there is.
    pub fn balloon_mib(&self) -> u64 {
        self.balloon_mib
    }
}

/// A year: beyond it, arithmetic on deadlines would need care for no use.
const MAX_TIME_LIMIT_MS: u64 = 365 * 86_400 * 1000;

fn path(text: &str) -> Result<PathBuf, String> {
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
