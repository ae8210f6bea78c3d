//! The log on disks that lose power, fail, and fill up.

mod disk;

use std::collections::BTreeMap;

use disk::{Disk, Faults};
use guest_shim::task::block_on;
use proptest::prelude::*;

use super::*;

const DISK: u64 = 256 << 10;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn set(key: &str, value: &[u8]) -> Change {
    Change::Set {
        key: key.as_bytes().to_vec(),
        value: value.to_vec(),
    }
}

fn remove(key: &str) -> Change {
    let key = key.as_bytes().to_vec();
    Change::Remove { key }
}

fn opened(disk: Disk) -> Log<Disk> {
    block_on(open(disk, 1)).unwrap_or_else(|error| panic!("{error}"))
}

fn empty() -> Log<Disk> {
    opened(Disk::new(DISK))
}

/// Everything that a log holds, by reading it.
fn contents(log: &Log<Disk>) -> Model {
    let reader = log.reader();
    let (mut cursor, mut found) = (0, Model::new());
    loop {
        let (next, keys) = reader.scan(cursor, 5);
        for key in keys {
            let value = block_on(reader.get(&key)).unwrap_or_else(|error| panic!("{error}"));
            found.insert(key, value.expect("a key that is listed has a value"));
        }
        if next == 0 {
            return found;
        }
        cursor = next;
    }
}

fn applied(model: &Model, changes: &[Change]) -> Model {
    let mut model = model.clone();
    for change in changes {
        match change {
            Change::Set { key, value } => model.insert(key.clone(), value.clone()),
            Change::Remove { key } => model.remove(key),
        };
    }
    model
}

#[test]
fn what_was_committed_is_there_when_the_log_is_opened_again() {
    let mut log = empty();
    let changes = [
        set("a", b"1"),
        set("b", b"2"),
        set("a", b"3"),
        remove("b"),
        remove("c"),
    ];
    let outcomes = block_on(log.commit(&changes));
    assert_eq!(
        outcomes,
        [Ok(true), Ok(true), Ok(true), Ok(true), Ok(false)]
    );
    assert_eq!(log.counts().commits, 1);
    for log in [opened(log.reader.0.disk.clone()), log] {
        assert_eq!(
            contents(&log),
            Model::from([(b"a".to_vec(), b"3".to_vec())])
        );
        assert_eq!(log.usage().keys, 1);
    }
}

#[test]
fn a_full_disk_refuses_values_keeps_what_it_has_and_takes_removals() {
    let mut log = empty();
    let mut stored = Model::new();
    let value = vec![7; 4000];
    let full = loop {
        let key = format!("key{}", stored.len());
        match block_on(log.commit(&[set(&key, &value)]))[0].clone() {
            Ok(_) => stored.insert(key.into_bytes(), value.clone()),
            Err(error) => break error,
        };
    };
    assert_eq!(
        full,
        Error::Full {
            bytes: log.room_for_values()
        }
    );
    assert_eq!(contents(&log), stored);
    // Changing what is there goes on for as long as one likes.
    for round in 0..200u8 {
        let outcome = block_on(log.commit(&[set("key1", &[round; 4000])]));
        assert_eq!(outcome, [Ok(true)]);
    }
    stored.insert(b"key1".to_vec(), vec![199; 4000]);
    assert_eq!(block_on(log.commit(&[set("more", &value)])), [Err(full)]);
    assert_eq!(
        block_on(log.commit(&[remove("key0"), set("more", &value)])),
        [Ok(true), Ok(true)]
    );
    stored.remove(b"key0".as_slice());
    stored.insert(b"more".to_vec(), value);
    assert_eq!(contents(&opened(log.reader.0.disk.clone())), stored);
    assert!(log.counts().compactions > 0);
}

#[test]
fn what_is_too_long_is_refused_and_its_neighbours_are_not() {
    let mut log = empty();
    let changes = [
        set("a", b"1"),
        set("b", &[0; MAX_VALUE + 1]),
        set(&"k".repeat(MAX_KEY + 1), b"1"),
        set("d", b"4"),
    ];
    let outcomes = block_on(log.commit(&changes));
    assert_eq!(outcomes[0], Ok(true));
    assert_eq!(
        outcomes[1],
        Err(Error::ValueTooLong {
            bytes: MAX_VALUE + 1
        })
    );
    assert_eq!(outcomes[2], Err(Error::KeyTooLong { bytes: MAX_KEY + 1 }));
    assert_eq!(outcomes[3], Ok(true));
}

#[test]
fn a_disk_with_something_else_on_it_is_left_alone() {
    let disk = Disk::new(DISK);
    disk.damage(0, b"not a log");
    let refused = block_on(open(disk.clone(), 1)).err();
    assert_eq!(refused, Some(Error::NotALog));
    block_on(format(&disk, 2)).expect("a disk can be formatted");
    assert_eq!(contents(&opened(disk)), Model::new());
}

#[test]
fn a_disk_that_is_too_small_is_refused() {
    let refused = block_on(open(Disk::new(4096), 1)).err();
    assert!(matches!(refused, Some(Error::TooSmall { bytes: 4096, .. })));
}

#[test]
fn an_acknowledged_record_that_is_damaged_is_told_and_not_dropped() {
    let mut log = empty();
    for key in ["a", "b", "c"] {
        assert_eq!(block_on(log.commit(&[set(key, b"value")])), [Ok(true)]);
    }
    let disk = opened(log.reader.0.disk.clone()).reader.0.disk.clone();
    let offset = log.superblock.base(0) + 512;
    disk.damage(offset + 34, b"x");
    let told = Err(Error::Damaged { offset });
    assert_eq!(
        block_on(log.reader().get(b"b")),
        told.clone().map(|()| None)
    );
    assert_eq!(block_on(open(disk, 1)).map(drop), told);
}

#[test]
fn formatting_forgets_an_earlier_log_also_when_its_records_are_still_there() {
    let mut log = empty();
    assert_eq!(block_on(log.commit(&[set("old", b"1")])), [Ok(true)]);
    let disk = log.reader.0.disk.clone();
    block_on(format(&disk, 100)).expect("a disk can be formatted");
    assert_eq!(contents(&opened(disk)), Model::new());
}

/// A commit of a test, and what happens to the disk meanwhile.
#[derive(Debug, Clone)]
struct Step {
    changes: Vec<Change>,
    /// Writes and flushes after which the power goes, if it does.
    power: Option<u32>,
    faults: Faults,
}

fn a_change() -> impl Strategy<Value = Change> {
    let key = (0..10u8).prop_map(|number| vec![b'k', number]);
    let lengths = prop_oneof![0..40usize, 400..600usize, 3000..9000usize];
    let value = (any::<u8>(), lengths).prop_map(|(byte, length)| vec![byte; length]);
    prop_oneof![
        4 => (key.clone(), value).prop_map(|(key, value)| Change::Set { key, value }),
        1 => key.prop_map(|key| Change::Remove { key }),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let changes = proptest::collection::vec(a_change(), 1..8);
    let power = proptest::option::weighted(0.3, 0..4u32);
    let faults = prop_oneof![
        3 => Just(Faults::default()),
        1 => (0..4u32, any::<bool>()).prop_map(|(after, done)| Faults { after: Some(after), done }),
    ];
    (changes, power, faults).prop_map(|(changes, power, faults)| Step {
        changes,
        power,
        faults,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever sectors get lost: after a crash the log holds all that was acknowledged, and of
    /// what was not, some changes in a row or none.
    #[test]
    fn a_crash_loses_nothing_that_was_acknowledged_and_makes_nothing_up(
        steps in proptest::collection::vec(a_step(), 1..25),
        seed in any::<u64>(),
    ) {
        let mut log = empty();
        let mut model = Model::new();
        // What a crash may show besides: changes that failed, until others have come after them.
        let mut doubtful: Vec<Change> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let disk = log.reader.0.disk.clone();
            disk.cut_power_after(step.power);
            disk.fail(step.faults);
            let outcomes = block_on(log.commit(&step.changes));
            disk.fail(Faults::default());
            for (change, outcome) in step.changes.into_iter().zip(outcomes) {
                match outcome {
                    Ok(made) => {
                        model = applied(&model, &[change]);
                        if made {
                            doubtful.clear();
                        }
                    }
                    Err(_) => doubtful.push(change),
                }
            }
            if !disk.has_power() {
                log = opened(disk.after_crash(seed ^ number as u64));
                let found = contents(&log);
                let ends = (0..=doubtful.len()).map(|end| (0..=end, end));
                let mut parts = ends.flat_map(|(starts, end)| starts.map(move |start| start..end));
                let possible = parts.any(|part| applied(&model, &doubtful[part]) == found);
                prop_assert!(possible, "{number}: {found:?}");
                model = found;
                doubtful.clear();
            }
            prop_assert_eq!(&contents(&log), &model);
        }
    }
}
