//! Other slivers of the node that say anything of themselves: who looks runs or waits for a bounded
//! time, and its part of the processors and of the uplink is a number within what there is.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use vmm::nanos::Nanos;
use vmm::net::uplink::{Kbit, NetClaim, NetRival, OwnTraffic, Uplink};
use vmm::sched::fair::{Claim, Fair, Own, Rival, Turn, rates};
use vmm::sched::place::Place;
use vmm::spec::{MAX_SHARE, MilliCpu};
use vmm_fuzz::Unstructured;

/// What a ledger lets through of a sliver's vCPUs, in thousandths of a processor.
const MOST_CEILING: u32 = 32_000;
/// The longest that a look may put off the next, of who wants to run.
const LONGEST: Nanos = Nanos::from_millis(1000);

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(input: &mut Unstructured) -> Result<()> {
    let processors = 1 + u32::from(input.arbitrary::<u8>()?);
    let rate = Kbit(input.arbitrary::<u32>()?.max(1));
    let mut now = Nanos(u64::from(input.arbitrary::<u32>()?) << 16);
    let mut consumed = Nanos::ZERO;
    let mut fair = Fair::new(consumed);
    let mut uplink = Uplink::new(rate);
    let (mut carried, mut sent) = (0u64, 0u64);
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let passed = Nanos(u64::from(input.arbitrary::<u32>()?) >> (input.arbitrary::<u8>()? % 32));
        now = now + passed;
        consumed = consumed + Nanos(passed.0 * u64::from(input.arbitrary::<u8>()? % 33));
        if input.arbitrary()? {
            let rivals = many(input, |input, slot| rival(input, slot, now, processors))?;
            look(&mut fair, input, &rivals, (now, consumed, processors))?;
        } else {
            let rivals = many(input, |input, slot| net_rival(input, slot, rate))?;
            carried = carried.wrapping_add(input.arbitrary::<u32>()?.into());
            sent = sent.saturating_add(input.arbitrary::<u32>()?.into());
            let own = OwnTraffic {
                claim: net_claim(input, rate)?,
                tx_bytes: sent,
                waited: input.arbitrary()?,
            };
            let seen = input.arbitrary::<bool>()?.then_some(carried);
            let part = uplink.look(&own, &rivals, seen, now);
            assert!((1..=rate.0).contains(&part.rate.0), "{part:?} of {rate:?}");
            assert!(part.demand <= own.claim.max, "{part:?}");
        }
    }
    Ok(())
}

/// Some entries in the order of their slots.
fn many<T>(
    input: &mut Unstructured,
    mut one: impl FnMut(&mut Unstructured, usize) -> Result<T>,
) -> Result<Vec<T>> {
    let count = usize::from(input.arbitrary::<u8>()? % 12);
    let step = 1 + usize::from(input.arbitrary::<u8>()? % 8);
    (0..count).map(|i| one(input, 1 + i * step)).collect()
}

fn claim(input: &mut Unstructured, processors: u32) -> Result<Claim> {
    Ok(Claim {
        share: any_of(input, 1, MAX_SHARE)?,
        reserve: MilliCpu(any_of(input, 0, processors * 1000)?),
        ceiling: MilliCpu(any_of(input, 1, MOST_CEILING)?),
    })
}

/// A number in a range, often one of its ends.
fn any_of(input: &mut Unstructured, least: u32, most: u32) -> Result<u32> {
    Ok(match input.arbitrary::<u8>()? {
        0..64 => least,
        64..128 => most,
        _ => input.int_in_range(least..=most)?,
    })
}

fn rival(input: &mut Unstructured, slot: usize, now: Nanos, processors: u32) -> Result<Rival> {
    let lead = Nanos::from_millis(any_of(input, 0, 3_600_000)?.into());
    let vtime = match input.arbitrary::<u8>()? % 4 {
        0 => Nanos::ZERO,
        1 => now - lead,
        _ => now + lead,
    };
    Ok(Rival {
        slot,
        claim: claim(input, processors)?,
        demand: any_of(input, 1, 32)?,
        waiting: input.arbitrary()?,
        place: Place {
            processor: input.arbitrary()?,
            until: Nanos(input.arbitrary()?),
        },
        vtime: vtime.0,
    })
}

fn look(
    fair: &mut Fair,
    input: &mut Unstructured,
    rivals: &[Rival],
    (now, consumed, processors): (Nanos, Nanos, u32),
) -> Result<()> {
    let own = Own {
        slot: 0,
        claim: claim(input, processors)?,
        demand: any_of(input, 0, 32)?,
        throttled: input.arbitrary()?,
    };
    let decision = fair.look(now, consumed, &own, rivals, processors);
    let (Turn::Run { look_at } | Turn::StepBack { look_at }) = decision.turn;
    if own.demand > 0 {
        assert!(
            look_at > now && look_at <= now + LONGEST,
            "{decision:?} at {now:?}"
        );
    } else {
        assert!(matches!(decision.turn, Turn::Run { .. }), "{decision:?}");
    }
    if let Some(slot) = decision.wake {
        let woken = rivals.iter().find(|rival| rival.slot == slot);
        assert!(woken.is_some_and(|rival| rival.waiting), "{decision:?}");
    }
    if rivals.is_empty() {
        assert!(
            matches!(decision.turn, Turn::Run { .. }),
            "it waits for nobody"
        );
    }
    let mut claims = vec![own.claim];
    claims.extend(rivals.iter().map(|rival| rival.claim));
    let mut shared = Vec::new();
    rates(&claims, processors, &mut shared);
    assert_eq!(shared.len(), claims.len());
    let ceiling = |claim: &Claim| f64::from(claim.ceiling.0) / 1000.0;
    for (rate, claim) in shared.iter().zip(&claims) {
        assert!(
            (0.0..=ceiling(claim) + 1e-6).contains(rate),
            "{rate} for {claim:?}"
        );
    }
    let sum: f64 = shared.iter().sum();
    assert!(sum <= f64::from(processors) + 1e-3, "{sum} of {processors}");
    Ok(())
}

fn net_claim(input: &mut Unstructured, rate: Kbit) -> Result<NetClaim> {
    Ok(NetClaim {
        share: any_of(input, 1, MAX_SHARE)?,
        min: Kbit(any_of(input, 0, rate.0)?),
        max: Kbit(any_of(input, 0, rate.0)?),
    })
}

fn net_rival(input: &mut Unstructured, slot: usize, rate: Kbit) -> Result<NetRival> {
    Ok(NetRival {
        slot,
        claim: net_claim(input, rate)?,
        demand: Kbit(any_of(input, 0, rate.0)?),
        tx_bytes: match input.arbitrary::<u8>()? % 4 {
            0 => u64::MAX,
            1 => input.arbitrary()?,
            _ => input.arbitrary::<u32>()?.into(),
        },
    })
}
