//! The ledger between processes: who lies is found, who dies leaves its slot.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use slicectl::ledger::{AuditedEntry, Verdict, audit};
use tempfile::TempDir;
use vmm::nanos::Nanos;
use vmm::sched::ledger::{LedgerView, State};

struct Node(TempDir);

/// A process with an entry. Killed when it is dropped.
struct Entry {
    child: Child,
    slot: usize,
}

impl Node {
    fn new() -> Self {
        Self(
            TempDir::with_prefix_in("slicevisor-test-", "/dev/shm").expect("a directory in memory"),
        )
    }

    fn path(&self) -> PathBuf {
        self.0.path().join(".ledger")
    }

    fn start(&self, name: &str, kind: &str) -> Entry {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ledger-entry"))
            .arg(self.path())
            .args([name, kind])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let stdout = child.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("read");
        let slot = line.trim().parse().expect("a slot");
        Entry { child, slot }
    }

    fn audit(&self) -> Vec<AuditedEntry> {
        let view = LedgerView::open(&self.path()).expect("opened");
        audit(&view, self.0.path(), Duration::from_secs(3))
    }

    fn states(&self) -> Vec<(usize, State)> {
        let view = LedgerView::open(&self.path()).expect("opened");
        let entries = view.entries(Nanos::ZERO);
        entries
            .iter()
            .map(|entry| (entry.slot, entry.state))
            .collect()
    }
}

impl Entry {
    fn kill(mut self) -> usize {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.slot
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_claims_less_than_the_kernel_counts_is_found_and_nobody_else() {
    let node = Node::new();
    let _entries = ["honest", "idle", "liar", "silent"].map(|kind| node.start(kind, kind));
    let found = node.audit();
    let verdict = |name: &str| {
        let entry = found.iter().find(|entry| entry.name == name);
        &entry.expect("it is listed").verdict
    };
    assert_eq!(verdict("honest"), &Verdict::Ok, "{found:#?}");
    assert_eq!(verdict("idle"), &Verdict::Ok, "{found:#?}");
    for name in ["liar", "silent"] {
        assert!(matches!(verdict(name), Verdict::Lies { .. }), "{found:#?}");
    }
}

#[test]
fn a_killed_monitors_slot_goes_to_the_next() {
    let node = Node::new();
    let (one, two) = (node.start("one", "idle"), node.start("two", "idle"));
    assert_eq!(node.states().len(), 2);
    let slot = one.kill();
    assert!(node.states().contains(&(slot, State::Dead)));
    assert_eq!(node.audit()[0].verdict, Verdict::Dead);
    let three = node.start("three", "idle");
    assert_eq!(three.slot, slot);
    assert_ne!(two.slot, slot);
}

#[test]
fn many_monitors_that_start_at_once_find_one_ledger() {
    let node = Node::new();
    let entries: Vec<Entry> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..24)
            .map(|_| scope.spawn(|| node.start("a", "idle")))
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().expect("started"))
            .collect()
    });
    let mut slots: Vec<usize> = entries.iter().map(|entry| entry.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..24).collect::<Vec<_>>());
    assert_eq!(node.states().len(), 24);
}
