//! Whether an entry tells the truth: what it claims against what the kernel counts. Pure.

use serde::Serialize;
use vmm::nanos::Nanos;
use vmm::sched::ledger::{State, Statement, ViewedEntry};

use super::Told;

/// The part of what was used that may be missing, as a divisor.
const MISSING_PART: u64 = 20;

/// The kernel's account of what runs on another processor is up to a tick old.
const TICK: Nanos = Nanos::from_millis(10);

/// A monitor looks, and writes its entry, at least this often while its sliver runs, some lateness
/// included. Who has not written for longer has no excuse for what it used since.
const LONGEST_SILENCE: Nanos = Nanos::from_millis(60);

/// What an entry said, and what the kernel said right after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Nanos,
    /// `None` if there is no such process.
    pub(super) used: Option<Nanos>,
    pub(super) said: Statement,
}

impl Sample {
    /// How long before the sample the entry was written. One from the future is as good as none.
    pub(super) fn lag(&self) -> Nanos {
        match self.said.updated > self.at {
            true => Nanos::NEVER,
            false => self.at - self.said.updated,
        }
    }
}

/// Processor time in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) claimed: Nanos,
    pub(super) used: Nanos,
}

/// What the audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "audit", rename_all = "snake_case")]
pub enum Verdict {
    /// It tells the truth.
    Ok,
    /// Its owner has died; a newcomer may take its slot.
    Dead,
    /// It has not been there for the whole interval.
    New,
    /// It does not tell the truth.
    Lies {
        /// About what.
        why: String,
    },
}

impl Verdict {
    pub(super) fn lies(why: impl Into<String>) -> Self {
        Self::Lies { why: why.into() }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Dead => "-",
            Self::New => "new",
            Self::Lies { .. } => "LIES",
        }
    }
}

/// What was claimed and used between two samples.
pub(super) fn spent(begin: &Sample, end: &Sample) -> Spent {
    Spent {
        claimed: end.said.service - begin.said.service,
        used: match (begin.used, end.used) {
            (Some(begin), Some(end)) => end - begin,
            _ => Nanos::ZERO,
        },
    }
}

/// Judges an entry by samples at the beginning and at the end of an interval.
pub(super) fn judge(begin: Option<&Sample>, end: Option<&Sample>, processors: u32) -> Verdict {
    let Some(end) = end else { return Verdict::New };
    if end.used.is_none() {
        return Verdict::lies(format!("there is no process {}", end.said.pid));
    }
    let Some(begin) = begin.filter(|begin| begin.said.pid == end.said.pid) else {
        return Verdict::New;
    };
    let Spent { claimed, used } = spent(begin, end);
    let uncertain = TICK + end.lag().min(LONGEST_SILENCE);
    let allowed = used.0 / MISSING_PART + uncertain.0 * u64::from(processors);
    if (used - claimed).0 <= allowed {
        return Verdict::Ok;
    }
    Verdict::lies(format!(
        "it claims {} ms of processor time where the kernel counted {} ms",
        claimed.micros() / 1000,
        used.micros() / 1000
    ))
}

/// The least virtual time of those that want to run.
pub(super) fn least_vtime(entries: &[ViewedEntry]) -> Option<u64> {
    let live = entries.iter().filter(|entry| entry.state == State::Live);
    let said = live.filter_map(|entry| entry.said);
    said.filter(|said| said.demand > 0)
        .map(|said| said.vtime)
        .min()
}

/// What an entry says, in people's units.
pub(super) fn told(said: &Statement, now: Nanos, least: Option<u64>, processors: u32) -> Told {
    let ahead = least.map_or(0, |least| i128::from(said.vtime) - i128::from(least)) / 1000;
    Told {
        pid: said.pid,
        share: said.claim.share,
        reserve_pct: f64::from(said.claim.reserve.0) / 10.0 / f64::from(processors.max(1)),
        ceiling_pct: f64::from(said.claim.ceiling.0) / 10.0,
        demand: said.demand,
        waiting: said.waiting,
        service_us: said.service.micros(),
        ahead_us: ahead.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
        age_us: (now - said.updated).micros(),
    }
}

#[cfg(test)]
mod tests {
    use vmm::sched::fair::Claim;
    use vmm::spec::MilliCpu;

    use super::*;

    fn sample(at: u64, used: Option<u64>, service: u64, updated: u64) -> Sample {
        let ms = Nanos::from_millis;
        Sample {
            at: ms(at),
            used: used.map(ms),
            said: Statement {
                pid: 7,
                claim: Claim {
                    share: 1,
                    reserve: MilliCpu(0),
                    ceiling: MilliCpu(1000),
                },
                demand: 1,
                waiting: false,
                vtime: 0,
                service: ms(service),
                updated: ms(updated),
            },
        }
    }

    /// The verdict on who, in a second, uses `used` ms and claims `claimed`, in an entry that is
    /// `lag` ms old.
    fn verdict(used: u64, claimed: u64, lag: u64) -> Verdict {
        let begin = sample(10_000, Some(500), 400, 9_999);
        let end = sample(11_000, Some(500 + used), 400 + claimed, 11_000 - lag);
        judge(Some(&begin), Some(&end), 2)
    }

    #[test]
    fn who_claims_what_it_used_is_honest() {
        assert_eq!(verdict(1000, 1000, 1), Verdict::Ok);
        assert_eq!(verdict(1000, 940, 1), Verdict::Ok);
        assert_eq!(verdict(0, 0, 9_000), Verdict::Ok, "idle");
        assert_eq!(verdict(10, 0, 9_000), Verdict::Ok, "idle, but for signals");
        assert_eq!(verdict(500, 900, 1), Verdict::Ok, "harms only itself");
    }

    #[test]
    fn who_claims_less_lies() {
        assert!(matches!(verdict(1000, 0, 1), Verdict::Lies { .. }));
        assert!(matches!(verdict(1000, 900, 1), Verdict::Lies { .. }));
        assert!(matches!(verdict(100, 0, 1), Verdict::Lies { .. }));
    }

    #[test]
    fn silence_is_no_excuse() {
        assert!(matches!(verdict(1000, 0, 9_000), Verdict::Lies { .. }));
        let begin = sample(10_000, Some(0), 0, 9_999);
        let future = sample(11_000, Some(1000), 0, 99_000);
        let verdict = judge(Some(&begin), Some(&future), 2);
        assert!(matches!(verdict, Verdict::Lies { .. }));
    }

    #[test]
    fn service_that_runs_backwards_is_none() {
        let begin = sample(10_000, Some(0), 5_000, 9_999);
        let end = sample(11_000, Some(1000), 0, 10_999);
        assert!(matches!(
            judge(Some(&begin), Some(&end), 2),
            Verdict::Lies { .. }
        ));
    }

    #[test]
    fn who_is_no_process_lies_and_who_is_new_is_not_judged() {
        let end = sample(11_000, None, 0, 10_999);
        assert!(matches!(judge(None, Some(&end), 2), Verdict::Lies { .. }));
        let end = sample(11_000, Some(5), 0, 10_999);
        assert_eq!(judge(None, Some(&end), 2), Verdict::New);
    }
}
