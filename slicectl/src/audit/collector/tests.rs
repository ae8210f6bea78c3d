use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc;

use vmm::control::proto::{
    EventRecord, FlowRecord, Outcome, PROTOCOL_VERSION, Reply, Request, read_frame, write_frame,
};

use super::*;
use crate::store::tests::{flow, who};
use crate::store::{Block, WantedEvents, WantedFlows};

/// A monitor that answers by a function of the question.
fn monitor(dir: &Path, answer: impl Fn(&Op) -> Outcome + Send + 'static) {
    let listener = UnixListener::bind(dir.join("s")).expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a client");
            while let Ok(Some(Request { id, op, .. })) = read_frame(&stream) {
                let result = answer(&op);
                let reply = Reply {
                    v: PROTOCOL_VERSION,
                    id,
                    result,
                };
                if write_frame(&stream, &reply).is_err() {
                    break;
                }
            }
        }
    });
}

fn work(dir: &Path) -> Work {
    Work::new(Settings {
        who: who("site_a"),
        control: dir.join("s"),
        audit: dir.join("audit.sqlite"),
        retention: Retention::default(),
        strict: false,
        known: Known::default(),
        ipfix: None,
    })
}

fn flows(store: &Store) -> Vec<FlowRecord> {
    let wanted = WantedFlows {
        most: 10_000,
        ..Default::default()
    };
    let found = store.flows(&wanted).expect("found");
    found.into_iter().map(|found| found.flow).collect()
}

fn kinds(store: &Store) -> Vec<String> {
    let wanted = WantedEvents {
        most: 100,
        ..Default::default()
    };
    let found = store.events(&wanted).expect("found");
    found.into_iter().map(|event| event.kind).collect()
}

fn event(seq: u64) -> EventRecord {
    EventRecord {
        seq,
        at_ms: 1000 * seq,
        kind: "drop".to_owned(),
        detail: "port_zero".to_owned(),
        count: 1,
    }
}

/// Records 0 to 2999, given from the first that is not acknowledged.
fn give(acknowledge: u64, max: usize) -> FlowBatch {
    let left = (acknowledge..3000).take(max);
    FlowBatch {
        first: acknowledge,
        records: left.map(|n| flow("192.0.2.7", 60_000 + n)).collect(),
        lost: LostFlows::default(),
    }
}

#[test]
fn all_records_are_stored_once_and_then_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let (asked, questions) = mpsc::channel();
    let asked = Mutex::new(asked);
    monitor(dir.path(), move |op| match op {
        Op::TakeFlows { acknowledge, max } => {
            let asked = asked.lock().expect("sound");
            asked.send(*acknowledge).expect("heard");
            Outcome::Ok(Answer::Flows(give(*acknowledge, *max)))
        }
        Op::TakeEvents { after } => Outcome::Ok(Answer::Events(EventBatch {
            events: (after + 1..4).map(event).collect(),
            lost: 0,
        })),
        _ => Outcome::Error("not now".to_owned()),
    });
    let mut work = work(dir.path());
    for _ in 0..2 {
        let refused = work.try_look();
        assert!(matches!(
            refused,
            Err(Trouble::Monitor(ClientError::Refused(_)))
        ));
    }
    let store = work.store().expect("open");
    assert_eq!(flows(store).len(), 3000);
    assert_eq!(kinds(store), ["drop", "drop", "drop"]);
    let questions: Vec<u64> = questions.try_iter().collect();
    assert_eq!(questions, [0, 1000, 2000, 3000, 3000]);
}

#[test]
fn a_record_that_comes_again_is_stored_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut work = work(dir.path());
    work.store_flows(&give(0, 10)).expect("stored");
    work.store_flows(&give(0, 10)).expect("nothing new");
    work.store_flows(&give(5, 10)).expect("five new ones");
    assert_eq!(flows(work.store().expect("open")).len(), 15);
    assert_eq!(work.acknowledged, 15);
}

#[test]
fn what_a_monitor_gave_up_becomes_an_event_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut work = work(dir.path());
    let lost = LostFlows {
        flows: 3,
        packets: 9,
        bytes: 900,
    };
    let batch = FlowBatch {
        lost,
        ..give(3000, 1)
    };
    work.store_flows(&batch).expect("stored");
    work.store_flows(&batch).expect("nothing new");
    assert_eq!(kinds(work.store().expect("open")), ["flows_lost"]);
}

#[test]
fn the_use_of_a_day_is_added_up_over_slivers() {
    let dir = tempfile::tempdir().expect("a directory");
    let net = |day, used_today| NetStatus {
        day,
        used_today,
        ..NetStatus::default()
    };
    for _ in 0..2 {
        let mut work = work(dir.path());
        work.store_usage(&net(20_000, 100)).expect("stored");
        work.store_usage(&net(20_000, 150)).expect("stored");
        work.store_usage(&net(20_001, 7)).expect("stored");
    }
    let mut work = work(dir.path());
    let store = work.store().expect("open");
    let used = |day| store.usage("site_a", day).expect("read").bytes;
    assert_eq!((used(20_000), used(20_001)), (300, 14));
}

#[test]
fn slivers_of_one_slice_at_once_add_only_what_they_have_used_themselves() {
    let dir = tempfile::tempdir().expect("a directory");
    let used = |bytes| Used {
        bytes,
        exempt_bytes: bytes / 2,
    };
    let status = |day, bytes| NetStatus {
        day,
        used_today: bytes,
        exempt_used_today: bytes / 2,
        ..NetStatus::default()
    };
    let settings = work(dir.path()).settings;
    let mut store = Store::create(&settings.audit).expect("made");
    store
        .add_usage("site_a", 20_000, used(100))
        .expect("stored");
    let begin = || {
        Work::new(Settings {
            known: Known {
                used: (20_000, used(100)),
                blocked: Vec::new(),
            },
            ..settings.clone()
        })
    };
    let (mut one, mut other) = (begin(), begin());
    one.store_usage(&status(20_000, 100)).expect("stored");
    one.store_usage(&status(20_000, 130)).expect("stored");
    other.store_usage(&status(20_000, 108)).expect("stored");
    // A clock that was set back, and then right again.
    one.store_usage(&status(19_999, 132)).expect("stored");
    one.store_usage(&status(20_000, 6)).expect("stored");
    let total = |day| store.usage("site_a", day).expect("read");
    assert_eq!(total(20_000), used(144));
    assert_eq!(total(19_999), used(2));
}

#[test]
fn a_block_of_its_slice_is_put_up_and_taken_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let (asked, questions) = mpsc::channel();
    let asked = Mutex::new(asked);
    monitor(dir.path(), move |op| {
        if let Op::SetBlocks { prefixes } = op {
            let asked = asked.lock().expect("sound");
            asked.send(prefixes.clone()).expect("heard");
        }
        Outcome::Ok(Answer::Done)
    });
    let mut work = work(dir.path());
    let block = |prefix: &str, slice: Option<&str>| Block {
        prefix: prefix.parse().expect("a prefix"),
        slice: slice.map(str::to_owned),
        reason: String::new(),
        by: "op".to_owned(),
        since_ms: 1,
        until_ms: None,
    };
    work.push_blocks().expect("nothing to do");
    let all = block("192.0.2.0/24", None);
    let store = work.store().expect("open");
    store.add_block(&all).expect("stored");
    store
        .add_block(&block("2001:db8::/32", Some("site_b")))
        .expect("stored");
    work.push_blocks().expect("pushed");
    work.push_blocks().expect("nothing new");
    let store = work.store().expect("open");
    assert!(store.remove_block(all.prefix, None).expect("done"));
    work.push_blocks().expect("pushed");
    let questions: Vec<Vec<String>> = questions.try_iter().collect();
    assert_eq!(questions, [vec!["192.0.2.0/24".to_owned()], Vec::new()]);
}

#[test]
fn what_is_told_last_is_stored_before_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let collected = work(dir.path()).settings;
    let collector = Collector::begin(collected.clone());
    let last = LastTraffic {
        flows: give(0, 10),
        ..LastTraffic::default()
    };
    collector.finish(vec![last.clone(), last]);
    let store = Store::open(&collected.audit).expect("made");
    assert_eq!(flows(&store).len(), 10);
    assert_eq!(kinds(&store), Vec::<String>::new());
}

#[test]
fn a_monitor_that_ended_without_a_word_is_told_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut work = work(dir.path());
    work.finish(&[]);
    assert_eq!(kinds(work.store().expect("open")), ["flows_lost"]);
}

#[test]
fn blocks_that_somebody_else_may_have_undone_are_told_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (asked, questions) = mpsc::channel();
    let asked = Mutex::new(asked);
    monitor(dir.path(), move |op| {
        let asked = asked.lock().expect("sound");
        asked.send(op.clone()).expect("heard");
        Outcome::Ok(Answer::Done)
    });
    let mut work = work(dir.path());
    let block = Block {
        prefix: "192.0.2.0/24".parse().expect("a prefix"),
        slice: None,
        reason: String::new(),
        by: "op".to_owned(),
        since_ms: 1,
        until_ms: None,
    };
    let store = work.store().expect("open");
    store.add_block(&block).expect("stored");
    for _ in 0..=PUSH_EVERY + 1 {
        work.push_blocks().expect("pushed");
    }
    assert_eq!(questions.try_iter().count(), 2);
}
