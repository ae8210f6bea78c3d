//! Ledgers in directories of their own: slots, what rivals see, admission, files that are none.

mod hostile;
mod net;
mod signals;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::sched::place;

const NOW: Nanos = Nanos(1_000_000_000_000);

fn claim(share: u32, reserve: u32) -> Claim {
    Claim {
        share,
        reserve: MilliCpu(reserve),
        ceiling: MilliCpu(1000),
    }
}

fn busy(vtime: u64) -> Published {
    Published {
        demand: 1,
        waiting: false,
        place: place::Place {
            processor: 3,
            until: Nanos(77),
        },
        vtime,
        service: Nanos(vtime),
    }
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::with_prefix_in("ledger-", "/dev/shm").expect("a directory in memory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join(".ledger")
    }

    fn try_join(&self, name: &str, claim: Claim) -> Result<Ledger, LedgerError> {
        Ledger::join(&self.path(), name, 2, claim).map(|(ledger, _)| ledger)
    }

    fn join(&self, name: &str) -> Ledger {
        self.try_join(name, claim(1, 0)).expect("joined")
    }

    fn join_told(&self) -> (Ledger, Option<LedgerEvent>) {
        Ledger::join(&self.path(), "a", 2, claim(1, 0)).expect("joined")
    }

    fn view(&self) -> Vec<ViewedEntry> {
        let view = LedgerView::open(&self.path()).expect("opened");
        view.entries(NOW)
    }
}

fn rivals(ledger: &Ledger, now: Nanos) -> Vec<Rival> {
    let mut out = Vec::new();
    ledger.rivals(now, &mut out);
    out
}

#[test]
fn slivers_see_each_other_and_not_themselves() {
    let place = Place::new();
    let (one, event) = place.join_told();
    assert_eq!(event, None);
    let two = place.try_join("two", claim(7, 100)).expect("joined");
    assert!(rivals(&one, NOW).is_empty(), "nobody wants anything yet");
    two.publish(NOW, busy(5));
    let seen = Rival {
        slot: two.slot(),
        claim: claim(7, 100),
        demand: 1,
        waiting: false,
        place: place::Place {
            processor: 3,
            until: Nanos(77),
        },
        vtime: 5,
    };
    assert_eq!(rivals(&one, NOW), [seen]);
    assert!(rivals(&two, NOW).is_empty());
    assert!(one.is_current() && two.is_current());
}

#[test]
fn a_claim_can_be_changed() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    two.publish(NOW, busy(5));
    two.set_claim(claim(9, 300)).expect("changed");
    assert_eq!(rivals(&one, NOW)[0].claim, claim(9, 300));
}

#[test]
fn silence_and_the_future_count_as_idle() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    two.publish(NOW, busy(5));
    assert_eq!(rivals(&one, NOW + layout::STALE).len(), 1);
    assert_eq!(rivals(&one, NOW - layout::STALE).len(), 1);
    let more = layout::STALE + Nanos(1);
    assert!(rivals(&one, NOW + more).is_empty());
    assert!(rivals(&one, NOW - more).is_empty());
}

#[test]
fn a_virtual_time_at_the_end_of_time_is_not_heard() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    two.publish(NOW, busy(u64::MAX));
    assert!(rivals(&one, NOW).is_empty());
}

#[test]
fn the_lock_of_a_slot_lasts_as_long_as_its_mapping() {
    let place = Place::new();
    let one = place.join("one");
    // Its descriptor is closed; its mapping holds the lock.
    assert!(file::is_slot_locked(&one.reader, one.slot()));
    let two = place.join("two");
    let slot = one.slot();
    assert_ne!(two.slot(), slot);
    drop(one);
    assert!(!file::is_slot_locked(&two.reader, slot));
    assert_eq!(place.join("three").slot(), slot);
}

#[test]
fn a_slot_that_was_left_without_a_word_is_taken_over() {
    let place = Place::new();
    let one = place.join("one");
    one.publish(NOW, busy(5));
    let slot = one.slot();
    kill(one);
    assert_eq!(place.view()[0].state, State::Dead);
    assert_eq!(place.join("two").slot(), slot);
}

/// As if its process had been killed: the entry stays as it is, the lock goes.
fn kill(ledger: Ledger) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(&ledger.path)
        .expect("opened");
    let at = layout::page_offset(ledger.slot()) as u64;
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, at).expect("read");
    drop(ledger);
    file.write_all_at(&page, at).expect("written");
}

#[test]
fn reserves_are_promised_only_as_far_as_the_node_goes() {
    let place = Place::new();
    let one = place.try_join("one", claim(1, 1500)).expect("joined");
    let refused = place.try_join("two", claim(1, 600)).expect_err("refused");
    assert!(refused.is_refusal());
    assert_eq!(
        refused.to_string(),
        "cpu_pct: 30 % of the node's processors cannot be reserved: of 100 %, others have 75 %; \
         25 % are left"
    );
    let two = place.try_join("two", claim(1, 500)).expect("joined");
    assert!(two.set_claim(claim(1, 501)).is_err());
    two.set_claim(claim(1, 400)).expect("changed");
    one.set_claim(claim(1, 1600)).expect("changed");
    drop(two);
    one.set_claim(claim(1, 2000)).expect("changed");
}

#[test]
fn a_dead_slivers_reserve_is_free() {
    let place = Place::new();
    let one = place.try_join("one", claim(1, 2000)).expect("joined");
    let two = place.join("two");
    assert!(two.set_claim(claim(1, 1)).is_err());
    kill(one);
    two.set_claim(claim(1, 2000)).expect("changed");
}

#[test]
fn a_sliver_that_waits_is_woken_through_the_read_only_mapping() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| futex::wait(two.word(), futex::Flags::empty(), 0, None));
        while !waiter.is_finished() {
            one.wake(two.slot());
            std::thread::yield_now();
        }
        waiter.join().expect("ended").expect("woken");
    });
}

#[test]
fn a_corrupt_ledger_is_replaced_and_those_who_used_it_notice() {
    type Ruin = fn(&File);
    let ruin: [(&str, Ruin); 5] = [
        ("empty", |file| file.set_len(0).expect("cut")),
        ("odd", |file| file.set_len(4097).expect("cut")),
        ("long", |file| {
            file.set_len(FILE_BYTES as u64 + 1).expect("extended")
        }),
        ("magic", |file| file.write_all_at(b"x", 0).expect("written")),
        ("slots", |file| {
            file.write_all_at(&[0xff; 8], 12).expect("written")
        }),
    ];
    for (what, ruin) in ruin {
        let place = Place::new();
        let one = place.join("one");
        one.publish(NOW, busy(5));
        ruin(
            &File::options()
                .write(true)
                .open(place.path())
                .expect("opened"),
        );
        assert!(!one.is_current(), "{what}");
        rivals(&one, NOW);
        let (two, event) = place.join_told();
        assert!(event.is_some(), "{what}");
        assert!(two.is_current() && !one.is_current(), "{what}");
        one.publish(NOW, busy(6));
        let again = place.join("one");
        again.publish(NOW, busy(7));
        assert_eq!(
            rivals(&two, NOW).len(),
            1,
            "{what}: they are together again"
        );
    }
}

#[test]
fn a_deleted_ledger_is_made_anew() {
    let place = Place::new();
    let one = place.join("one");
    fs::remove_file(place.path()).expect("removed");
    assert!(!one.is_current());
    let (two, event) = place.join_told();
    assert_eq!(event, None);
    assert!(two.is_current());
}

#[test]
fn what_was_never_a_ledger_is_kept_under_another_name() {
    let place = Place::new();
    fs::write(place.path(), "precious").expect("written");
    let (_, event) = place.join_told();
    let told = event.expect("told").to_string();
    assert!(told.contains(".ledger.corrupt"), "{told}");
    let kept = fs::read(place.0.path().join(".ledger.corrupt")).expect("kept");
    assert_eq!(kept, b"precious");
}

#[test]
fn another_version_is_replaced_only_when_nobody_uses_it() {
    let place = Place::new();
    let one = place.join("one");
    let file = File::options()
        .write(true)
        .open(place.path())
        .expect("opened");
    file.write_all_at(&7u32.to_ne_bytes(), 8).expect("written");
    let error = place.try_join("two", claim(1, 0)).expect_err("refused");
    assert!(error.to_string().contains("version 7"), "{error}");
    drop(one);
    let (_, event) = place.join_told();
    assert!(event.is_some());
}

#[test]
fn what_cannot_be_a_ledger_is_told() {
    for (make, told) in [
        (
            (|path| fs::create_dir(path).expect("made")) as fn(&Path),
            "a directory",
        ),
        (
            |path| symlink("elsewhere", path).expect("made"),
            "a symbolic link",
        ),
        (
            |path| {
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    path,
                    rustix::fs::FileType::Fifo,
                    0o600.into(),
                    0,
                )
                .expect("made")
            },
            "a named pipe",
        ),
    ] {
        let place = Place::new();
        make(&place.path());
        let error = place.try_join("a", claim(1, 0)).expect_err("refused");
        assert!(error.to_string().contains(told), "{error}");
        assert!(!error.is_refusal());
    }
    let error = Ledger::join(Path::new("/nonexistent/ledger"), "a", 2, claim(1, 0));
    assert!(matches!(error, Err(LedgerError::Use { .. })), "{error:?}");
    // The kernel's own are on no disk either, but nothing can be made there.
    let error = Ledger::join(Path::new("/proc/ledger"), "a", 2, claim(1, 0));
    assert!(
        matches!(error, Err(LedgerError::NotInMemory(_))),
        "{error:?}"
    );
}

#[test]
fn many_that_start_at_once_share_one_ledger() {
    let place = Place::new();
    let ledgers: Vec<Ledger> = std::thread::scope(|scope| {
        let joins: Vec<_> = (0..32).map(|_| scope.spawn(|| place.join("a"))).collect();
        joins
            .into_iter()
            .map(|join| join.join().expect("ended"))
            .collect()
    });
    let mut slots: Vec<usize> = ledgers.iter().map(Ledger::slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..32).collect::<Vec<_>>());
    assert!(ledgers.iter().all(Ledger::is_current));
    // Nothing but the ledger is left.
    assert_eq!(fs::read_dir(place.0.path()).expect("read").count(), 1);
}

#[test]
fn the_file_is_private_and_holds_no_pages_that_nobody_uses() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    rivals(&one, NOW);
    rivals(&two, NOW);
    place.view();
    let metadata = fs::metadata(place.path()).expect("there");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(metadata.blocks() * 512 <= 16 * PAGE as u64);
}

#[test]
fn a_view_shows_what_the_slivers_say() {
    let place = Place::new();
    let one = place.try_join("one", claim(3, 100)).expect("joined");
    one.publish(NOW, busy(5));
    let entries = place.view();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].state, entries[0].name.as_str()),
        (State::Live, "one")
    );
    let said = entries[0].said.expect("sane");
    assert_eq!(said.pid, std::process::id());
    assert_eq!(said.claim, claim(3, 100));
    assert_eq!((said.service, said.updated), (Nanos(5), NOW));
}
