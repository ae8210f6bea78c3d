use vmm::control::proto::FlowRecord;

use super::*;
use crate::store::tests::{flow, who};
use crate::store::{Store, StoredFlow};

/// Flows of several slices with few different addresses and ports, so that all combinations occur.
fn filled(count: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::create(&dir.path().join("audit.sqlite")).expect("made");
    for (index, slice) in ["site_a", "site_b", "site_c"].into_iter().enumerate() {
        let flows = (0..count).map(|n| {
            let n = n * 3 + index as u64;
            let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            FlowRecord {
                inside: [10, 0, 0, (mixed % 7) as u8].into(),
                remote_port: [22, 53, 443][(mixed / 7 % 3) as usize],
                outside_port: (mixed / 21).is_multiple_of(2).then_some(20_000),
                first_ms: 1000 * n - 1000 * n.min(mixed / 42 % 60),
                ..flow(
                    &format!("10.{}.0.{}", mixed / 5 % 4, mixed / 11 % 5),
                    1000 * n,
                )
            }
        });
        let flows: Vec<_> = flows.collect();
        let who = crate::store::Identity {
            public: ["", "198.51.100.1", "198.51.100.2"][index].to_owned(),
            ..who(slice)
        };
        store.add_flows(&who, &flows).expect("stored");
    }
    (dir, store)
}

/// The same by reading all.
fn by_hand(all: &[StoredFlow], wanted: &Wanted) -> Vec<StoredFlow> {
    let is = |StoredFlow { who, flow }: &&StoredFlow| {
        let remote = wanted
            .remote
            .is_none_or(|prefix| prefix.contains(flow.remote));
        let seen = flow.outside_port.unwrap_or(flow.inside_port);
        let source = match &wanted.source {
            None => true,
            Some(Source::Node(node)) => *node == who.node,
            Some(Source::Address(address)) => {
                *address == flow.inside
                    || address.to_string() == who.public
                    || (who.public.is_empty() && flow.outside_port.is_some())
            }
        };
        let from = wanted.from_ms.is_none_or(|from| flow.last_ms >= from);
        let until = wanted
            .until_ms
            .is_none_or(|until| flow.first_ms <= until && flow.last_ms <= until + LONGEST_MS);
        let slice = wanted
            .slice
            .as_ref()
            .is_none_or(|slice| *slice == who.slice);
        remote
            && source
            && from
            && until
            && slice
            && wanted.source_port.is_none_or(|port| port == seen)
            && wanted
                .remote_port
                .is_none_or(|port| port == flow.remote_port)
    };
    let found = all.iter().filter(is);
    found.take(wanted.most).cloned().collect()
}

/// Every question that can be asked of a few values for each part.
fn questions() -> Vec<Wanted> {
    let remotes = [
        None,
        Some("10.1.0.2"),
        Some("10.2.0.0/16"),
        Some("10.0.0.0/8"),
    ];
    let address = |last| Some(Source::Address([10, 0, 0, last].into()));
    let public = Some(Source::Address([198, 51, 100, 1].into()));
    let sources = [
        None,
        Some(Source::Node("node-1".to_owned())),
        address(3),
        public,
    ];
    let times = [
        (None, None),
        (Some(700_000), None),
        (Some(300_000), Some(400_000)),
    ];
    let mut all = Vec::new();
    for (remote, source) in remotes
        .iter()
        .flat_map(|r| sources.iter().map(move |s| (r, s)))
    {
        for ((from_ms, until_ms), slice) in times
            .iter()
            .flat_map(|t| [None, Some("site_b"), Some("site_x")].map(|s| (*t, s)))
        {
            for port in [None, Some(22)] {
                all.push(Wanted {
                    remote: remote.map(|text| text.parse().expect("a prefix")),
                    source: source.clone(),
                    source_port: port.map(|_| 20_000),
                    remote_port: port,
                    from_ms,
                    until_ms,
                    slice: slice.map(str::to_owned),
                    most: 50,
                });
                all.push(Wanted {
                    source_port: None,
                    ..all[all.len() - 1].clone()
                });
            }
        }
    }
    all
}

#[test]
fn every_question_finds_what_reading_all_finds() {
    let (_dir, store) = filled(400);
    let everything = Wanted {
        most: usize::MAX >> 1,
        ..Wanted::default()
    };
    let all = store.flows(&everything).expect("found");
    assert_eq!(all.len(), 1200);
    for wanted in questions() {
        let found = store.flows(&wanted).expect("found");
        assert_eq!(found, by_hand(&all, &wanted), "{wanted:?}");
    }
}

/// The plans say so, whatever the machine: the index that is used, and whether it must be sorted.
#[test]
fn a_question_is_answered_by_the_index_that_suits_it() {
    let (_dir, store) = filled(MANY as u64 / 2);
    let plan = |wanted: &Wanted| -> String {
        let found = query(&store.connection, wanted).expect("a query");
        let (sql, values) = found.expect("it can be");
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let mut statement = store.connection.prepare(&explain).expect("a plan");
        let rows = statement
            .query_map(params_from_iter(values), |row| row.get::<_, String>(3))
            .expect("a plan");
        rows.map(|row| row.expect("a line"))
            .collect::<Vec<_>>()
            .join("; ")
    };
    let usual = || Wanted {
        most: 1000,
        ..Wanted::default()
    };
    let to = |text: &str| Wanted {
        remote: Some(text.parse().expect("a prefix")),
        ..usual()
    };
    let slice = || Wanted {
        slice: Some("site_a".to_owned()),
        ..usual()
    };
    for (wanted, index) in [
        (usual(), "flow_by_time"),
        (to("10.1.0.2"), "flow_by_remote (remote=?"),
        (
            Wanted {
                source: Some(Source::Node("node-1".to_owned())),
                ..to("0.0.0.0/0")
            },
            "flow_by_time",
        ),
        (slice(), "flow_by_slice (slice=?"),
        (
            Wanted {
                from_ms: Some(5_000_000),
                ..slice()
            },
            "flow_by_slice (slice=? AND last_ms>?)",
        ),
        (
            Wanted {
                remote: Some("10.1.0.2".parse().expect("a prefix")),
                ..slice()
            },
            "flow_by_remote (remote=?",
        ),
        (
            Wanted {
                remote_port: Some(22),
                ..usual()
            },
            "flow_by_remote_port (remote_port=?",
        ),
        (
            Wanted {
                source_port: Some(20_000),
                ..usual()
            },
            "flow_by_port (<expr>=?",
        ),
        (
            Wanted {
                from_ms: Some(5_000_000),
                until_ms: Some(5_600_000),
                ..to("10.0.0.0/8")
            },
            "flow_by_time (last_ms>? AND last_ms<?)",
        ),
    ] {
        let plan = plan(&wanted);
        assert!(plan.contains(index), "{wanted:?}: {plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{wanted:?}: {plan}");
    }
    // Which of many are the latest stands in the index; only they are read.
    let some = plan(&to("10.1.0.0/30"));
    assert!(
        some.contains("COVERING INDEX flow_by_remote (remote>? AND remote<?)"),
        "{some}"
    );
}

#[test]
fn what_is_nowhere_is_not_looked_for() {
    let (_dir, store) = filled(1);
    for wanted in [
        Wanted {
            slice: Some("site_x".to_owned()),
            ..Wanted::default()
        },
        Wanted {
            source: Some(Source::Node("node-9".to_owned())),
            ..Wanted::default()
        },
    ] {
        assert!(query(&store.connection, &wanted).expect("asked").is_none());
    }
}
