use super::*;

fn noisy_quads(ratio: f64, noise: f64, count: usize, seed: u64) -> Vec<Quad> {
    let mut rng = Rng::new(seed);
    let mut draw = |center: f64| {
        let unit = rng.next_u64() as f64 / u64::MAX as f64;
        center * (noise * (unit - 0.5)).exp()
    };
    (0..count)
        .map(|_| Quad {
            ours: [draw(ratio), draw(ratio)],
            peer: [draw(1.0), draw(1.0)],
        })
        .collect()
}

#[test]
fn the_median_is_the_middle_whatever_the_order() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    assert_eq!(median(&[7.0]), 7.0);
    assert_eq!(median(&[-1.0, -5.0]), -3.0);
}

#[test]
fn one_wild_sample_does_not_move_the_median() {
    assert_eq!(median(&[1.0, 1.1, 0.9, 1.0, 1e9]), 1.0);
}

#[test]
#[should_panic(expected = "a median needs a sample")]
fn no_samples_have_no_median() {
    median(&[]);
}

#[test]
fn equal_samples_leave_an_interval_of_no_width() {
    let interval = bootstrap_median(&[2.0; 12], &mut Rng::new(1));
    assert_eq!((interval.low, interval.high), (2.0, 2.0));
}

#[test]
fn the_interval_holds_the_median_and_narrows_with_more_samples() {
    let samples = |n: usize| (0..n).map(|i| (i % 10) as f64).collect::<Vec<_>>();
    let few = bootstrap_median(&samples(20), &mut Rng::new(2));
    let many = bootstrap_median(&samples(2000), &mut Rng::new(2));
    for interval in [few, many] {
        assert!(interval.low <= 4.5 && 4.5 <= interval.high, "{interval:?}");
    }
    assert!(many.high - many.low < few.high - few.low);
}

#[test]
fn the_interval_covers_the_truth_about_as_often_as_it_says() {
    let covered = (0..30)
        .filter(|&seed| {
            let comparison = compare(&noisy_quads(1.5, 0.4, 15, seed), &mut Rng::new(seed));
            comparison.interval.low <= 1.5 && 1.5 <= comparison.interval.high
        })
        .count();
    assert!((25..=30).contains(&covered), "{covered} of 30");
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let quads = noisy_quads(0.8, 0.2, 15, 9);
    assert_eq!(
        compare(&quads, &mut Rng::new(5)),
        compare(&quads, &mut Rng::new(5))
    );
}

#[test]
fn a_ratio_is_taken_pair_by_pair_so_a_common_drift_cancels() {
    let quads: Vec<Quad> = (0..15)
        .map(|i| {
            let drift = 1.0 + f64::from(i);
            Quad {
                ours: [2.0 * drift; 2],
                peer: [drift; 2],
            }
        })
        .collect();
    let comparison = compare(&quads, &mut Rng::new(3));
    assert!((comparison.ratio - 2.0).abs() < 1e-12);
    assert!((comparison.interval.high - 2.0).abs() < 1e-12);
    assert_eq!((comparison.band, comparison.pairs), (1.0, 30));
}

#[test]
fn ours_and_peer_swapped_give_the_inverse_ratio() {
    let quads = noisy_quads(3.0, 0.3, 15, 4);
    let swapped: Vec<Quad> = quads
        .iter()
        .map(|q| Quad {
            ours: q.peer,
            peer: q.ours,
        })
        .collect();
    let forth = compare(&quads, &mut Rng::new(1)).ratio;
    let back = compare(&swapped, &mut Rng::new(1)).ratio;
    assert!((forth * back - 1.0).abs() < 1e-9);
}

#[test]
fn the_band_grows_with_the_noise() {
    let quiet = compare(&noisy_quads(1.0, 0.02, 15, 6), &mut Rng::new(6));
    let loud = compare(&noisy_quads(1.0, 1.0, 15, 6), &mut Rng::new(6));
    assert!(quiet.band >= 1.0 && quiet.band < 1.02, "{quiet:?}");
    assert!(loud.band > quiet.band);
}

#[test]
fn a_verdict_needs_the_interval_and_the_band_to_clear_the_bar() {
    let narrow = |value: f64| Interval {
        low: value * 0.99,
        high: value * 1.01,
    };
    assert_eq!(judge(1.5, narrow(1.5), 1.05, 2.0), Verdict::Met);
    assert_eq!(judge(2.5, narrow(2.5), 1.05, 2.0), Verdict::Missed);
    assert_eq!(judge(1.999, narrow(1.999), 1.0, 2.0), Verdict::NotDecided);
    assert_eq!(judge(1.9, narrow(1.9), 1.2, 2.0), Verdict::NotDecided);
    assert_eq!(judge(2.2, narrow(2.2), 1.2, 2.0), Verdict::NotDecided);
}

#[test]
fn a_slope_is_what_each_step_adds() {
    let points: Vec<(f64, f64)> = (0..10)
        .map(|i| (f64::from(i), 7.0 - 3.0 * f64::from(i)))
        .collect();
    assert!((slope(&points) + 3.0).abs() < 1e-12);
}

#[test]
fn numbers_below_a_bound_reach_all_of_it() {
    let mut rng = Rng::new(8);
    let mut seen = [false; 7];
    for _ in 0..500 {
        seen[rng.below(7)] = true;
    }
    assert!(seen.iter().all(|&s| s));
}

#[test]
fn a_quantile_is_a_sample() {
    let samples: Vec<f64> = (1..=10).rev().map(f64::from).collect();
    assert_eq!(quantile(&samples, 0.9), 9.0);
    assert_eq!(quantile(&samples, 1.0), 10.0);
    assert_eq!(quantile(&samples, 0.0), 1.0);
    assert_eq!(quantile(&[7.0], 0.5), 7.0);
}
