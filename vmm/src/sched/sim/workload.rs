//! What the slivers of a simulated node do: groups of slivers that are alike, from a JSON document
//! that is checked as a whole, or one of those that are built in.

use slice_abi::layout::MAX_VCPUS;

use crate::nanos::Nanos;
use crate::spec::fields::Fields;
use crate::spec::{CpuChange, CpuLimits, Mistake, mistakes_told};

/// Slivers that a workload may have, in all.
pub const MAX_SLIVERS: u64 = 100_000;

/// Groups that a workload may have.
const MAX_GROUPS: usize = 64;

/// The built-in workloads: what they are called, and their documents.
pub(super) const BUILT_IN: &[(&str, &str)] = &[
    ("steady", include_str!("workloads/steady.json")),
    ("weights", include_str!("workloads/weights.json")),
    ("reserve", include_str!("workloads/reserve.json")),
    ("caps", include_str!("workloads/caps.json")),
    ("bursty", include_str!("workloads/bursty.json")),
    ("io", include_str!("workloads/io.json")),
    ("joiner", include_str!("workloads/joiner.json")),
    ("smp", include_str!("workloads/smp.json")),
    ("theft-edge", include_str!("workloads/theft-edge.json")),
    ("theft-nap", include_str!("workloads/theft-nap.json")),
    ("theft-joiner", include_str!("workloads/theft-joiner.json")),
    ("theft-kicks", include_str!("workloads/theft-kicks.json")),
    ("theft-split", include_str!("workloads/theft-split.json")),
    (
        "theft-flicker",
        include_str!("workloads/theft-flicker.json"),
    ),
    ("crowd", include_str!("workloads/crowd.json")),
];

/// What the slivers of a node do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What it is, in a sentence.
    pub about: String,
    pub(super) groups: Vec<Group>,
}

/// Slivers that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) count: u32,
    pub(super) vcpus: u32,
    pub(super) limits: CpuLimits,
    /// When they begin.
    pub(super) start: Nanos,
    pub(super) behaviour: Behaviour,
    /// How long the guest can put off an exit that is asked for.
    pub(super) exit: Nanos,
}

/// What a vCPU does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Computes all the time.
    Steady,
    /// Computes and sleeps by turns, each about so long.
    Cycle {
        run: Nanos,
        sleep: Nanos,
        spread_percent: u64,
    },
    /// Sleeps from just before each of its budget's periods ends to just after.
    Edge { sleep: Nanos },
    /// Computes so long and has the next vCPU go on.
    Rotate { run: Nanos },
}

/// A workload that cannot be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid workload: {}", mistakes_told(.mistakes))]
pub struct WorkloadError {
    mistakes: Vec<Mistake>,
}

impl WorkloadError {
    /// Everything that is wrong with it.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    fn new(mut mistakes: Vec<Mistake>) -> Self {
        for mistake in &mut mistakes {
            if mistake.field == "spec" {
                mistake.field = "workload".to_owned();
            }
        }
        Self { mistakes }
    }
}

impl Workload {
    /// Names and purposes of the built-in workloads.
    pub fn list() -> impl Iterator<Item = (&'static str, String)> {
        BUILT_IN
            .iter()
            .filter_map(|(name, _)| Some((*name, Self::built_in(name)?.about)))
    }

    /// The built-in workload of this name.
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        Self::parse(text.as_bytes()).ok()
    }

    /// Reads a document.
    ///
    /// It has `about` and a list of `groups`, each with `name`, `count`, `vcpus` (1), `start_ms`
    /// (0), `exit_us` (0), the quotas of a spec, and `behaviour`: `steady`; `cycle` with `run_us`,
    /// `sleep_us` and `spread_pct` (0); `edge` with `sleep_us`; or `rotate` with `run_us`.
    pub fn parse(text: &[u8]) -> Result<Self, WorkloadError> {
        let mut fields =
            Fields::parse(text).map_err(|error| WorkloadError::new(error.mistakes().to_vec()))?;
        let about = fields.optional_parsed("about", |text| Ok(text.to_owned()));
        let groups = fields.objects("groups", MAX_GROUPS, |group, _| Group::read(group));
        let count: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
        if groups.is_empty() {
            fields.mistake("groups", "has none that can be simulated".to_owned());
        } else if count > MAX_SLIVERS {
            let problem = format!("have {count} slivers, allowed are 1 to {MAX_SLIVERS}");
            fields.mistake("groups", problem);
        }
        let mistakes = fields.finish();
        if !mistakes.is_empty() {
            return Err(WorkloadError::new(mistakes));
        }
        Ok(Self {
            about: about.unwrap_or_default(),
            groups,
        })
    }

    /// Moments at which slivers begin, but for the very beginning.
    pub(super) fn starts(&self) -> Vec<Nanos> {
        let mut starts: Vec<_> = self.groups.iter().map(|group| group.start).collect();
        starts.retain(|start| *start > Nanos::ZERO);
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// The same with about so many slivers in all, in the same proportion, at least one in each
    /// group.
    #[must_use]
    pub fn with_slivers(mut self, slivers: u32) -> Self {
        let all: u64 = self.groups.iter().map(|group| u64::from(group.count)).sum();
        for group in &mut self.groups {
            let scaled = (u64::from(group.count) * u64::from(slivers) + all / 2) / all;
            group.count = scaled.clamp(1, MAX_SLIVERS) as u32;
        }
        self
    }

    /// The same with this period for all budgets.
    pub fn with_period(mut self, period_ms: u32) -> Result<Self, WorkloadError> {
        let change = CpuChange {
            cpu_period: Some(period_ms.into()),
            ..CpuChange::default()
        };
        for group in &mut self.groups {
            let changed = change.apply(&group.limits, group.vcpus as usize);
            group.limits = changed.map_err(WorkloadError::new)?;
        }
        Ok(self)
    }
}

impl Group {
    fn read(fields: &mut Fields) -> Option<Self> {
        let name = fields.required_parsed("name", |text| Ok(text.to_owned()));
        let count = fields.ranged_u64("count", 1, MAX_SLIVERS, 1) as u32;
        let vcpus = fields.ranged_u64("vcpus", 1, MAX_VCPUS as u64, 1) as u32;
        let start = fields.ranged_u64("start_ms", 0, 3_600_000, 0);
        let exit = fields.ranged_u64("exit_us", 0, 1_000_000, 0);
        let limits = CpuLimits::read(fields, vcpus as usize);
        let behaviour = Behaviour::read(fields);
        Some(Self {
            name: name?,
            count,
            vcpus,
            limits,
            start: Nanos::from_millis(start),
            behaviour: behaviour?,
            exit: Nanos::from_micros(exit),
        })
    }
}

impl Behaviour {
    fn read(fields: &mut Fields) -> Option<Self> {
        const KNOWN: [&str; 4] = ["steady", "cycle", "edge", "rotate"];
        let name = fields.required_parsed("behaviour", |text| {
            let name = KNOWN.into_iter().find(|known| *known == text);
            name.ok_or_else(|| format!("is \"{text}\", allowed are {}", KNOWN.join(", ")))
        });
        let mut span = |field| {
            let micros = fields.optional_ranged_u64(field, 1, 3_600_000_000);
            micros.map(Nanos::from_micros)
        };
        let (run, sleep) = match name {
            Some("cycle") => (span("run_us"), span("sleep_us")),
            Some("edge") => (None, span("sleep_us")),
            Some("rotate") => (span("run_us"), None),
            _ => (None, None),
        };
        let spread_percent = match name {
            Some("cycle") => fields.ranged_u64("spread_pct", 0, 100, 0),
            _ => 0,
        };
        let read = match (name?, run, sleep) {
            ("steady", ..) => Some(Self::Steady),
            ("cycle", Some(run), Some(sleep)) => Some(Self::Cycle {
                run,
                sleep,
                spread_percent,
            }),
            ("edge", _, Some(sleep)) => Some(Self::Edge { sleep }),
            ("rotate", Some(run), _) => Some(Self::Rotate { run }),
            _ => None,
        };
        if read.is_none() {
            let problem = "needs run_us and sleep_us (cycle), sleep_us (edge) or run_us (rotate)";
            fields.mistake("behaviour", problem.to_owned());
        }
        read
    }
}
