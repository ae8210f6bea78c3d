//! Checks everything about a run before anything is created, and reports all that is wrong.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use vmm::spec::{DEFAULT_LEGACY_MEMORY_MIB, DEFAULT_MEMORY_MIB, SliverSpec};

use crate::audit::known::Known;
use crate::cli::RunArgs;
use crate::doctor::facts::Processor;
use crate::gdb;
use crate::host::Memory;
use crate::kvm::{CannotOpen, KvmFacts};
use crate::network::nat::Public;
use crate::problem::{Failure, MONITOR, Problem, USAGE};
use crate::quotas;
use crate::units::{format_kib, parse_duration, parse_kbit, whole_mib};

use super::flags::Devices;
use super::guard;
use super::kind::{Kind, Look};

/// What is known of the host and the user before the run.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// What `/dev/kvm` offers, or why it cannot be opened.
    pub(super) kvm: Result<KvmFacts, CannotOpen>,
    /// The host's memory.
    pub(super) memory: Option<Memory>,
    /// Processors that this host's slivers can have.
    pub(super) processors: u32,
    /// The user's name.
    pub(super) user: String,
    /// How to reach the user.
    pub(super) contact: String,
    /// A number that makes the sliver's name unique.
    pub(super) number: u32,
    /// Whether standard input is a terminal whose keys come to this process.
    pub(super) terminal: bool,
    /// Whether the processor runs kernels in hardware.
    pub(super) processor: Processor,
}

/// A run whose flags are right and whose host can do it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    document: serde_json::Value,
    /// Name of the sliver.
    pub(super) name: String,
    /// The limit on its time, if there is one.
    pub(super) time_limit: Option<Duration>,
    /// Where to wait for gdb.
    pub(super) gdb: Option<SocketAddr>,
    /// Where to put a core file.
    pub(super) core: Option<PathBuf>,
    /// Devices, as the flags describe them.
    pub(super) devices: Devices,
}

impl Plan {
    /// The spec, with the image that was found, with what the outside sees of the sliver, and with
    /// what is known of its slice.
    pub(super) fn spec(
        &self,
        image: &Path,
        public: Option<Public>,
        known: &Known,
    ) -> Result<SliverSpec, Failure> {
        let mut document = self.document.clone();
        known.describe(&mut document);
        if let Some(public) = public {
            document["public"] = json!({ "ports": public.ports, "address": public.address });
        }
        document["image"] = json!(image.to_str().ok_or_else(|| {
            let problem = Problem::new(
                format!("image {}", image.display()),
                "its path is not UTF-8",
            );
            Failure::new(MONITOR, vec![problem])
        })?);
        parse(&document, &self.devices).map_err(|problems| Failure::new(USAGE, problems))
    }
}

/// Checks flags first, all of them, then the image as far as it was looked at, then the host.
pub(super) fn check(args: &RunArgs, look: &Look, around: &Surroundings) -> Result<Plan, Failure> {
    let mut problems = Vec::new();
    let devices = Devices::read(args, look.kind, around.terminal, &mut problems);
    let mut fail = |flag: &str, why: String| problems.push(Problem::new(flag, why));

    let usual_memory = match devices.boots_kernel() {
        true => DEFAULT_LEGACY_MEMORY_MIB,
        false => DEFAULT_MEMORY_MIB,
    };
    let memory_mib = args.mem.as_deref().map_or(Ok(usual_memory), whole_mib);
    let memory_mib = memory_mib.map_err(|why| fail("--mem", why)).unwrap_or(1);
    let vcpus = parse_count(&args.vcpus)
        .map_err(|why| fail("--vcpus", why))
        .unwrap_or(1);
    let time_limit = args.time_limit.as_deref().map(parse_duration).transpose();
    let time_limit = time_limit.map_err(|why| fail("--for", why)).ok().flatten();
    let mut words = match args.cmdline.as_deref().map(shlex::split) {
        None => Vec::new(),
        Some(Some(words)) => words,
        Some(None) => {
            fail(
                "--cmdline",
                "has a quotation mark or backslash without its end".to_owned(),
            );
            Vec::new()
        }
    };
    words.extend(args.args.iter().cloned());
    let gdb = args.gdb.as_deref().map(gdb::parse_address).transpose();
    let gdb = gdb.map_err(|why| fail("--gdb", why)).ok().flatten();
    if let Some(why) = args.core.as_deref().and_then(super::core_file::objection) {
        fail("--core", why);
    }

    let uplink = args.uplink.as_deref().map(uplink).transpose();
    let uplink = uplink.map_err(|why| fail("--uplink", why)).ok().flatten();
    let limits = quotas::read(&args.limits, &mut problems);

    let image = image(args);
    // What runs on a kernel is more of a name than the kernel.
    let stem = image_stem(args.image.as_deref().unwrap_or(image));
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| sliver_name(&stem, around.number));
    let mut document = json!({
        "version": vmm::spec::SPEC_VERSION,
        "name": name,
        "slice": args.slice.clone().unwrap_or_else(|| slice_name(&stem)),
        "owner": args.owner.as_deref().unwrap_or(&around.user),
        "contact": args.contact.as_deref().unwrap_or(&around.contact),
        "image": image,
        "memory_mib": memory_mib,
        "vcpus": vcpus,
        "args": words,
        "start_paused": args.gdb.is_some(),
    });
    if let Some(limit) = time_limit {
        document["time_limit_ms"] = json!(limit.as_millis() as u64);
    }
    devices.describe(&mut document);
    document["guard"] = guard::read(&args.record, &mut problems);
    if let Some(uplink) = uplink {
        document["uplink"] = uplink;
    }
    for part in [json!(limits.cpu), json!(limits.net), json!(limits.disk)] {
        if let (Value::Object(document), Value::Object(part)) = (&mut document, part) {
            document.extend(part);
        }
    }
    match parse(&document, &devices) {
        Ok(spec) => {
            problems.extend(devices.objections(&spec));
            problems.extend(look.too_large(&spec));
            let beyond = spec.cpu().beyond_vcpus(spec.vcpus(), around.processors);
            problems.extend(beyond.as_ref().map(quotas::problem));
        }
        Err(mistakes) => problems.extend(mistakes),
    }
    problems.extend(beyond_host(memory_mib, vcpus, around));
    if !problems.is_empty() {
        return Err(Failure::new(USAGE, problems));
    }
    if let Some(problem) = look.broken(image) {
        return Err(Failure::new(MONITOR, vec![problem]));
    }
    crate::kvm::verdict(&around.kvm, &around.user)
        .and_then(|()| match look.kind == Kind::Legacy && !args.slow {
            true => quick_enough(image, around.processor),
            false => Ok(()),
        })
        .map_err(|problem| Failure::new(MONITOR, vec![problem]))?;
    Ok(Plan {
        document,
        name,
        time_limit,
        gdb,
        core: args.core.clone(),
        devices,
    })
}

/// The file that is booted.
pub(super) fn image(args: &RunArgs) -> &str {
    // The command line has one of them.
    let file = args.kernel.as_deref().or(args.image.as_deref());
    file.unwrap_or_default()
}

/// Refuses a kernel where KVM has no help from the processor.
fn quick_enough(kernel: &str, processor: Processor) -> Result<(), Problem> {
    match processor {
        Processor::Vmx | Processor::Svm => Ok(()),
        Processor::Neither => Err(Problem::new(
            kernel,
            "is a kernel, and this host's KVM is page-table based (the processor shows neither VMX \
             nor SVM): each instruction of a kernel takes microseconds here, and Linux needs an \
             hour or more to boot",
        )
        .mend(
            "run it on a host with VMX or SVM, or in the lab: cargo run -p integration --bin lab; \
             --slow runs it here all the same",
        )),
    }
}

/// What is asked for and allowed, but more than this host has.
fn beyond_host(memory_mib: u64, vcpus: u64, around: &Surroundings) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(memory) = around.memory
        && memory_mib.saturating_mul(1024) > memory.available_kib
    {
        let why = format!(
            "{} are wanted, this host has {} available",
            format_kib(memory_mib.saturating_mul(1024)),
            format_kib(memory.available_kib)
        );
        problems.push(Problem::new("--mem", why).mend("ask for less, or end something"));
    }
    if let Ok(kvm) = &around.kvm
        && vcpus > kvm.max_vcpus as u64
    {
        let why = format!("is {vcpus}, this host's KVM allows {}", kvm.max_vcpus);
        problems.push(Problem::new("--vcpus", why));
    }
    problems
}

/// Has the spec checked by its own rules, and names the flags instead of the fields.
fn parse(document: &serde_json::Value, devices: &Devices) -> Result<SliverSpec, Vec<Problem>> {
    SliverSpec::parse(document.to_string().as_bytes()).map_err(|error| {
        let problem = |mistake: &vmm::spec::Mistake| {
            let flag = match mistake.field.as_str() {
                "name" => "--name".to_owned(),
                "slice" => "--slice".to_owned(),
                "owner" => "--owner".to_owned(),
                "contact" => "--contact".to_owned(),
                "memory_mib" => "--mem (MiB)".to_owned(),
                "vcpus" => "--vcpus".to_owned(),
                "time_limit_ms" => "--for (ms)".to_owned(),
                "args" => "arguments of the guest".to_owned(),
                uplink if uplink.starts_with("uplink") => format!("--uplink ({uplink})"),
                guard if guard.starts_with("guard") => format!("--guard ({guard})"),
                other => quotas::flag_of(other).unwrap_or_else(|| devices.flag_of(other)),
            };
            Problem::new(flag, &mistake.problem)
        };
        error.mistakes().iter().map(problem).collect()
    })
}

/// An interface and its rate, as a spec says it.
fn uplink(text: &str) -> Result<Value, String> {
    let (interface, rate) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not IF=RATE, such as eth0=100mbit"))?;
    let rate = parse_kbit(rate)?;
    Ok(json!({ "interface": interface, "rate": rate }))
}

fn parse_count(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number"))
}

/// The last part of an image's name without its extension.
fn image_stem(image: &str) -> String {
    let stem = std::path::Path::new(image).file_stem();
    stem.map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A sliver's name from an image's: its characters that a name may have, and a number.
fn sliver_name(stem: &str, number: u32) -> String {
    let kept = kept(stem, 40, |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    });
    let kept = kept.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{}-{number}", if kept.is_empty() { "sliver" } else { kept })
}

/// A slice's name from an image's.
fn slice_name(stem: &str) -> String {
    let kept = kept(stem, 40, |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_')
    });
    format!("local_{}", if kept.is_empty() { "image" } else { &kept })
}

fn kept(text: &str, max: usize, allowed: impl Fn(char) -> bool) -> String {
    let replaced = text.chars().map(|c| if allowed(c) { c } else { '_' });
    replaced.take(max).collect()
}
