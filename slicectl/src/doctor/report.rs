//! Judges what was seen: each check with its grade, what it means, and what mends it.

use serde::Serialize;
use vmm::jail::Layer;

use super::facts::{Facts, Processor};
use crate::backstop::hierarchy::{Offer, Version};
use crate::kvm::{self, CannotOpen};
use crate::problem::Problem;
use crate::rundir::RUN_DIR_VARIABLE;
use crate::units::format_kib;

/// Less available memory than this leaves no room for a sliver and the rest.
const LITTLE_MEMORY_KIB: u64 = 512 << 10;

/// A monitor needs about this many open files.
const FILES_NEEDED: u64 = 64;

/// Fewer than these suffice for one sliver, but not for a node with many.
const FILES_WANTED: u64 = 1024;
const PROCESSES_WANTED: u64 = 4096;
const PIDS_WANTED: u64 = 32_768;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Slivers run, but something is missing or slower.
    Warn,
    /// Slivers cannot run.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it came out.
    pub status: Grade,
    /// What was seen, and what it means.
    pub explanation: String,
    /// The command or change that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// Judges everything.
pub fn judge(facts: &Facts) -> Vec<Check> {
    vec![
        kvm(facts),
        virtualisation(facts),
        memory(facts),
        huge_pages(facts),
        cgroup(facts),
        tap(facts),
        way_out(facts),
        jail(facts),
        files(facts),
        locked(facts),
        processes(facts),
        run_dir(facts),
    ]
}

fn check(name: &'static str, status: Grade, explanation: impl Into<String>) -> Check {
    Check {
        name,
        status,
        explanation: explanation.into(),
        mend: None,
    }
}

impl Check {
    fn mended_by(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

fn kvm(facts: &Facts) -> Check {
    match (kvm::verdict(&facts.kvm, &facts.user), &facts.kvm) {
        (Err(problem), _) => failed_kvm(&problem),
        (Ok(()), Ok(kvm)) => {
            let told = format!(
                "{} works: API version {}, up to {} vCPUs for each VM",
                kvm::DEVICE,
                kvm.api_version,
                kvm.max_vcpus
            );
            check("kvm", Grade::Ok, told)
        }
        (Ok(()), Err(error)) => check("kvm", Grade::Fail, format!("error {}", error.errno)),
    }
}

fn failed_kvm(problem: &Problem) -> Check {
    let told = check(
        "kvm",
        Grade::Fail,
        format!("{} {}", kvm::DEVICE, problem.why()),
    );
    match problem.remedy() {
        Some(mend) => told.mended_by(mend),
        None => told,
    }
}

fn virtualisation(facts: &Facts) -> Check {
    let name = "virtualisation";
    let works = kvm::verdict(&facts.kvm, &facts.user).is_ok();
    match facts.processor {
        Processor::Vmx => check(
            name,
            Grade::Ok,
            "VMX: native and legacy images at full speed",
        ),
        Processor::Svm => check(
            name,
            Grade::Ok,
            "SVM: native and legacy images at full speed",
        ),
        Processor::Neither if works => check(
            name,
            Grade::Warn,
            "page-table based (the processor shows neither VMX nor SVM): native images run at \
             full speed, because they never leave privilege level 3; each exit to the monitor \
             costs tens of microseconds; legacy kernels (Linux) cannot run at a useful speed",
        )
        .mended_by(
            "nothing is needed for native images; for legacy ones use a host, or a nested \
             machine type, with VMX or SVM, or try them in the lab: cargo run -p integration --bin \
             lab",
        ),
        Processor::Neither if facts.kvm.as_ref().is_err_and(CannotOpen::is_forbidden) => check(
            name,
            Grade::Warn,
            "the processor shows neither VMX nor SVM; whether KVM works without them here is not \
             known, because it could not be asked",
        )
        .mended_by("mend kvm first"),
        Processor::Neither => check(
            name,
            Grade::Fail,
            "the processor shows neither VMX nor SVM, and KVM does not work without them here",
        )
        .mended_by(
            "switch virtualisation on in the firmware, or nested virtualisation on in the \
             machine's settings",
        ),
    }
}

fn memory(facts: &Facts) -> Check {
    let name = "memory";
    let Some(memory) = facts.memory else {
        return check(
            name,
            Grade::Warn,
            "/proc/meminfo does not tell how much there is",
        );
    };
    let told = format!(
        "{} of {} are available",
        format_kib(memory.available_kib),
        format_kib(memory.total_kib)
    );
    match memory.available_kib < LITTLE_MEMORY_KIB {
        true => check(name, Grade::Warn, told + ": little for slivers")
            .mended_by("end something that uses much: ps aux --sort -rss | head"),
        false => check(name, Grade::Ok, told),
    }
}

fn huge_pages(facts: &Facts) -> Check {
    let name = "huge pages";
    let remedy = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled";
    match facts.huge_pages.as_deref() {
        Some(mode @ ("always" | "madvise")) => check(
            name,
            Grade::Ok,
            format!("transparent huge pages are on ({mode}): the first touch of memory is cheap"),
        ),
        Some(mode) => check(
            name,
            Grade::Warn,
            format!(
                "transparent huge pages are off ({mode}): the first touch of memory costs about \
                 ten times more"
            ),
        )
        .mended_by(remedy),
        None => check(
            name,
            Grade::Warn,
            "this kernel has no transparent huge pages",
        )
        .mended_by("run a kernel with CONFIG_TRANSPARENT_HUGEPAGE"),
    }
}

fn cgroup(facts: &Facts) -> Check {
    let name = "cgroup";
    let without = "slivers run without a second fence around their processor time; the monitor's \
                   own limits do not need it";
    let warn = |what: String| check(name, Grade::Warn, format!("{what}: {without}"));
    match &facts.cgroup {
        Offer::Usable(version) => check(
            name,
            Grade::Ok,
            format!(
                "{} with the cpu controller: a group for each sliver, with 1.25 times its cap, is a \
                 second fence around its processor time",
                told(*version)
            ),
        ),
        Offer::Nothing => warn("no control groups are mounted".to_owned())
            .mended_by("sudo mount -t cgroup2 none /sys/fs/cgroup"),
        Offer::NoController => warn("no control groups with the cpu controller".to_owned())
            .mended_by(
                "in a container: delegate the cpu controller to it; else boot with \
                 systemd.unified_cgroup_hierarchy=1",
            ),
        Offer::Closed(version, place) => warn(format!(
            "{} with the cpu controller, but {} cannot make groups in {}",
            told(*version),
            facts.user,
            place.display()
        ))
        .mended_by(match version {
            Version::V1 => "run slivers as root, or let an own group in that hierarchy be yours",
            Version::V2 => {
                "run slivers as root, or in a scope of their own: systemd-run --user --scope -p \
                 Delegate=yes slicectl run ..."
            }
        }),
    }
}

fn told(version: Version) -> &'static str {
    match version {
        Version::V1 => "v1",
        Version::V2 => "v2",
    }
}

fn tap(facts: &Facts) -> Check {
    let name = "tap";
    let Err(errno) = facts.tun else {
        return check(
            name,
            Grade::Ok,
            "/dev/net/tun works: slivers can have network cards",
        );
    };
    let user = &facts.user;
    match errno {
        libc::EACCES | libc::EPERM => check(
            name,
            Grade::Warn,
            format!("{user} may not open /dev/net/tun: no network cards for slivers"),
        )
        .mended_by(format!("sudo setfacl -m u:{user}:rw /dev/net/tun")),
        _ => check(
            name,
            Grade::Warn,
            "/dev/net/tun is not there or does not open: no network cards for slivers",
        )
        .mended_by("sudo modprobe tun; in a container: pass the device, --device /dev/net/tun"),
    }
}

fn way_out(facts: &Facts) -> Check {
    let name = "way out";
    let install = "sudo apt install nftables, or what your distribution calls the package";
    let forward = "sudo sysctl -w net.ipv4.ip_forward=1";
    let without = "slivers cannot have --net nat";
    let (why, mend) = match (facts.nat.program, facts.nat.forwards) {
        (true, true) => {
            let told = "nft is there, and this host forwards packets: slivers can have --net nat";
            return check(name, Grade::Ok, told);
        }
        (false, true) => ("the program nft is not there", install.to_owned()),
        (true, false) => ("this host does not forward packets", forward.to_owned()),
        (false, false) => (
            "the program nft is not there, and this host does not forward packets",
            format!("{install}; {forward}"),
        ),
    };
    check(name, Grade::Warn, format!("{why}: {without}")).mended_by(mend)
}

fn jail(facts: &Facts) -> Check {
    let name = "jail";
    let [(layer, why), ..] = facts.jail.as_slice() else {
        return check(
            name,
            Grade::Ok,
            "this host provides every layer of a monitor's jail",
        );
    };
    let names: Vec<_> = facts.jail.iter().map(|(layer, _)| layer.name()).collect();
    let told = format!(
        "this host does not provide {} ({layer}: {why}): slivers do not start",
        names.join(", ")
    );
    let flags: Vec<_> = names
        .iter()
        .map(|name| format!("--allow-weak-jail {name}"))
        .collect();
    let mend = match layer {
        Layer::Landlock => "a kernel of 5.13 or later with landlock in its lsm= list",
        _ => "sysctl user.max_*_namespaces and kernel.unprivileged_userns_clone, or run as root",
    };
    let mend = format!("{mend}; or do without: slicectl run {}", flags.join(" "));
    check(name, Grade::Fail, told).mended_by(mend)
}

fn files(facts: &Facts) -> Check {
    let name = "open files";
    let remedy = format!("ulimit -n {FILES_WANTED}");
    match facts.limits.files {
        Some(limit) if limit < FILES_NEEDED => check(
            name,
            Grade::Fail,
            format!("at most {limit} for each process, a monitor needs {FILES_NEEDED}"),
        )
        .mended_by(remedy),
        Some(limit) if limit < FILES_WANTED => check(
            name,
            Grade::Warn,
            format!("at most {limit} for each process: few for a node"),
        )
        .mended_by(remedy),
        limit => check(name, Grade::Ok, at_most(limit, "for each process")),
    }
}

fn locked(facts: &Facts) -> Check {
    let limit = facts.limits.locked.map(|bytes| format_kib(bytes / 1024));
    let told = limit.unwrap_or_else(|| "no limit".to_owned());
    check(
        "locked memory",
        Grade::Ok,
        format!("{told}; slivers lock none"),
    )
}

fn processes(facts: &Facts) -> Check {
    let name = "processes";
    if let Some(limit) = facts
        .limits
        .processes
        .filter(|limit| *limit < PROCESSES_WANTED)
    {
        return check(
            name,
            Grade::Warn,
            format!("at most {limit} for this user: a sliver takes two and one for each vCPU"),
        )
        .mended_by(format!("ulimit -u {PROCESSES_WANTED}"));
    }
    match facts.pid_max {
        Some(most) if most < PIDS_WANTED => {
            check(name, Grade::Warn, format!("at most {most} on this host"))
                .mended_by("sudo sysctl kernel.pid_max=4194304")
        }
        most => check(
            name,
            Grade::Ok,
            format!(
                "{}, {}",
                at_most(facts.limits.processes, "for this user"),
                at_most(most, "on this host")
            ),
        ),
    }
}

fn run_dir(facts: &Facts) -> Check {
    let name = "run directory";
    match &facts.run_dir {
        (path, None) => check(name, Grade::Ok, format!("{path} can be used")),
        (path, Some(why)) => check(name, Grade::Fail, format!("{path} {why}"))
            .mended_by(format!("name another one: export {RUN_DIR_VARIABLE}=DIR")),
    }
}

fn at_most(limit: Option<u64>, of: &str) -> String {
    match limit {
        Some(limit) => format!("at most {limit} {of}"),
        None => format!("no limit {of}"),
    }
}
