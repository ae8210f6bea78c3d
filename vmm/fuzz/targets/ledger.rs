//! A ledger whose bytes are anybody's, written while it is used: whatever they are, those who read
//! it get sane entries, those who write it are whole again after their next look, and nobody is
//! harmed by a file that is cut.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use slice_abi::layout::MAX_VCPUS;
use tempfile::TempDir;
use vmm::nanos::Nanos;
use vmm::net::uplink::{Kbit, Membership, NameHash, NetClaim};
use vmm::sched::fair::Claim;
use vmm::sched::ledger::{Ledger, LedgerView, Published, SLOTS};
use vmm::sched::place::Place;
use vmm::spec::{MAX_SHARE, MilliCpu};
use vmm_fuzz::Unstructured;

const PAGE: u64 = 4096;
const PROCESSORS: u32 = 2;
const RATE: Kbit = Kbit(100_000);
/// Where in a page the entry of a slot may be.
const ENTRY: u64 = 192;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| {
    // In memory, as real ones are.
    tempfile::tempdir_in("/dev/shm").expect("there is memory")
});

fuzz_target!(|data: &[u8]| {
    let path = DIRECTORY.path().join("ledger");
    let _ = run(&mut Unstructured::new(data), &path);
    // The next input finds none.
    let _ = std::fs::remove_file(&path);
});

fn claim(reserve: u32) -> Claim {
    Claim {
        share: 1,
        reserve: MilliCpu(reserve),
        ceiling: MilliCpu(1000),
    }
}

fn membership(min: u32) -> Membership {
    Membership {
        uplink: NameHash::of("eth0"),
        slice: NameHash::of("a_b"),
        rate: RATE,
        claim: NetClaim {
            share: 1,
            min: Kbit(min),
            max: RATE,
        },
    }
}

fn run(input: &mut Unstructured, path: &Path) -> Result<()> {
    let (ledger, _) = Ledger::join(path, "honest", PROCESSORS, claim(100)).expect("a new one");
    ledger
        .set_net(&membership(100))
        .expect("nobody else is there");
    let (neighbour, _) = Ledger::join(path, "other", PROCESSORS, claim(0)).expect("has room");
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("it is there");
    let mut now = Nanos::from_millis(10_000_000);
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        now = now + Nanos::from_millis(input.arbitrary::<u8>()?.into());
        match input.arbitrary::<u8>()? % 16 {
            0..=7 => spoil(input, &file, now)?,
            8 => publish(&neighbour, now),
            9 => publish(&ledger, now),
            10 => {
                let reserve = u32::from(input.arbitrary::<u16>()?);
                let _ = ledger.set_claim(claim(reserve));
            }
            11 => {
                let _ = ledger.set_net(&membership(input.arbitrary::<u16>()?.into()));
            }
            12 => {
                let len = u64::from(input.arbitrary::<u16>()?) * 256;
                file.set_len(len).expect("a file is cut or grows");
            }
            13 | 14 => match input.arbitrary::<u8>()? % 8 {
                // They look at all slots, one system call each.
                0 => view(path, now),
                1 => {
                    // Whoever comes finds a sound ledger, or makes one.
                    if let Ok((newcomer, _)) = Ledger::join(path, "new", PROCESSORS, claim(0)) {
                        assert!(newcomer.is_current());
                    }
                }
                _ => drop(ledger.is_current()),
            },
            _ => spoil(input, &file, now)?,
        }
        sane(&ledger, now);
    }
    Ok(())
}

/// Writes anything anywhere: into the header, or into an entry.
fn spoil(input: &mut Unstructured, file: &File, now: Nanos) -> Result<()> {
    let slot = u64::from(input.arbitrary::<u8>()? % 8);
    let (at, width) = (
        u64::from(input.arbitrary::<u8>()?),
        1 + input.arbitrary::<u8>()? % 64,
    );
    let at = match input.arbitrary::<u8>()? % 8 {
        0 => at % 32,
        1 => PAGE * u64::from(input.arbitrary::<u16>()?) + at,
        _ => PAGE * (1 + slot) + slot * ENTRY + at % ENTRY / 4 * 4,
    };
    let bytes = match input.arbitrary::<u8>()? % 4 {
        // A moment that counts, and the name that stands for the uplink.
        0 => now.0.to_ne_bytes().to_vec(),
        1 => NameHash::of("eth0").number().to_ne_bytes().to_vec(),
        _ => input.bytes(usize::from(width).min(input.len()))?.to_vec(),
    };
    // Behind its end it would be no page that anybody has mapped.
    let room = file.metadata().expect("a file has a length").len();
    if at + bytes.len() as u64 <= room {
        file.write_all_at(&bytes, at).expect("it is memory");
    }
    Ok(())
}

fn publish(ledger: &Ledger, now: Nanos) {
    ledger.publish(
        now,
        Published {
            demand: 1,
            waiting: false,
            place: Place::default(),
            vtime: now.0,
            service: now,
        },
    );
    ledger.publish_net(now, RATE, now.0);
}

/// What holds for all that is read, whatever is written.
fn sane(ledger: &Ledger, now: Nanos) {
    let mut rivals = Vec::new();
    ledger.rivals(now, &mut rivals);
    assert!(rivals.len() < SLOTS && rivals.is_sorted_by_key(|rival| rival.slot));
    for rival in &rivals {
        assert!(rival.slot < SLOTS && rival.slot != ledger.slot());
        assert!((1..=MAX_VCPUS as u32).contains(&rival.demand), "{rival:?}");
        assert!((1..=MAX_SHARE).contains(&rival.claim.share), "{rival:?}");
        assert!(
            rival.claim.reserve <= MilliCpu(PROCESSORS * 1000),
            "{rival:?}"
        );
        assert!(
            (1..=MAX_VCPUS as u32 * 1000).contains(&rival.claim.ceiling.0),
            "{rival:?}"
        );
        assert!(
            Nanos(rival.vtime) <= now + Nanos::from_millis(3_600_000),
            "{rival:?}"
        );
        ledger.wake(rival.slot);
    }
    let mut rivals = Vec::new();
    ledger.net_rivals(now, &mut rivals);
    assert!(rivals.is_sorted_by_key(|rival| rival.slot));
    for rival in &rivals {
        assert!(rival.slot < SLOTS && rival.slot != ledger.slot());
        let claim = rival.claim;
        assert!((1..=MAX_SHARE).contains(&claim.share), "{rival:?}");
        assert!(
            claim.min <= RATE && claim.max <= RATE && rival.demand <= RATE,
            "{rival:?}"
        );
    }
}

fn view(path: &Path, now: Nanos) {
    let Ok(view) = LedgerView::open(path) else {
        return;
    };
    let entries = view.entries(now);
    assert!(entries.len() <= SLOTS);
    for entry in entries {
        assert!(entry.slot < SLOTS);
        if let Some(said) = entry.said {
            assert!(
                said.pid > 0 && (1..=MAX_SHARE).contains(&said.claim.share),
                "{said:?}"
            );
        }
    }
}
