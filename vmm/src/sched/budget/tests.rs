use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn ms(millis: u64) -> Nanos {
    Nanos::from_millis(millis)
}

fn bandwidth(quota: u64, period: u64, burst: u64) -> Bandwidth {
    Bandwidth {
        quota: ms(quota),
        period: ms(period),
        burst: ms(burst),
    }
}

fn budget(quota: u64, period: u64, burst: u64) -> Budget {
    let wanted = bandwidth(quota, period, burst);
    Budget::new(Some(wanted), Nanos::ZERO, Nanos::ZERO)
}

fn run(left: u64, end: u64) -> Grant {
    Grant::Run {
        left: ms(left),
        end: ms(end),
    }
}

fn wait(until: u64) -> Grant {
    Grant::Wait { until: ms(until) }
}

#[test]
fn without_a_cap_all_is_granted() {
    let mut free = Budget::new(None, ms(5), ms(7));
    assert_eq!(free.look(ms(1000), ms(4000)), Grant::Unlimited);
    assert_eq!(free.counters(), BudgetCounters::default());
}

#[test]
fn a_quota_is_granted_once_in_each_period() {
    let mut budget = budget(2, 10, 0);
    assert_eq!(budget.look(ms(0), ms(0)), run(2, 10));
    assert_eq!(budget.look(ms(1), ms(1)), run(1, 10));
    assert_eq!(budget.look(ms(2), ms(2)), wait(10));
    assert_eq!(budget.look(ms(10), ms(2)), run(2, 20));
}

#[test]
fn debt_is_paid_from_the_next_quotas() {
    let mut budget = budget(2, 10, 0);
    assert_eq!(
        budget.look(ms(9), ms(7)),
        wait(30),
        "5 ms are two quotas and a half"
    );
    assert_eq!(budget.counters().debt, ms(5));
    assert_eq!(budget.look(ms(20), ms(7)), wait(30));
    assert_eq!(budget.look(ms(30), ms(7)), run(1, 40));
}

#[test]
fn debt_of_exactly_a_quota_takes_one_more_period() {
    let mut budget = budget(2, 10, 0);
    assert_eq!(budget.look(ms(4), ms(4)), wait(20));
    assert_eq!(budget.look(ms(20), ms(4)), run(2, 30));
}

#[test]
fn what_is_not_used_is_lost_but_for_the_burst() {
    let mut lean = budget(2, 10, 0);
    let mut saver = budget(2, 10, 5);
    assert_eq!(lean.look(ms(1005), ms(0)), run(2, 1010));
    assert_eq!(saver.look(ms(5), ms(0)), run(2, 10));
    assert_eq!(saver.look(ms(15), ms(0)), run(4, 20));
    assert_eq!(saver.look(ms(1005), ms(0)), run(7, 1010));
}

#[test]
fn a_late_look_charges_each_period_with_its_own() {
    // One of two processors used throughout, of three halves that are granted.
    let mut budget = budget(15, 10, 0);
    assert_eq!(budget.look(ms(0), ms(0)), run(15, 10));
    assert_eq!(budget.look(ms(12), ms(12)), run(13, 20));
    assert_eq!(budget.look(ms(58), ms(58)), run(7, 60));
}

#[test]
fn a_late_look_does_not_forgive_what_was_used_after_the_end() {
    let mut budget = budget(5, 10, 0);
    let just_before = Nanos(10 * MS - 1);
    assert_eq!(
        budget.look(just_before, ms(0)),
        Grant::Run {
            left: ms(5),
            end: ms(10)
        }
    );
    let Grant::Run { left, end } = budget.look(ms(13), ms(3)) else {
        panic!("there is some left");
    };
    assert_eq!((end, left.0.div_ceil(MS)), (ms(20), 2));
}

#[test]
fn who_has_waited_as_told_is_let_in_though_waking_up_took_the_quota() {
    let mut budget = budget(1, 10, 0);
    assert_eq!(budget.look(ms(1), ms(1)), wait(10));
    assert_eq!(budget.look(ms(9), ms(2)), wait(20));
    let let_in = Grant::Run {
        left: Nanos(1),
        end: ms(30),
    };
    assert_eq!(budget.look(ms(20), ms(5)), let_in);
    assert_eq!(budget.look(ms(20), ms(5)), wait(50));
}

#[test]
fn throttled_time_ends_when_there_is_budget_again() {
    let mut budget = budget(2, 10, 0);
    budget.look(ms(0), ms(0));
    budget.look(ms(2), ms(2));
    // Nobody comes for long: it was throttled for 8 ms and idle afterwards.
    budget.look(ms(500), ms(2));
    let counters = budget.counters();
    assert_eq!(counters.throttled, ms(8));
    assert_eq!((counters.periods, counters.throttled_periods), (2, 1));
}

#[test]
fn each_period_waited_in_counts_once() {
    let mut early = budget(2, 10, 0);
    let mut late = early.clone();
    for budget in [&mut early, &mut late] {
        assert_eq!(budget.look(ms(9), ms(7)), wait(30));
    }
    for moment in [10, 11, 25, 29] {
        assert_eq!(early.look(ms(moment), ms(7)), wait(30));
    }
    for budget in [&mut early, &mut late] {
        assert_eq!(budget.look(ms(30), ms(7)), run(1, 40));
        let counters = budget.counters();
        assert_eq!(counters.throttled, ms(21));
        assert_eq!((counters.periods, counters.throttled_periods), (4, 3));
    }
}

#[test]
fn overruns_are_summed_and_the_worst_kept() {
    let mut budget = budget(2, 10, 0);
    budget.look(ms(3), ms(3));
    budget.look(ms(20), ms(3));
    budget.look(ms(25), ms(8));
    let counters = budget.counters();
    assert_eq!(counters.overrun, ms(1 + 3));
    assert_eq!(counters.worst_overrun, ms(3));
    assert_eq!(counters.debt, ms(3));
}

#[test]
fn a_new_cap_is_worth_its_time() {
    // A fifth of 100 ms, used at once; then half of a processor for the remaining 80 ms.
    let mut raised = budget(20, 100, 0);
    raised.look(ms(20), ms(20));
    raised.set(Some(bandwidth(50, 100, 0)), ms(20), ms(20));
    // 4 ms earned, 20 used; 40 more until the end. A nanosecond goes to rounding.
    let Grant::Run { left, end } = raised.look(ms(20), ms(20)) else {
        panic!("there is some left");
    };
    assert_eq!((left, end), (Nanos(24 * MS - 1), ms(100)));

    let mut lowered = budget(20, 100, 0);
    lowered.set(Some(bandwidth(1, 10, 0)), ms(20), ms(20));
    // 16 ms ahead at a tenth: nothing for 160 ms.
    assert_eq!(lowered.look(ms(20), ms(20)), wait(180));
}

#[test]
fn the_same_cap_again_changes_nothing() {
    let mut budget = budget(2, 10, 0);
    budget.look(ms(1), ms(1));
    for _ in 0..100 {
        budget.set(Some(bandwidth(2, 10, 0)), ms(1), ms(1));
    }
    assert_eq!(budget.look(ms(1), ms(1)), run(1, 10));
}

#[test]
fn lifting_a_cap_forgives_and_a_later_one_begins_anew() {
    let mut budget = budget(2, 10, 0);
    budget.look(ms(9), ms(9));
    budget.set(None, ms(9), ms(9));
    assert_eq!(budget.look(ms(12), ms(12)), Grant::Unlimited);
    budget.set(Some(bandwidth(3, 10, 0)), ms(17), ms(17));
    assert_eq!(budget.look(ms(17), ms(17)), run(3, 27));
}

#[test]
fn nonsense_is_survived() {
    let none = Bandwidth {
        quota: Nanos::ZERO,
        period: Nanos::ZERO,
        burst: Nanos::ZERO,
    };
    let mut budget = Budget::new(Some(none), ms(1), ms(1));
    let never = Grant::Wait {
        until: Nanos::NEVER,
    };
    assert_eq!(budget.look(ms(2), ms(1)), never);
    assert_eq!(budget.look(Nanos::NEVER, Nanos::NEVER), never);
    assert_eq!(budget.look(ms(1), ms(1)), never, "clocks do not go back");
    let huge = Bandwidth {
        quota: Nanos::NEVER,
        period: Nanos(1),
        burst: Nanos::NEVER,
    };
    budget.set(Some(huge), ms(3), ms(1));
    budget.look(Nanos::NEVER, Nanos::NEVER);
    budget.look(Nanos::NEVER, Nanos::NEVER);
}

/// A monitor that runs its guest on some processors while it may.
struct Monitor {
    budget: Budget,
    now: u64,
    consumed: u64,
    processors: u64,
    /// Service as (begin, end) at the monitor's processors.
    runs: Vec<(u64, u64)>,
    worst: u64,
}

impl Monitor {
    fn new(bandwidth: Bandwidth, processors: u64) -> Self {
        Self {
            budget: Budget::new(Some(bandwidth), Nanos::ZERO, Nanos::ZERO),
            now: 0,
            consumed: 0,
            processors,
            runs: Vec::new(),
            worst: 0,
        }
    }

    fn look(&mut self) -> Grant {
        self.budget.look(Nanos(self.now), Nanos(self.consumed))
    }

    fn run(&mut self, span: u64) {
        self.runs.push((self.now, self.now + span));
        self.now += span;
        self.consumed += span * self.processors;
    }

    /// Runs until `stop`, the end of the grant or of the period, then `late` more; or sleeps.
    fn step(&mut self, stop: u64, late: u64) {
        match self.look() {
            Grant::Run { left, end } => {
                let granted = (left.0.div_ceil(self.processors)).min(end.0 - self.now);
                if granted <= stop {
                    self.run(granted + late);
                    self.worst = self.worst.max((late + 1) * self.processors);
                } else {
                    self.run(stop);
                }
                self.look();
            }
            Grant::Wait { until } => self.now = until.0,
            Grant::Unlimited => unreachable!("there is a cap"),
        }
    }

    /// Service between two moments.
    fn service(&self, from: u64, to: u64) -> u64 {
        self.runs
            .iter()
            .map(|(begin, end)| end.min(&to).saturating_sub(*begin.max(&from)))
            .sum::<u64>()
            * self.processors
    }
}

fn bandwidths() -> impl Strategy<Value = Bandwidth> {
    (1..=100u64, 1..=2000u64, 0..=50u64).prop_map(|(period, permille, burst)| Bandwidth {
        quota: Nanos(period * MS * permille / 1000),
        period: ms(period),
        burst: ms(burst),
    })
}

#[derive(Debug, Clone)]
enum Step {
    Run { stop: u64, late: u64 },
    Sleep(u64),
}

fn steps(late: u64) -> impl Strategy<Value = Vec<Step>> {
    let long = 200 * MS;
    let step = prop_oneof![
        8 => (0..long, 0..=late).prop_map(|(stop, late)| Step::Run { stop, late }),
        4 => (0..=late).prop_map(move |late| Step::Run { stop: long, late }),
        1 => (0..long).prop_map(Step::Sleep),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn no_window_holds_more_than_its_quotas_the_burst_and_one_overrun(
        bandwidth in bandwidths(),
        processors in 1..=4u64,
        steps in steps(3 * MS),
    ) {
        let mut monitor = Monitor::new(bandwidth, processors);
        for step in steps {
            match step {
                Step::Run { stop, late } => monitor.step(stop, late),
                Step::Sleep(span) => monitor.now += span,
            }
        }
        let period = bandwidth.period.0;
        let mut edges = vec![];
        for (begin, end) in &monitor.runs {
            edges.extend([*begin, begin.next_multiple_of(period), *end]);
        }
        for from in &edges {
            for to in edges.iter().filter(|to| *to > from) {
                let quotas = (to - from).div_ceil(period) + 1;
                let bound = bandwidth.quota.0 * quotas + bandwidth.burst.0 + monitor.worst;
                let service = monitor.service(*from, *to);
                prop_assert!(service <= bound, "{service} > {bound} from {from} to {to}");
            }
        }
    }

    #[test]
    fn who_always_wants_to_run_gets_every_quota(
        bandwidth in bandwidths(),
        lates in prop::collection::vec(0..MS, 1..100),
    ) {
        let processors = 4;
        let mut monitor = Monitor::new(bandwidth, processors);
        for late in lates {
            monitor.step(u64::MAX / 2, late);
            let whole = monitor.now / bandwidth.period.0;
            let entitled = whole * bandwidth.quota.0;
            prop_assert!(monitor.consumed >= entitled, "{} < {entitled}", monitor.consumed);
            let most = entitled + bandwidth.quota.0 + monitor.worst;
            prop_assert!(monitor.consumed <= most, "{} > {most}", monitor.consumed);
        }
    }

    #[test]
    fn changes_back_and_forth_gain_nothing(
        caps in prop::collection::vec(bandwidths(), 2..4),
        steps in prop::collection::vec((0..3usize, 0..30 * MS, 0..MS / 10), 1..200),
    ) {
        let processors = 2;
        let mut cap = caps[0];
        let mut monitor = Monitor::new(cap, processors);
        let mut entitled = 0.0;
        for (which, stop, late) in steps {
            let before = monitor.now;
            monitor.step(stop, late);
            let spent = (monitor.now - before) as f64;
            entitled += spent * cap.quota.0 as f64 / cap.period.0 as f64;
            cap = caps[which % caps.len()];
            monitor.budget.set(Some(cap), Nanos(monitor.now), Nanos(monitor.consumed));
        }
        let largest = caps.iter().map(|cap| cap.quota.0 + cap.burst.0).max().unwrap_or(0);
        let bound = entitled + (largest + monitor.worst) as f64 + 1000.0;
        prop_assert!(monitor.consumed as f64 <= bound, "{} > {bound}", monitor.consumed);
    }

    #[test]
    fn looking_often_changes_nothing(
        bandwidth in bandwidths(),
        looks in prop::collection::vec(1..5 * MS, 1..100),
        wanted in 1..=2u64,
    ) {
        // Both run evenly and do not heed the answer; one looks at every turn.
        let mut often = Budget::new(Some(bandwidth), Nanos::ZERO, Nanos::ZERO);
        let mut once = often.clone();
        let mut now = 0;
        for span in looks {
            now += span;
            often.look(Nanos(now), Nanos(now * wanted));
        }
        once.look(Nanos(now), Nanos(now * wanted));
        let apart = (often.left - once.left).abs();
        prop_assert!(apart < 1000, "{} and {}", often.left, once.left);
    }

    #[test]
    fn any_sequence_of_looks_is_answered_sensibly(
        bandwidth in bandwidths(),
        looks in prop::collection::vec((any::<u64>(), any::<u64>()), 1..50),
    ) {
        let mut budget = Budget::new(Some(bandwidth), Nanos::ZERO, Nanos::ZERO);
        let mut latest = 0;
        for (now, consumed) in looks {
            latest = latest.max(now >> 1);
            match budget.look(Nanos(now >> 1), Nanos(consumed)) {
                Grant::Run { left, end } => {
                    prop_assert!(left > Nanos::ZERO && end.0 > latest);
                    prop_assert!(left <= bandwidth.quota + bandwidth.burst);
                }
                Grant::Wait { until } => prop_assert!(until.0 > latest),
                Grant::Unlimited => prop_assert!(false, "there is a cap"),
            }
            let counters = budget.counters();
            prop_assert!(counters.throttled_periods <= counters.periods);
        }
    }
}
