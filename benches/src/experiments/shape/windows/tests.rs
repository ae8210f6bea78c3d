use super::*;

/// A frame of 1000 bytes every millisecond: 8 Mbit/s.
fn steady(count: u64) -> Gone {
    let mut gone = Gone::default();
    for index in 0..count {
        gone.add(Duration::from_millis(5000 + index), 1000);
    }
    gone
}

#[test]
fn a_steady_flow_has_no_error() {
    let errors = steady(1001).errors(8000);
    assert!(errors.long < 1e-9);
    assert_eq!(errors.windows, [0.0; 3]);
}

#[test]
fn a_flow_that_is_too_fast_is_off_by_as_much() {
    let errors = steady(1001).errors(4000);
    assert!((errors.long - 100.0).abs() < 1e-9);
    assert_eq!(errors.windows, [100.0; 3]);
}

#[test]
fn a_frame_that_comes_late_is_seen_in_short_windows_more_than_in_long_ones() {
    let mut gone = Gone::default();
    for index in 0..1001u64 {
        let late = u64::from(index == 505) * 990;
        gone.add(Duration::from_micros(index * 1000 + late + 20), 1000);
    }
    gone.0[505].0 += Duration::from_micros(20);
    let errors = gone.errors(8000);
    assert!(errors.long < 1e-9);
    assert_eq!(errors.windows[2], 100.0);
    assert!(errors.windows[0] <= 1.0);
}

#[test]
fn what_is_skipped_does_not_count() {
    let mut gone = Gone::default();
    for _ in 0..100 {
        gone.add(Duration::from_millis(4999), 1000);
    }
    gone.0.extend(steady(1001).0);
    gone.skip(Duration::from_millis(1));
    assert_eq!(gone.errors(8000).windows, [0.0; 3]);
}

#[test]
fn nothing_is_all_wrong() {
    let errors = Gone::default().errors(8000);
    assert_eq!((errors.long, errors.windows), (100.0, [100.0; 3]));
}

#[test]
fn bundles_count_as_their_segments() {
    assert_eq!(on_wire(60), 60);
    assert_eq!(on_wire(1514), 1514);
    assert_eq!(on_wire(54 + 44 * 1448), 44 * 1502);
    assert_eq!(on_wire(54 + 2 * 1448 + 1), 3 * 54 + 2 * 1448 + 1);
}
