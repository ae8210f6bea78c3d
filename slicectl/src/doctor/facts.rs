//! Looks at the host. Everything is optional: what cannot be told is judged as such.

use std::fs::{self, OpenOptions};

use rustix::process::{Resource, getrlimit};
use vmm::jail::{self, Layer, Layers};

use crate::backstop::hierarchy::{self, Offer};
use crate::host::{self, Memory};
use crate::kvm::{self, CannotOpen, KvmFacts};
use crate::network::nat;
use crate::{person, rundir};

/// What was seen.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who looked.
    pub user: String,
    /// `/dev/kvm`, or why it cannot be opened.
    pub kvm: Result<KvmFacts, CannotOpen>,
    /// Virtualisation that the processor says it has.
    pub processor: Processor,
    /// The host's memory.
    pub memory: Option<Memory>,
    /// The chosen mode of transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// Control groups for processor time.
    pub cgroup: Offer,
    /// `/dev/net/tun`, or the error number of opening it.
    pub tun: Result<(), i32>,
    /// What `--net nat` takes.
    pub nat: Nat,
    /// Layers of a monitor's jail that this host does not provide, and why.
    pub jail: Vec<(Layer, String)>,
    /// Limits of this process; `None` is unlimited.
    pub limits: Limits,
    /// The most processes and threads of the host.
    pub pid_max: Option<u64>,
    /// The directory for control sockets, and what is wrong with it.
    pub run_dir: (String, Option<String>),
}

/// What the processor's flags say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// Intel's extensions.
    Vmx,
    /// AMD's.
    Svm,
    /// Neither: a virtual machine without nesting, or switched off in the firmware.
    Neither,
}

/// What it takes to give slivers a way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// The program that makes rules for the packet filter.
    pub program: bool,
    /// Whether the host forwards packets.
    pub forwards: bool,
}

/// Resource limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open files.
    pub files: Option<u64>,
    /// Locked memory, in bytes.
    pub locked: Option<u64>,
    /// Processes and threads of the user.
    pub processes: Option<u64>,
}

/// Looks at this host.
pub fn gather() -> Facts {
    let read = |path: &str| fs::read_to_string(path).ok();
    Facts {
        user: person::user_name(),
        kvm: kvm::probe(true),
        processor: Processor::of_host(),
        memory: host::memory(),
        huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled")
            .and_then(|text| chosen(&text)),
        cgroup: hierarchy::offer(),
        tun: OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .map(drop)
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)),
        nat: Nat {
            program: nat::can_make_rules(),
            forwards: nat::forwards(),
        },
        jail: jail::missing(Layers::all())
            .into_iter()
            .map(|missing| (missing.layer, missing.source.to_string()))
            .collect(),
        limits: Limits {
            files: getrlimit(Resource::Nofile).current,
            locked: getrlimit(Resource::Memlock).current,
            processes: getrlimit(Resource::Nproc).current,
        },
        pid_max: read("/proc/sys/kernel/pid_max").and_then(|text| text.trim().parse().ok()),
        run_dir: run_dir(),
    }
}

impl Processor {
    /// That of this host.
    pub fn of_host() -> Self {
        processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }
}

/// The virtualisation among the flags of the first processor.
pub(super) fn processor(cpuinfo: &str) -> Processor {
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    match (has("vmx"), has("svm")) {
        (true, _) => Processor::Vmx,
        (_, true) => Processor::Svm,
        _ => Processor::Neither,
    }
}

/// The word in brackets: `always [madvise] never`.
pub(super) fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Whether the run directory can be used. It is made if it is missing: `run` would do the same.
fn run_dir() -> (String, Option<String>) {
    let root = rundir::root();
    let problem = rundir::prepare(&root).err();
    (
        root.display().to_string(),
        problem.map(|problem| problem.why().to_owned()),
    )
}
