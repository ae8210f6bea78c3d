//! Facts of the host that a figure is worthless without, and the time it was robbed of meanwhile.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use integration::artifacts::workspace;

/// What the figures were measured on and with.
#[derive(Debug, Serialize)]
pub(crate) struct Host {
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Model of the processor.
    pub(crate) cpu: String,
    /// How many of it.
    pub(crate) cpus: usize,
    /// MiB of memory.
    pub(crate) memory_mib: u64,
    /// What `/dev/kvm` rests on.
    pub(crate) kvm: &'static str,
    /// Version of this source tree.
    pub(crate) slicevisor: String,
    /// Version of the compiler.
    pub(crate) rustc: String,
    /// Version of the C compiler that built the floor.
    pub(crate) cc: String,
    /// Version of QEMU, if there is one.
    pub(crate) qemu: Option<String>,
}

impl Host {
    /// Looks around.
    pub(crate) fn look() -> Result<Self> {
        let cpuinfo = read("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let flags = field("flags").unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
        let meminfo = read("/proc/meminfo")?;
        let mut commit = Command::new("git");
        commit
            .args(["rev-parse", "--short=12", "HEAD"])
            .current_dir(workspace());
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: field("model name").unwrap_or_default(),
            cpus: cpuinfo
                .lines()
                .filter(|l| l.starts_with("processor"))
                .count(),
            memory_mib: meminfo_kib(&meminfo, "MemTotal")? >> 10,
            kvm: match (has("vmx"), has("svm")) {
                (true, _) => "VMX",
                (_, true) => "SVM",
                _ => "page tables (no VMX, no SVM)",
            },
            slicevisor: format!(
                "{} {}",
                env!("CARGO_PKG_VERSION"),
                first_line(&mut commit).unwrap_or_else(|| "without git".to_owned())
            ),
            rustc: first_line(&mut version_of("rustc")).context("rustc does not run")?,
            cc: first_line(&mut version_of("cc")).context("cc does not run")?,
            qemu: first_line(&mut version_of("qemu-system-x86_64")),
        })
    }
}

/// Processor time of the whole host since its boot, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTicks {
    total: u64,
    steal: u64,
}

impl CpuTicks {
    /// As of now.
    pub(crate) fn now() -> Result<Self> {
        let stat = read("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .map(|n| n.parse().context("/proc/stat holds a number that is none"))
            .collect::<Result<_>>()?;
        // user nice system idle iowait irq softirq steal; what follows is counted in user (proc(5)).
        Ok(Self {
            total: ticks.iter().take(8).sum(),
            steal: ticks.get(7).copied().unwrap_or(0),
        })
    }

    /// Percent of all processor time that the host's own host took since then.
    pub(crate) fn steal_percent_since(&self, then: Self) -> f64 {
        let total = self.total.saturating_sub(then.total).max(1);
        100.0 * self.steal.saturating_sub(then.steal) as f64 / total as f64
    }
}

/// Memory that the host could still give out, in KiB.
pub(crate) fn available_kib() -> Result<u64> {
    meminfo_kib(&read("/proc/meminfo")?, "MemAvailable")
}

fn meminfo_kib(meminfo: &str, name: &str) -> Result<u64> {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("/proc/meminfo has no {name}"))
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    fs::read_to_string(path).with_context(|| format!("{}", path.display()))
}

fn version_of(program: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("--version");
    command
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}
