use super::*;

#[test]
fn moments_add_and_subtract_exactly() {
    let moment = Instant(5_000_000_000);
    let later = moment + Duration::new(1, 7);
    assert_eq!(later, Instant(6_000_000_007));
    assert_eq!(later - moment, Duration::new(1, 7));
    assert_eq!(later - Duration::new(1, 7), moment);
    let mut moved = moment;
    moved += Duration::from_nanos(2);
    moved -= Duration::from_nanos(1);
    assert_eq!(moved.since_start(), Duration::from_nanos(5_000_000_001));
}

#[test]
fn time_since_a_later_moment_is_zero() {
    assert_eq!(Instant(3).duration_since(Instant(4)), Duration::ZERO);
    assert_eq!(Instant(3) - Instant(4), Duration::ZERO);
}

#[test]
fn moments_outside_the_clock_do_not_exist() {
    assert_eq!(Instant(1).checked_add(Duration::MAX), None);
    assert_eq!(Instant(1).checked_add(Duration::from_nanos(u64::MAX)), None);
    assert_eq!(Instant(1).checked_sub(Duration::from_nanos(2)), None);
    assert_eq!(
        Instant(0).checked_add(Duration::from_nanos(u64::MAX)),
        Some(Instant(u64::MAX))
    );
}

#[test]
fn a_sleep_is_never_short_even_when_it_is_woken() {
    let start = Instant::now();
    crate::backend::control::wake(crate::vcpu::current());
    sleep(Duration::from_millis(3));
    assert!(start.elapsed() >= Duration::from_millis(3));
}

#[test]
fn a_sleep_of_nothing_returns() {
    sleep(Duration::ZERO);
}

#[test]
fn the_clock_never_steps_back() {
    let mut last = Instant::now();
    for _ in 0..10_000 {
        let now = Instant::now();
        assert!(now >= last);
        last = now;
    }
}

#[test]
fn the_wall_clock_is_after_the_writing_of_this_test() {
    assert!(now_unix() > Duration::from_secs(1_750_000_000));
}
