use vmm::control::proto::{EventRecord, FlowEnd, FlowRecord, Opened};

use super::*;

pub(crate) fn who(slice: &str) -> Identity {
    Identity {
        node: "node-1".to_owned(),
        name: format!("{slice}-1"),
        slice: slice.to_owned(),
        owner: "Ada".to_owned(),
        contact: "ada@example.org".to_owned(),
        public: "198.51.100.1".to_owned(),
    }
}

pub(crate) fn flow(remote: &str, last_ms: u64) -> FlowRecord {
    FlowRecord {
        first_ms: last_ms.saturating_sub(50_000),
        last_ms,
        protocol: 17,
        inside: "10.0.0.2".parse().expect("an address"),
        inside_port: 5000,
        outside_port: Some(20_007),
        remote: remote.parse().expect("an address"),
        remote_port: 53,
        opened: Opened::Out,
        tx_packets: 3,
        tx_bytes: 300,
        rx_packets: 2,
        rx_bytes: 200,
        end: FlowEnd::Cut,
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::create(&dir.path().join("sub/audit.sqlite")).expect("made");
    (dir, store)
}

fn wanted() -> WantedFlows {
    WantedFlows {
        most: 1000,
        ..Default::default()
    }
}

#[test]
fn a_flow_comes_back_as_it_was_with_whose_it_was() {
    let (_dir, mut store) = store();
    let six = FlowRecord {
        inside: "2001:db8::2".parse().expect("an address"),
        outside_port: None,
        opened: Opened::In,
        end: FlowEnd::Stopped,
        tx_bytes: u64::MAX >> 1,
        ..flow("2001:db8::7", 2_000_000)
    };
    let flows = [flow("192.0.2.7", 1_000_000), six];
    store.add_flows(&who("site_a"), &flows).expect("stored");
    let found = store.flows(&wanted()).expect("found");
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|found| found.who == who("site_a")));
    assert_eq!([found[1].flow, found[0].flow], flows);
}

#[test]
fn flows_are_found_by_all_that_a_complaint_has() {
    let (_dir, mut store) = store();
    let (a, b) = (who("site_a"), who("site_b"));
    let minute = 60_000;
    store
        .add_flows(&a, &[flow("192.0.2.7", 100 * minute)])
        .expect("stored");
    store
        .add_flows(
            &b,
            &[flow("192.0.2.8", 200 * minute), flow("::ffff:192.0.2.7", 9)],
        )
        .expect("stored");
    let slices = |wanted: WantedFlows| -> Vec<String> {
        let found = store.flows(&wanted).expect("found");
        found.into_iter().map(|found| found.who.slice).collect()
    };
    let to = |text: &str| WantedFlows {
        remote: Some(text.parse().expect("a prefix")),
        ..wanted()
    };
    assert_eq!(slices(to("192.0.2.7")), ["site_a"]);
    assert_eq!(slices(to("192.0.2.0/24")), ["site_b", "site_a"]);
    assert_eq!(slices(to("192.0.2.0/29")), ["site_a"]);
    assert_eq!(slices(to("::/0")), ["site_b"]);
    assert_eq!(slices(to("0.0.0.0/0")).len(), 2);
    let at = |minutes: u64| WantedFlows {
        from_ms: Some(minutes * minute),
        until_ms: Some(minutes * minute),
        ..wanted()
    };
    assert_eq!(slices(at(100)), ["site_a"]);
    assert!(slices(at(101)).is_empty() && slices(at(99)).is_empty());
    let port = |port| WantedFlows {
        source_port: Some(port),
        ..wanted()
    };
    assert_eq!(slices(port(20_007)).len(), 3);
    assert_eq!(slices(port(5000)).len(), 0, "nobody outside saw it");
    assert_eq!(slices(port(53)).len(), 0);
    let from = |source| WantedFlows {
        source: Some(source),
        ..wanted()
    };
    let address = |text: &str| Source::Address(text.parse().expect("an address"));
    assert_eq!(slices(from(address("198.51.100.1"))).len(), 3);
    assert_eq!(slices(from(address("10.0.0.2"))).len(), 3);
    assert_eq!(slices(from(address("198.51.100.2"))).len(), 0);
    assert_eq!(slices(from(Source::Node("node-1".to_owned()))).len(), 3);
    assert_eq!(slices(from(Source::Node("node-2".to_owned()))).len(), 0);
    let of = WantedFlows {
        slice: Some("site_b".to_owned()),
        ..wanted()
    };
    assert_eq!(slices(of).len(), 2);
}

#[test]
fn blocks_hold_for_whom_and_until_when_they_say() {
    let (_dir, mut store) = store();
    let block = |prefix: &str, slice: Option<&str>, until_ms| Block {
        prefix: prefix.parse().expect("a prefix"),
        slice: slice.map(str::to_owned),
        reason: "a complaint".to_owned(),
        by: "op".to_owned(),
        since_ms: 1,
        until_ms,
    };
    let all = block("192.0.2.0/24", None, None);
    let one = block("2001:db8::/32", Some("site_a"), Some(1000));
    store.add_block(&all).expect("stored");
    store.add_block(&one).expect("stored");
    store.add_block(&all).expect("stored again");
    assert_eq!(store.blocks(0).expect("read"), [one.clone(), all.clone()]);
    assert_eq!(store.blocked("site_b", 0).expect("read"), [all.prefix]);
    assert_eq!(store.blocked("site_a", 999).expect("read").len(), 2);
    assert_eq!(store.blocked("site_a", 1000).expect("read"), [all.prefix]);
    assert!(!store.remove_block(one.prefix, None).expect("done"));
    assert!(store.remove_block(all.prefix, None).expect("done"));
    assert_eq!(store.blocked("site_b", 0).expect("read"), []);
}

#[test]
fn usage_is_that_of_the_slice_and_of_the_day() {
    let (_dir, mut store) = store();
    let used = |bytes| Used {
        bytes,
        exempt_bytes: 2 * bytes,
    };
    store.add_usage("site_a", 20_000, used(10)).expect("stored");
    store.add_usage("site_a", 20_000, used(5)).expect("stored");
    store.add_usage("site_a", 20_001, used(1)).expect("stored");
    assert_eq!(store.usage("site_a", 20_000).expect("read"), used(15));
    assert_eq!(store.usage("site_a", 20_001).expect("read"), used(1));
    assert_eq!(store.usage("site_b", 20_000).expect("read"), used(0));
}

#[test]
fn events_are_read_on_from_the_last_that_is_known() {
    let (_dir, mut store) = store();
    let event = |seq, kind: &str| EventRecord {
        seq,
        at_ms: 1000 * seq,
        kind: kind.to_owned(),
        detail: "to 192.0.2.7".to_owned(),
        count: 3,
    };
    let events = [event(1, "drop"), event(2, "long_probe")];
    store.add_events(&who("site_a"), &events).expect("stored");
    store.note("block", "192.0.2.0/24").expect("stored");
    let all = WantedEvents {
        most: 10,
        ..Default::default()
    };
    let found = store.events(&all).expect("found");
    let kinds: Vec<&str> = found.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["drop", "long_probe", "block"]);
    assert_eq!(found[0].slice.as_deref(), Some("site_a"));
    let later = WantedEvents {
        after: found[1].id,
        ..all.clone()
    };
    assert_eq!(store.events(&later).expect("found"), found[2..]);
    let of = WantedEvents {
        slice: Some("site_a".to_owned()),
        kind: Some("drop".to_owned()),
        ..all
    };
    assert_eq!(store.events(&of).expect("found"), found[..1]);
}

#[test]
fn the_oldest_goes_first_when_it_is_too_old_or_too_much() {
    let (_dir, mut store) = store();
    let day = 86_400_000;
    let flows: Vec<FlowRecord> = (1..=100).map(|n| flow("192.0.2.7", n * day)).collect();
    store.add_flows(&who("site_a"), &flows).expect("stored");
    let keep = Retention {
        age: Duration::from_secs(30 * 86_400),
        ..Default::default()
    };
    while store.rotate(&keep, 100 * day).expect("done") {}
    let left = store.flows(&wanted()).expect("found");
    assert_eq!(left.len(), 31);
    assert_eq!(left[30].flow.last_ms, 70 * day);
    let nothing = Retention {
        bytes: 0,
        ..Default::default()
    };
    while store.rotate(&nothing, 100 * day).expect("done") {}
    assert_eq!(store.count_flows().expect("counted"), 0);
}

#[test]
fn several_processes_write_at_once() {
    let (dir, store) = store();
    let path = dir.path().join("sub/audit.sqlite");
    drop(store);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let mut store = Store::create(path).expect("opened");
                for n in 0..25 {
                    let who = who(&format!("site_{writer}"));
                    store
                        .add_flows(&who, &[flow("192.0.2.7", n)])
                        .expect("stored");
                }
            });
        }
    });
    let store = Store::open(&path).expect("opened");
    assert_eq!(store.count_flows().expect("counted"), 100);
}

#[test]
fn a_full_disk_is_told_and_what_was_stored_stays() {
    let (dir, mut store) = store();
    let flows: Vec<FlowRecord> = (0..500).map(|n| flow("192.0.2.7", n)).collect();
    store.add_flows(&who("site_a"), &flows).expect("stored");
    let pages: i64 = store
        .connection
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .expect("counted");
    store
        .connection
        .query_row(
            &format!("PRAGMA max_page_count = {}", pages + 4),
            [],
            |_| Ok(()),
        )
        .expect("limited");
    let mut stored = 500;
    let error = loop {
        match store.add_flows(&who("site_a"), &flows) {
            Ok(()) => stored += 500,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("the disk is full"));
    drop(store);
    let store = Store::open(&dir.path().join("sub/audit.sqlite")).expect("opened");
    assert_eq!(store.count_flows().expect("counted"), stored);
}

#[test]
fn what_is_no_audit_is_not_touched() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a");
    assert!(matches!(Store::open(&path), Err(StoreError::Absent { .. })));
    std::fs::write(
        &path,
        "notes of my own, long enough to be read as a header".repeat(4),
    )
    .expect("written");
    let before = std::fs::read(&path).expect("read");
    assert!(matches!(
        Store::create(&path),
        Err(StoreError::Sqlite { .. })
    ));
    assert_eq!(std::fs::read(&path).expect("read"), before);
    let other = dir.path().join("b");
    let connection = Connection::open(&other).expect("made");
    connection
        .pragma_update(None, "user_version", 77)
        .expect("set");
    assert!(matches!(
        Store::create(&other),
        Err(StoreError::Version { found: 77, .. })
    ));
}

#[test]
fn an_audit_of_the_first_version_is_brought_up_to_date() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.sqlite");
    let connection = Connection::open(&path).expect("made");
    connection.execute_batch(TABLES).expect("made");
    let old = "
        INSERT INTO sliver VALUES (1, 'node-1', 'a-1', 'site_a', 'Ada', 'ada@example.org', ''),
                                  (2, 'node-1', 'b-1', 'site_b', 'Bob', 'bob@example.org', '');
        INSERT INTO flow VALUES (1, 1, 10, 20, 17, x'0a000002', 5, NULL, x'c0000207', 53, 0,
                                 1, 2, 3, 4, 0),
                                (2, 2, 30, 40, 17, x'0a000003', 5, NULL, x'c0000207', 53, 0,
                                 1, 2, 3, 4, 0);
        PRAGMA user_version = 1;";
    connection.execute_batch(old).expect("filled");
    drop(connection);
    let mut store = Store::open(&path).expect("opened");
    let of = |store: &Store, slice: &str| {
        let wanted = WantedFlows {
            slice: Some(slice.to_owned()),
            ..wanted()
        };
        store.flows(&wanted).expect("found").len()
    };
    assert_eq!((of(&store, "site_a"), of(&store, "site_b")), (1, 1));
    let flows = [flow("192.0.2.7", 100)];
    store.add_flows(&who("site_b"), &flows).expect("stored");
    assert_eq!((of(&store, "site_b"), of(&store, "site_c")), (2, 0));
    drop(store);
    let store = Store::open(&path).expect("opened again");
    assert_eq!(store.count_flows().expect("counted"), 3);
}
