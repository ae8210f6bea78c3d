//! The arithmetic of a comparison: medians of paired log ratios, bootstrap intervals, an A/A band.
//!
//! Pure: samples and a seed go in, numbers come out. Ratios are compared on a logarithmic scale,
//! so that twice as slow and twice as fast weigh the same. No sample is ever dropped.

#[cfg(test)]
mod tests;

use serde::Serialize;

/// How often a bootstrap draws anew: enough for two digits of a 95 % interval.
const RESAMPLES: usize = 10_000;

/// A small seeded generator (SplitMix64, Steele 2014): a run can be repeated from its seed.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The generator that `seed` names.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`. Its bias is `bound / 2^64`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A fair coin.
    pub(crate) fn coin(&mut self) -> bool {
        self.next_u64() >> 63 == 1
    }
}

/// Two runs of ours and two of the peer, made next to each other in the order A B B A or B A A B.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quad {
    /// First and second run of ours.
    pub(crate) ours: [f64; 2],
    /// First and second run of the peer.
    pub(crate) peer: [f64; 2],
}

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Interval {
    /// Lower bound.
    pub(crate) low: f64,
    /// Upper bound.
    pub(crate) high: f64,
}

/// Ours against the peer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// Pairs it was made from.
    pub(crate) pairs: usize,
    /// Median of ours divided by peer, pair by pair.
    pub(crate) ratio: f64,
    /// Where that median lies.
    pub(crate) interval: Interval,
    /// How far from 1 this method finds a thing to be from itself, as a factor of at least 1.
    pub(crate) band: f64,
}

/// What a measured value must not exceed, and whether it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Below the bar, by more than the noise.
    Met,
    /// Above the bar, by more than the noise.
    Missed,
    /// The noise covers the bar.
    NotDecided,
}

/// The middle of `samples`; the mean of the two middle ones if their number is even.
///
/// # Panics
/// Without samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    median_in_place(&mut samples.to_vec())
}

/// What this part of `samples`, between 0 and 1, does not exceed.
///
/// # Panics
/// Without samples.
pub(crate) fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Where the median of what `samples` were drawn from lies, by the percentile bootstrap.
///
/// # Panics
/// Without samples.
pub(crate) fn bootstrap_median(samples: &[f64], rng: &mut Rng) -> Interval {
    let mut draw = vec![0.0; samples.len()];
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for slot in &mut draw {
            *slot = samples[rng.below(samples.len())];
        }
        medians.push(median_in_place(&mut draw));
    }
    medians.sort_by(f64::total_cmp);
    Interval {
        low: medians[RESAMPLES / 40],
        high: medians[RESAMPLES - 1 - RESAMPLES / 40],
    }
}

/// Compares ours with the peer. The A/A band comes from the same quads: the first run of a thing
/// against its second, which differ by nothing but their time.
///
/// # Panics
/// Without quads.
pub(crate) fn compare(quads: &[Quad], rng: &mut Rng) -> Comparison {
    let pairs: Vec<f64> = quads
        .iter()
        .flat_map(|q| [0, 1].map(|i| (q.ours[i] / q.peer[i]).ln()))
        .collect();
    let same: Vec<f64> = quads
        .iter()
        .flat_map(|q| [q.ours, q.peer].map(|[first, second]| (first / second).ln()))
        .collect();
    let interval = bootstrap_median(&pairs, rng);
    let control = bootstrap_median(&same, rng);
    Comparison {
        pairs: pairs.len(),
        ratio: median(&pairs).exp(),
        interval: Interval {
            low: interval.low.exp(),
            high: interval.high.exp(),
        },
        band: control.low.abs().max(control.high.abs()).exp(),
    }
}

/// Holds a value with its interval against a bar it must not exceed. It is decided only if the
/// interval excludes the bar and the distance to it exceeds the A/A band.
pub(crate) fn judge(value: f64, interval: Interval, band: f64, bar: f64) -> Verdict {
    if interval.high <= bar && value * band <= bar {
        Verdict::Met
    } else if interval.low > bar && value / band > bar {
        Verdict::Missed
    } else {
        Verdict::NotDecided
    }
}

/// The slope of the straight line that fits `points` best (least squares).
///
/// # Panics
/// Unless at least two points differ in their first coordinate.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let covariance: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let variance: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    assert!(variance > 0.0, "a slope needs two different abscissas");
    covariance / variance
}

fn median_in_place(samples: &mut [f64]) -> f64 {
    assert!(!samples.is_empty(), "a median needs a sample");
    let (middle, odd) = (samples.len() / 2, samples.len() % 2 == 1);
    let (below, &mut upper, _) = samples.select_nth_unstable_by(middle, f64::total_cmp);
    if odd {
        upper
    } else {
        let lower = below.iter().copied().fold(f64::MIN, f64::max);
        lower.midpoint(upper)
    }
}
