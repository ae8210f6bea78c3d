//! How much processor time a sliver may use until when: a constant bandwidth server (Abeni 1998).
//!
//! On a fixed grid of periods the sliver gets its quota at the beginning of each. What it uses
//! beyond that is debt and is paid from the next quotas, so that in the long run it gets exactly
//! its bandwidth however late somebody looks. What it leaves is lost but for the burst.
//!
//! This only counts. Who runs the sliver looks whenever it begins or ceases to run, and at least
//! when a grant is used up or its period ends, and stops it when told to wait.

#[cfg(test)]
mod tests;

use crate::nanos::Nanos;

/// Processor time per period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// In each period.
    pub quota: Nanos,
    /// The period.
    pub period: Nanos,
    /// What may be saved up beyond a quota.
    pub burst: Nanos,
}

/// The answer to a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// There is no cap.
    Unlimited,
    /// It may run.
    Run {
        /// Processor time that is left.
        left: Nanos,
        /// The moment at which the period ends and there is more.
        end: Nanos,
    },
    /// It has used what it had.
    Wait {
        /// The moment at which there is some again.
        until: Nanos,
    },
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetCounters {
    /// Time in which it wanted to run and had no budget.
    pub throttled: Nanos,
    /// Periods in which it ran or wanted to.
    pub periods: u64,
    /// Those of them in which it was throttled.
    pub throttled_periods: u64,
    /// Everything it used beyond its budget before it was stopped.
    pub overrun: Nanos,
    /// The most that it used beyond its budget at once.
    pub worst_overrun: Nanos,
    /// What it still has to pay back.
    pub debt: Nanos,
}

/// The budget of one sliver.
#[derive(Debug, Clone)]
pub struct Budget {
    bandwidth: Option<Bandwidth>,
    /// What is left of the present period; debt if negative.
    left: i128,
    /// End of the present period.
    end: Nanos,
    /// Moment of the last look, and what had been consumed then.
    looked: Nanos,
    consumed: Nanos,
    /// The answer of the last look, if it was to wait.
    wait: Option<Nanos>,
    /// Whether the present period has been counted, and as a throttled one.
    counted: bool,
    counted_throttled: bool,
    counters: BudgetCounters,
}

impl Budget {
    /// A full budget at `now`; what has been `consumed` before is not charged.
    pub fn new(bandwidth: Option<Bandwidth>, now: Nanos, consumed: Nanos) -> Self {
        let mut budget = Self {
            bandwidth: None,
            left: 0,
            end: now,
            looked: now,
            consumed,
            wait: None,
            counted: false,
            counted_throttled: false,
            counters: BudgetCounters::default(),
        };
        budget.set(bandwidth, now, consumed);
        budget
    }

    /// Charges what was consumed since the last look, and tells how to go on. `consumed` is all
    /// of the sliver's processor time so far.
    pub fn look(&mut self, now: Nanos, consumed: Nanos) -> Grant {
        let waited = self.charge(now, consumed);
        let Some(bandwidth) = self.bandwidth else {
            return Grant::Unlimited;
        };
        // To wake up and look takes time, too, and may take a small quota whole: who would have to
        // wait again for that would do nothing else.
        let has_waited = waited.is_some_and(|until| until <= now && until != Nanos::NEVER);
        if !std::mem::replace(&mut self.counted, true) {
            self.counters.periods += 1;
        }
        if self.left > 0 || has_waited {
            return Grant::Run {
                left: Nanos(to_u64(self.left).max(1)),
                end: self.end,
            };
        }
        if !std::mem::replace(&mut self.counted_throttled, true) {
            self.counters.throttled_periods += 1;
        }
        let until = match i128::from(bandwidth.quota.0) {
            0 => Nanos::NEVER,
            quota => {
                let more = to_u64(-self.left / quota);
                self.end + Nanos(more.saturating_mul(bandwidth.period.0))
            }
        };
        self.wait = Some(until);
        Grant::Wait { until }
    }

    /// Changes the bandwidth at once.
    ///
    /// What was left or owed is carried over by the time that has passed: the part of the old
    /// quota for the rest of the old period is taken back, and that of the new one given. So a
    /// change in the middle of a period is worth exactly its time, and changes back and forth gain
    /// nothing. Without a cap nothing can be owed: the next one begins anew.
    pub fn set(&mut self, bandwidth: Option<Bandwidth>, now: Nanos, consumed: Nanos) {
        self.charge(now, consumed);
        let bandwidth = bandwidth.map(|wanted| Bandwidth {
            period: wanted.period.max(Nanos(1)),
            ..wanted
        });
        if bandwidth == self.bandwidth {
            return;
        }
        let now = self.looked;
        match (self.bandwidth, bandwidth) {
            (Some(old), Some(new)) => {
                let rest = self.end - now;
                self.left -= pro_rata(old, rest) + 1;
                self.end = self.end.min(now + new.period);
                self.left += pro_rata(new, self.end - now);
                self.left = self.left.min(most(new));
            }
            (None, Some(new)) => {
                self.left = i128::from(new.quota.0);
                self.end = now + new.period;
                (self.counted, self.counted_throttled) = (false, false);
            }
            (_, None) => self.left = 0,
        }
        self.bandwidth = bandwidth;
    }

    /// What happened so far.
    pub fn counters(&self) -> BudgetCounters {
        BudgetCounters {
            debt: Nanos(to_u64(-self.left)),
            ..self.counters
        }
    }

    /// Charges what was consumed since the last look and renews the quota for each boundary that
    /// has passed. Until when it had been told to wait, if so.
    ///
    /// When within that time it was consumed, nobody knows: it is taken as evenly spread. To charge
    /// all of it to the old period would forgive what a late look let pass after its end; to charge
    /// it all to the new one would let the old quota expire though it had been used.
    fn charge(&mut self, now: Nanos, consumed: Nanos) -> Option<Nanos> {
        let since = self.looked;
        let now = now.max(since);
        let used = i128::from((consumed - self.consumed).0);
        self.looked = now;
        self.consumed = self.consumed.max(consumed);
        let waited = self.wait.take();
        let bandwidth = self.bandwidth?;
        if let Some(until) = waited {
            let throttled = now.min(until) - since;
            self.counters.throttled = self.counters.throttled + throttled;
        }
        if now < self.end {
            self.left -= used;
        } else {
            let passed = (now - self.end).0 / bandwidth.period.0;
            self.count_periods(now, passed, waited, bandwidth.period);
            let quota = i128::from(bandwidth.quota.0);
            let elapsed = i128::from((now - since).0).max(1);
            let before = used * i128::from((self.end - since).0) / elapsed;
            let begun = self.end + Nanos(passed.saturating_mul(bandwidth.period.0));
            let after = used * i128::from((now - begun).0) / elapsed;
            let between = used - before - after;
            self.left = (self.left - before + quota).min(most(bandwidth));
            // Evenly used, each of the periods between changes it by the same: what the end is
            // limited to, none of them has exceeded.
            let renewed = quota * i128::from(passed);
            self.left = (self.left - between + renewed).min(most(bandwidth)) - after;
            self.end = begun + bandwidth.period;
        }
        if self.left < 0 {
            let overrun = Nanos(to_u64(used.min(-self.left)));
            self.counters.overrun = self.counters.overrun + overrun;
            self.counters.worst_overrun = self.counters.worst_overrun.max(overrun);
        }
        waited
    }

    /// Counts the periods that began since the last look and were waited in; `passed` of them are
    /// over, and one more has begun.
    fn count_periods(&mut self, now: Nanos, passed: u64, waited: Option<Nanos>, period: Nanos) {
        let begun = match waited {
            Some(until) if until > self.end => {
                let last = now.min(until - Nanos(1));
                (last - self.end).0 / period.0 + 1
            }
            _ => 0,
        };
        self.counters.periods += begun;
        self.counters.throttled_periods += begun;
        self.counted = begun > passed;
        self.counted_throttled = self.counted;
    }
}

/// The part of a quota for so much of the period.
fn pro_rata(bandwidth: Bandwidth, span: Nanos) -> i128 {
    i128::from(bandwidth.quota.0) * i128::from(span.0) / i128::from(bandwidth.period.0)
}

/// The most that can be left.
fn most(bandwidth: Bandwidth) -> i128 {
    i128::from(bandwidth.quota.0) + i128::from(bandwidth.burst.0)
}

/// The nearest that there is.
fn to_u64(value: i128) -> u64 {
    u64::try_from(value.max(0)).unwrap_or(u64::MAX)
}
