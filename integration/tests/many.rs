//! Slivers in great number, one after the other and all at once: each works, none leaves a trace.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use integration::needs_kvm;
use integration::sliver::{Running, Sliver, new_place, run_dir};
use tempfile::TempDir;

/// Tests that count what their process holds run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_descriptors() -> usize {
    let list = fs::read_dir("/proc/self/fd").expect("proc is mounted");
    list.count()
}

/// Command lines of all processes that name this place: its monitors.
fn processes_of(place: &TempDir) -> Vec<String> {
    let place = place.path().to_str().expect("a test's path is UTF-8");
    let processes = fs::read_dir("/proc").expect("proc is mounted");
    processes
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| line.contains(place))
        .collect()
}

fn assert_no_trace(place: &TempDir) {
    assert_eq!(processes_of(place), Vec::<String>::new());
    let left = fs::read_dir(run_dir(place)).expect("the run directory is there");
    assert_eq!(left.count(), 0);
}

#[test]
fn five_hundred_starts_in_a_row_leave_nothing_behind() {
    needs_kvm!();
    let _alone = alone();
    let place = Arc::new(new_place());
    let start = || {
        let sliver = Sliver::example("hello").field("name", "again");
        let ended = sliver.in_place(&place).run();
        ended.assert_exited(0);
        assert_eq!(ended.console, "hello from again\n");
    };
    start();
    let before = open_descriptors();
    for _ in 0..500 {
        start();
    }
    assert_eq!(open_descriptors(), before);
    assert_no_trace(&place);
}

#[test]
fn a_hundred_slivers_at_once_all_print_and_exit() {
    needs_kvm!();
    let _alone = alone();
    let place = Arc::new(new_place());
    let running: Vec<Running> = (0..100)
        .map(|number| {
            let sliver = Sliver::example("hello").field("name", format!("n-{number}"));
            sliver.in_place(&place).spawn()
        })
        .collect();
    for (number, sliver) in running.into_iter().enumerate() {
        let ended = sliver.wait();
        ended.assert_exited(0);
        assert_eq!(ended.console, format!("hello from n-{number}\n"));
    }
    assert_no_trace(&place);
}
