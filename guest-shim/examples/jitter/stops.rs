//! When vCPUs stood still: all of them together, or one alone.

use core::time::Duration;

use guest_shim::prelude::*;

/// A vCPU did nothing from one moment to another, counted from the start of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) start: Duration,
    pub(crate) end: Duration,
}

impl Stop {
    pub(crate) fn length(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// When all vCPUs stood still at once. The stops of each are in the order of time.
pub(crate) fn together(of_each: &[Vec<Stop>]) -> Vec<Stop> {
    let mut parts = of_each.iter();
    let first = parts.next().cloned().unwrap_or_default();
    parts.fold(first, |all, own| both(&all, own))
}

/// The parts of `own` that are not in `all`, which lies within it.
pub(crate) fn alone(own: &[Stop], all: &[Stop]) -> Vec<Stop> {
    let mut alone = Vec::new();
    let mut all = all.iter().peekable();
    for stop in own {
        let mut start = stop.start;
        while let Some(common) = all.next_if(|common| common.start < stop.end) {
            let end = common.start;
            alone.push(Stop { start, end });
            start = common.end;
        }
        let end = stop.end;
        alone.push(Stop { start, end });
    }
    alone.retain(|stop| stop.start < stop.end);
    alone
}

fn both(some: &[Stop], others: &[Stop]) -> Vec<Stop> {
    let mut common = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (some.get(i), others.get(j)) {
        let (start, end) = (a.start.max(b.start), a.end.min(b.end));
        if start < end {
            common.push(Stop { start, end });
        }
        if a.end < b.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stops(pairs: &[(u64, u64)]) -> Vec<Stop> {
        let stop = |&(start, end)| Stop {
            start: Duration::from_micros(start),
            end: Duration::from_micros(end),
        };
        pairs.iter().map(stop).collect()
    }

    #[test]
    fn what_all_share_is_no_ones_alone() {
        let of_each = [
            stops(&[(10, 20), (30, 60)]),
            stops(&[(12, 14), (15, 35), (70, 80)]),
        ];
        let all = together(&of_each);
        assert_eq!(all, stops(&[(12, 14), (15, 20), (30, 35)]));
        assert_eq!(
            alone(&of_each[0], &all),
            stops(&[(10, 12), (14, 15), (35, 60)])
        );
        assert_eq!(alone(&of_each[1], &all), stops(&[(20, 30), (70, 80)]));
    }

    #[test]
    fn a_vcpu_by_itself_is_never_alone() {
        let own = stops(&[(10, 20), (30, 60)]);
        let all = together(std::slice::from_ref(&own));
        assert_eq!(all, own);
        assert_eq!(alone(&own, &all), []);
    }

    fn any_stops() -> impl Strategy<Value = Vec<Stop>> {
        proptest::collection::vec((1u64..20, 1u64..20), 0..10).prop_map(|steps| {
            let mut at = 0;
            let pairs = steps.into_iter().map(|(gap, length)| {
                let start = at + gap;
                at = start + length;
                (start, at)
            });
            stops(&pairs.collect::<Vec<_>>())
        })
    }

    proptest! {
        #[test]
        fn together_and_alone_make_up_the_whole(a in any_stops(), b in any_stops()) {
            let sum = |stops: &[Stop]| stops.iter().map(Stop::length).sum::<Duration>();
            let all = together(&[a.clone(), b.clone()]);
            for own in [&a, &b] {
                prop_assert_eq!(sum(&all) + sum(&alone(own, &all)), sum(own));
            }
        }
    }
}
