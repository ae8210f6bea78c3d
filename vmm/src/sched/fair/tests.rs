use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Nanos {
    Nanos::from_millis(millis)
}

fn claim(share: u32) -> Claim {
    reserved(share, 0, u32::MAX)
}

fn reserved(share: u32, reserve: u32, ceiling: u32) -> Claim {
    Claim {
        share,
        reserve: MilliCpu(reserve),
        ceiling: MilliCpu(ceiling),
    }
}

/// Rates in thousandths.
fn milli_rates(claims: &[Claim], processors: u32) -> Vec<u32> {
    let mut out = Vec::new();
    rates(claims, processors, &mut out);
    out.iter()
        .map(|rate| (rate * 1000.0).round() as u32)
        .collect()
}

#[test]
fn planetlabs_shapes() {
    // FIELD: one of two equal slices has 2 of 10 reserved.
    let claims = [reserved(1, 2000, 99_000), claim(1)];
    assert_eq!(milli_rates(&claims, 10), [6000, 4000]);
    // The node itself with a share of 5, five slices with one each, and the node idle.
    let mut claims = vec![claim(5)];
    claims.resize(6, claim(1));
    assert_eq!(
        milli_rates(&claims, 10),
        [5000, 1000, 1000, 1000, 1000, 1000]
    );
    assert_eq!(milli_rates(&claims[1..], 10), [2000; 5]);
}

#[test]
fn nobody_is_due_more_than_it_can_use() {
    let claims = [
        reserved(10, 0, 1000),
        reserved(1, 0, 1000),
        reserved(1, 0, 1000),
    ];
    assert_eq!(milli_rates(&claims, 2), [1000, 500, 500]);
    let claims = [
        reserved(1, 0, 1000),
        reserved(1, 0, 1000),
        reserved(1, 0, 1000),
        reserved(5, 0, 1000),
    ];
    assert_eq!(milli_rates(&claims, 2), [333, 333, 333, 1000]);
    // A cap below the reserve.
    let claims = [reserved(1, 800, 200), reserved(1, 0, 1000)];
    assert_eq!(milli_rates(&claims, 1), [200, 800]);
}

#[test]
fn reserves_that_cannot_be_honoured_are_scaled_down() {
    let claims = [
        reserved(1, 3000, 9000),
        reserved(1, 1000, 9000),
        reserved(1, 0, 9000),
    ];
    let rates = milli_rates(&claims, 2);
    assert_eq!(rates.iter().sum::<u32>(), 2000);
    assert!((1498..=1500).contains(&rates[0]), "{rates:?}");
    assert!((1..=3).contains(&rates[2]), "{rates:?}");
}

#[test]
fn no_claims_have_no_rates() {
    assert!(milli_rates(&[], 2).is_empty());
    assert_eq!(milli_rates(&[claim(0)], 2).len(), 1);
}

fn claims() -> impl Strategy<Value = Vec<Claim>> {
    let claim = (1..=10_000u32, 0..3000u32, 1..8000u32);
    let claim = claim.prop_map(|(share, reserve, ceiling)| {
        // Mostly without a reserve, as it is.
        reserved(share, reserve.saturating_sub(2000), ceiling)
    });
    prop::collection::vec(claim, 1..40)
}

proptest! {
    #[test]
    fn rates_use_the_node_and_keep_every_promise(claims in claims(), processors in 1..=16u32) {
        let mut rates_of = Vec::new();
        rates(&claims, processors, &mut rates_of);
        let milli = |value: u32| f64::from(value) / 1000.0;
        let ceilings: f64 = claims.iter().map(|claim| milli(claim.ceiling.0)).sum();
        let sum: f64 = rates_of.iter().sum();
        let capacity = ceilings.min(f64::from(processors));
        prop_assert!((sum - capacity).abs() < 1e-6, "{sum} of {capacity}");
        let reserves: f64 = claims
            .iter()
            .map(|claim| milli(claim.reserve.0.min(claim.ceiling.0)))
            .sum();
        let scale = (f64::from(processors) * 0.999 / reserves).min(1.0);
        let mut levels: Vec<f64> = Vec::new();
        for (claim, rate) in claims.iter().zip(&rates_of) {
            let reserve = milli(claim.reserve.0.min(claim.ceiling.0)) * scale;
            prop_assert!(*rate >= reserve - 1e-9 && *rate <= milli(claim.ceiling.0) + 1e-9);
            prop_assert!(*rate > 0.0);
            if *rate < milli(claim.ceiling.0) - 1e-9 {
                levels.push((rate - reserve) / f64::from(claim.share));
            }
        }
        // Whoever is below its ceiling has the same from each unit of its share.
        for level in &levels {
            prop_assert!((level - levels[0]).abs() <= 1e-9 * level.abs().max(1e-3));
        }
    }

    #[test]
    fn asking_for_more_never_gives_less(
        claims in claims(),
        processors in 1..=16u32,
        more in 1..1000u32,
        what in 0..3,
    ) {
        let mut before = Vec::new();
        rates(&claims, processors, &mut before);
        let mut asked = claims;
        match what {
            0 => asked[0].share += more,
            1 => asked[0].ceiling.0 += more,
            _ => asked[0].reserve.0 += more,
        }
        let mut after = Vec::new();
        rates(&asked, processors, &mut after);
        prop_assert!(after[0] >= before[0] - 1e-9, "{} < {}", after[0], before[0]);
    }

    #[test]
    fn any_claims_are_answered(
        claims in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 0..300),
        processors in any::<u32>(),
    ) {
        let claims: Vec<_> = claims.iter().map(|(a, b, c)| reserved(*a, *b, *c)).collect();
        let mut out = Vec::new();
        rates(&claims, processors, &mut out);
        prop_assert_eq!(out.len(), claims.len());
        prop_assert!(out.iter().all(|rate| rate.is_finite() && *rate >= 0.0));
    }
}

fn own(slot: usize, demand: u32) -> Own {
    Own {
        slot,
        claim: claim(1),
        demand,
        throttled: false,
    }
}

fn rival(slot: usize, vtime: Nanos) -> Rival {
    Rival {
        slot,
        claim: claim(1),
        demand: 1,
        waiting: false,
        place: Place::default(),
        vtime: vtime.0,
    }
}

fn waiting(slot: usize, vtime: Nanos) -> Rival {
    Rival {
        waiting: true,
        ..rival(slot, vtime)
    }
}

#[test]
fn alone_it_runs_and_looks_rarely() {
    let mut fair = Fair::new(ms(3));
    let decision = fair.look(ms(100), ms(3), &own(0, 1), &[], 2);
    let calm = Decision {
        turn: Turn::Run { look_at: ms(150) },
        wake: None,
        contended: false,
    };
    assert_eq!(decision, calm);
}

#[test]
fn who_comes_begins_where_the_others_are_in_the_mean_and_runs_at_once() {
    let mut fair = Fair::new(ms(0));
    let rivals = [rival(1, ms(5000)), rival(2, ms(4990))];
    let decision = fair.look(ms(5000), ms(0), &own(3, 1), &rivals, 2);
    assert_eq!(fair.vtime(), ms(4995).0);
    assert_eq!(decision.turn, Turn::Run { look_at: ms(5010) });
    assert!(decision.contended);
}

#[test]
fn who_is_ahead_steps_back_after_its_quantum_and_wakes_the_next() {
    let mut fair = Fair::new(ms(0));
    let rivals = [waiting(1, ms(1001)), waiting(2, ms(1000))];
    let decision = fair.look(ms(1000), ms(0), &own(0, 1), &rivals, 1);
    assert_eq!(decision.turn, Turn::Run { look_at: ms(1010) });
    assert_eq!(decision.wake, None);
    // It was stopped half-way and runs on; then its quantum is over.
    let decision = fair.look(ms(1010), ms(5), &own(0, 1), &rivals, 1);
    assert_eq!(decision.turn, Turn::Run { look_at: ms(1015) });
    let decision = fair.look(ms(1015), ms(10), &own(0, 1), &rivals, 1);
    assert!(
        matches!(decision.turn, Turn::StepBack { .. }),
        "{decision:?}"
    );
    assert_eq!(decision.wake, Some(2));
    // Three share one processor: 10 ms are 30 of virtual time.
    assert_eq!(fair.vtime(), ms(1030).0 + 500_000);
}

#[test]
fn nobody_steps_back_while_it_has_had_least() {
    let mut fair = Fair::new(ms(0));
    let rivals = [rival(1, ms(1000)), waiting(2, ms(1000))];
    fair.look(ms(1000), ms(0), &own(0, 1), &rivals, 1);
    let rivals = [rival(1, ms(1100)), waiting(2, ms(1110))];
    for step in 1..=3 {
        let used = ms(10 * step);
        let decision = fair.look(ms(1000) + used, used, &own(0, 1), &rivals, 1);
        assert!(matches!(decision.turn, Turn::Run { .. }), "{decision:?}");
    }
}

#[test]
fn who_has_stepped_back_goes_on_when_a_processor_is_left() {
    let mut fair = Fair::new(ms(0));
    let busy = [rival(1, ms(900)), waiting(2, ms(1000))];
    fair.look(ms(1000), ms(0), &own(0, 1), &busy, 1);
    let decision = fair.look(ms(1010), ms(10), &own(0, 1), &busy, 1);
    assert!(
        matches!(decision.turn, Turn::StepBack { .. }),
        "{decision:?}"
    );
    // Its turn by rank, but nobody has stepped back yet.
    let busy = [rival(1, ms(2000)), waiting(2, ms(2000))];
    let decision = fair.look(ms(1020), ms(10), &own(0, 1), &busy, 1);
    assert!(
        matches!(decision.turn, Turn::StepBack { .. }),
        "{decision:?}"
    );
    let free = [waiting(1, ms(2000)), waiting(2, ms(2000))];
    let decision = fair.look(ms(1021), ms(10), &own(0, 1), &free, 1);
    assert!(matches!(decision.turn, Turn::Run { .. }), "{decision:?}");
}

#[test]
fn against_a_rival_that_does_not_step_back_it_goes_on_by_rank() {
    let mut fair = Fair::new(ms(0));
    let before = [rival(1, ms(900)), waiting(2, ms(1000))];
    fair.look(ms(1000), ms(0), &own(0, 1), &before, 1);
    fair.look(ms(1010), ms(10), &own(0, 1), &before, 1);
    let after = [rival(1, ms(2000)), waiting(2, ms(2000))];
    for (moment, runs) in [(1015, false), (1034, false), (1035, true)] {
        let decision = fair.look(ms(moment), ms(10), &own(0, 1), &after, 1);
        let run = matches!(decision.turn, Turn::Run { .. });
        assert_eq!(run, runs, "{moment}: {decision:?}");
    }
}

#[test]
fn free_processors_are_taken_out_of_turn_if_nobody_else_does() {
    let mut fair = Fair::new(ms(0));
    let rivals = [waiting(1, ms(900)), waiting(2, ms(900))];
    fair.look(ms(1000), ms(0), &own(0, 1), &rivals, 1);
    fair.look(ms(1010), ms(10), &own(0, 1), &rivals, 1);
    let decision = fair.look(ms(1020), ms(10), &own(0, 1), &rivals, 1);
    let step_back = Turn::StepBack { look_at: ms(1021) };
    assert_eq!((decision.turn, decision.wake), (step_back, Some(1)));
    let decision = fair.look(ms(1021), ms(10), &own(0, 1), &rivals, 1);
    assert!(matches!(decision.turn, Turn::Run { .. }), "{decision:?}");
}

#[test]
fn who_goes_idle_wakes_the_next() {
    let mut fair = Fair::new(ms(0));
    let rivals = [rival(1, ms(900)), waiting(2, ms(1000))];
    fair.look(ms(1000), ms(0), &own(0, 1), &rivals, 2);
    let decision = fair.look(ms(1003), ms(3), &own(0, 0), &rivals, 2);
    assert_eq!(decision.wake, Some(2));
    assert_eq!(
        decision.turn,
        Turn::Run {
            look_at: Nanos::NEVER
        }
    );
}

#[test]
fn sleeping_earns_nothing_and_forgets_nothing() {
    let mut fair = Fair::new(ms(0));
    let rivals = [rival(1, ms(1000)), waiting(2, ms(1001))];
    fair.look(ms(1000), ms(0), &own(0, 1), &rivals, 1);
    fair.look(ms(1009), ms(9), &own(0, 0), &rivals, 1);
    assert_eq!(fair.vtime(), ms(1027).0 + 500_000);
    // Back at once: what it owes, it owes.
    let decision = fair.look(ms(1010), ms(9), &own(0, 1), &rivals, 1);
    assert!(
        matches!(decision.turn, Turn::StepBack { .. }),
        "{decision:?}"
    );
    assert_eq!(fair.vtime(), ms(1027).0 + 500_000);
}

#[test]
fn what_is_owed_is_service_at_any_rate() {
    let mut fair = Fair::new(ms(0));
    let mut rivals = vec![waiting(1, ms(1000)); 9];
    fair.look(ms(1000), ms(0), &own(0, 1), &rivals, 1);
    fair.look(ms(1010), ms(10), &own(0, 1), &rivals, 1);
    assert_eq!(fair.vtime(), ms(1100).0);
    // Of ten slivers two are left: 10 ms are worth 20 at half a processor.
    rivals.truncate(1);
    fair.look(ms(1011), ms(10), &own(0, 1), &rivals, 1);
    assert_eq!(fair.vtime(), ms(1020).0);
}

proptest! {
    #[test]
    fn any_rivals_are_answered(
        looks in prop::collection::vec(
            (
                any::<u64>(),
                any::<u64>(),
                0..5u32,
                prop::collection::vec(
                    (any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>(), any::<u64>()),
                    0..20,
                ),
            ),
            1..20,
        ),
        processors in 1..=u32::MAX,
    ) {
        let mut fair = Fair::new(ms(0));
        let mut moment = Nanos::ZERO;
        for (now, consumed, demand, others) in looks {
            moment = moment.max(Nanos(now));
            let rivals: Vec<_> = others
                .iter()
                .enumerate()
                .map(|(slot, (share, milli, demand, waiting, vtime))| Rival {
                    slot,
                    claim: reserved(*share, *milli, milli.rotate_left(7)),
                    demand: *demand,
                    waiting: *waiting,
                    place: Place::default(),
                    vtime: *vtime,
                })
                .collect();
            let decision = fair.look(moment, Nanos(consumed), &own(99, demand), &rivals, processors);
            if let Some(slot) = decision.wake {
                prop_assert!(rivals[slot].waiting && rivals[slot].demand > 0);
            }
            match decision.turn {
                Turn::Run { look_at } | Turn::StepBack { look_at } => {
                    prop_assert!(look_at >= moment);
                }
            }
        }
    }
}
