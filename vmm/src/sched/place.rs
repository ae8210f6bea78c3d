//! On which of the node's processors a sliver's vCPU goes on.
//!
//! When a sliver steps back and wakes the next, no processor is free yet: the host queues who was
//! woken where it ran last, often behind a third, and the processor that was left stands idle until
//! the host balances again, for milliseconds. So each sliver says in the ledger where it runs and
//! until when, and who steps back goes to sleep on the processor that it will most likely be woken
//! from. Who finds itself beside another all the same moves to where nobody says to be. What others
//! say is a hint: if it is wrong, the host balances as it would have.

use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::fair::Rival;
use crate::nanos::Nanos;

/// Where a sliver runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Number of the processor, as the host counts.
    pub processor: u32,
    /// When it looks again whether it may go on.
    pub until: Nanos,
}

/// The processors that this node gives to slivers: those on which this process may run. A control
/// group's quota does not count, it is the sliver's own.
pub(super) fn processors() -> &'static CpuSet {
    static SET: OnceLock<CpuSet> = OnceLock::new();
    SET.get_or_init(|| sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new()))
}

/// The processor that the calling thread runs on.
pub(crate) fn current() -> u32 {
    u32::try_from(sched_getcpu()).unwrap_or(0)
}

/// Moves the calling thread to a processor, from where the host may move it on.
pub(crate) fn go_to(processor: u32) {
    // Whoever has narrowed the choice meanwhile has the last word.
    if let Ok(allowed) = sched_getaffinity(None)
        && contains(&allowed, processor)
    {
        let mut only = CpuSet::new();
        only.set(processor as usize);
        if sched_setaffinity(None, &only).is_ok() {
            let _ = sched_setaffinity(None, &allowed);
        }
    }
}

/// Where who runs `here` shall go on: elsewhere, if a rival runs here, and none there.
pub(super) fn to_run(here: u32, rivals: &[Rival], processors: &CpuSet) -> u32 {
    let runs_at = |processor: u32| running(rivals).any(|place| place.processor == processor);
    if !runs_at(here) {
        return here;
    }
    let mut allowed = (0..CpuSet::MAX_CPU as u32).filter(|one| contains(processors, *one));
    allowed.find(|other| !runs_at(*other)).unwrap_or(here)
}

/// Where who steps back `here` shall wait: where there will be room for it, if those who run go
/// one after the other as they say, and those who wait come in the order of their virtual times.
/// `next` is the rival that is woken now, to run here.
pub(super) fn to_wait(
    here: Place,
    own: (u64, usize),
    next: Option<usize>,
    rivals: &[Rival],
    processors: &CpuSet,
) -> u32 {
    let mut places: Vec<Place> = running(rivals).chain(next.map(|_| here)).collect();
    places.retain(|place| contains(processors, place.processor));
    places.sort_by_key(|place| place.until);
    let before = rivals.iter().filter(|rival| {
        rival.demand > 0
            && rival.waiting
            && next != Some(rival.slot)
            && (rival.vtime, rival.slot) < own
    });
    let turn = before.count().checked_rem(places.len());
    turn.map_or(here.processor, |turn| places[turn].processor)
}

/// Any number can have been published, and a set answers only for those it has room for.
fn contains(set: &CpuSet, processor: u32) -> bool {
    let index = processor as usize;
    index < CpuSet::MAX_CPU && set.is_set(index)
}

fn running(rivals: &[Rival]) -> impl Iterator<Item = Place> {
    let running = rivals
        .iter()
        .filter(|rival| rival.demand > 0 && !rival.waiting);
    running.map(|rival| rival.place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sched::fair::Claim;
    use crate::spec::MilliCpu;

    fn rival(slot: usize, waiting: bool, vtime: u64, processor: u32, until: u64) -> Rival {
        let until = Nanos(until);
        Rival {
            slot,
            claim: Claim {
                share: 1,
                reserve: MilliCpu(0),
                ceiling: MilliCpu(1000),
            },
            demand: 1,
            waiting,
            place: Place { processor, until },
            vtime,
        }
    }

    fn set(processors: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        for processor in processors {
            set.set(*processor);
        }
        set
    }

    #[test]
    fn who_runs_beside_another_goes_where_nobody_runs() {
        let rivals = [rival(1, false, 5, 0, 9), rival(2, true, 5, 2, 9)];
        assert_eq!(to_run(0, &rivals, &set(&[0, 2, 3])), 2);
        assert_eq!(to_run(3, &rivals, &set(&[0, 2, 3])), 3);
        // Not where it may not, and not to share another's.
        assert_eq!(to_run(0, &rivals, &set(&[0])), 0);
        let full = [rivals[0], rival(2, false, 5, 2, 9)];
        assert_eq!(to_run(0, &full, &set(&[0, 2])), 0);
    }

    #[test]
    fn who_waits_does_so_where_its_turn_will_come() {
        let here = Place {
            processor: 1,
            until: Nanos(20),
        };
        let both = set(&[0, 1]);
        // One runs until 15 on 0; slot 2 is woken now and runs here until 20.
        let mut rivals = vec![rival(1, false, 7, 0, 15), rival(2, true, 7, 1, 0)];
        assert_eq!(to_wait(here, (10, 0), Some(2), &rivals, &both), 0);
        // One more that waits is before it, and then two.
        rivals.push(rival(3, true, 8, 1, 0));
        assert_eq!(to_wait(here, (10, 0), Some(2), &rivals, &both), 1);
        rivals.push(rival(4, true, 9, 1, 0));
        assert_eq!(to_wait(here, (10, 0), Some(2), &rivals, &both), 0);
        // One that comes after it changes nothing.
        rivals.push(rival(5, true, 11, 1, 0));
        assert_eq!(to_wait(here, (10, 0), Some(2), &rivals, &both), 0);
        // Nobody runs anywhere that is known.
        assert_eq!(to_wait(here, (10, 0), None, &[], &both), 1);
    }

    proptest! {
        #[test]
        fn whatever_rivals_say_one_stays_or_goes_where_one_may(
            said in proptest::collection::vec(any::<(bool, u64, u32, u64)>(), 0..20),
            small in any::<bool>(),
            here in 0u32..4,
            vtime in any::<u64>(),
            next in proptest::option::of(0usize..20),
        ) {
            let rivals: Vec<Rival> = said
                .iter()
                .enumerate()
                .map(|(slot, (waiting, vtime, processor, until))| {
                    let processor = if small { processor % 4 } else { *processor };
                    rival(slot, *waiting, *vtime, processor, *until)
                })
                .collect();
            let allowed = set(&[0, 1, 3]);
            let there = to_run(here, &rivals, &allowed);
            prop_assert!(there == here || allowed.is_set(there as usize));
            let place = Place { processor: here, until: Nanos(5) };
            let there = to_wait(place, (vtime, 20), next, &rivals, &allowed);
            prop_assert!(there == here || allowed.is_set(there as usize));
        }
    }
}
