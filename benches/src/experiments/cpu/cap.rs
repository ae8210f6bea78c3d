//! How exactly a cap is kept, in the long run and over windows of 1 and of 10 periods, next to an
//! equal process under the kernel's own quota (CFS bandwidth control) with the same period.
//!
//! An error is what was used too much or too little, in percent of what the cap grants for the time
//! that really passed. The kernel takes no quota below 1 ms: there is no peer then. Both come before
//! whatever else the host does: what that would take from them is no error of a cap.

use std::time::Duration;

use anyhow::Result;
use integration::artifacts;
use serde_json::json;

use crate::cgroup::{Cgroup, LEAST_QUOTA_US};
use crate::experiments::cpu::runs;
use crate::lab::{Lab, QuadOf, Surroundings};
use crate::metrics::{Bar, Experiment, Metric, Samples};
use crate::sampler::Reading;
use crate::stats::{median, quantile};
use crate::subject::{Crowd, FOREVER, Subject, whole};

/// No error is smaller than what can be measured: a ratio needs a number.
const LEAST_ERROR: f64 = 1e-4;

/// A cap and its period.
#[derive(Debug, Clone, Copy)]
struct Setting {
    /// In percent of one processor.
    cap: u64,
    period_ms: u64,
}

/// The errors of one run, in percent of the cap.
#[derive(Debug, Clone, Copy)]
struct Errors {
    long_run: f64,
    one_period: f64,
    ten_periods: f64,
    ten_periods_p90: f64,
}

macro_rules! setting {
    ($cap:literal, $period:literal $(, $against:literal)?) => {
        Experiment {
            metrics: &[
                metric(concat!("cpu-cap-", $cap, "-", $period, "ms-long-run"),
                    $cap * $period, Bar::Value(if $cap < 5 { 2.0 } else { 0.5 })),
                metric(concat!("cpu-cap-", $cap, "-", $period, "ms-10-periods"),
                    $cap * $period, Bar::Value(match $cap { 0..5 => 8.0, 5..20 => 2.0, _ => 1.0 })),
                metric(concat!("cpu-cap-", $cap, "-", $period, "ms-10-periods-p90"),
                    $cap * $period, Bar::None),
                metric(concat!("cpu-cap-", $cap, "-", $period, "ms-1-period"),
                    $cap * $period, Bar::None),
                $(metric(concat!("cpu-cap-", $cap, "-", $period, "ms-10-periods-", $against),
                    $cap * $period, Bar::Ratio(1.0)),)?
            ],
            run: |lab| run(lab, Setting { cap: $cap, period_ms: $period }),
        }
    };
}

/// The metrics and how they are measured.
pub(super) const EXPERIMENTS: &[Experiment] = &[
    setting!(1, 5),
    setting!(1, 10),
    setting!(1, 100),
    setting!(5, 5),
    setting!(5, 10),
    setting!(5, 20, "against-cfs"),
    setting!(5, 100),
    setting!(20, 5, "against-cfs"),
    setting!(20, 10),
    setting!(20, 100),
    setting!(50, 5),
    setting!(50, 10),
    setting!(50, 100),
    setting!(100, 5),
    setting!(100, 10),
    setting!(100, 100),
    setting!(150, 5),
    setting!(150, 10),
    setting!(150, 100),
];

const fn metric(name: &'static str, quota: u64, bar: Bar) -> Metric {
    Metric {
        name,
        unit: "% of cap",
        peer: if quota_us(quota) < LEAST_QUOTA_US {
            "-"
        } else {
            "CFS quota"
        },
        bar,
    }
}

/// Of a percentage times milliseconds.
const fn quota_us(percent_ms: u64) -> u64 {
    percent_ms * 10
}

impl Setting {
    fn vcpus(self) -> usize {
        self.cap.div_ceil(100) as usize
    }

    fn quota_us(self) -> u64 {
        quota_us(self.cap * self.period_ms)
    }

    fn period(self) -> Duration {
        Duration::from_millis(self.period_ms)
    }
}

fn run(lab: &mut Lab, setting: Setting) -> Result<Vec<Samples>> {
    let fields = json!({
        "vcpus": setting.vcpus(), "cpu_cap": setting.cap, "cpu_period": setting.period_ms,
    });
    let spec = lab.spec_with("cap", artifacts::image("spin"), &FOREVER, fields)?;
    let what = format!("cap {} %, period {} ms", setting.cap, setting.period_ms);
    let ours = |lab: &Lab| {
        let subject = Subject::sliver(lab, &spec, Surroundings::USUAL);
        measure(lab, setting, Crowd::start([subject].into_iter())?)
    };
    let times = runs(lab);
    if setting.quota_us() < LEAST_QUOTA_US {
        let all = lab.repeat(&what, times, ours)?;
        let alone = |of: fn(&Errors) -> f64| Samples::Alone(all.iter().map(of).collect());
        return Ok(ERRORS.into_iter().map(alone).collect());
    }
    let peer = |lab: &Lab| {
        let group = Cgroup::with_quota(setting.quota_us(), setting.period_ms * 1000)?;
        let subject = Subject::process(setting.vcpus());
        measure(lab, setting, Crowd::start_in(group, [subject].into_iter())?)
    };
    let quads = lab.interleave(&what, times, ours, peer)?;
    let paired = |of: fn(&Errors) -> f64| Samples::Paired {
        values: quads
            .iter()
            .map(|quad: &QuadOf<Errors>| quad.map(of))
            .collect(),
        cpu_ms: Vec::new(),
    };
    let mut samples: Vec<Samples> = ERRORS.into_iter().map(paired).collect();
    samples.push(paired(|errors| errors.ten_periods));
    Ok(samples)
}

/// In the order of the metrics.
const ERRORS: [fn(&Errors) -> f64; 4] = [
    |errors| errors.long_run,
    |errors| errors.ten_periods,
    |errors| errors.ten_periods_p90,
    |errors| errors.one_period,
];

/// The long windows first, with few readings: each takes the processors away for a moment.
fn measure(lab: &Lab, setting: Setting, crowd: Crowd) -> Result<Errors> {
    let period = setting.period();
    let seconds = if lab.quick { 2 } else { 5 };
    let windows = (seconds * 100 / setting.period_ms).max(if lab.quick { 3 } else { 10 });
    let long = crowd.watch(10 * period, windows as usize)?.remove(0);
    let short = crowd
        .watch(period, if lab.quick { 30 } else { 100 })?
        .remove(0);
    crowd.end()?;
    let cap = setting.cap as f64 / 100.0;
    let of_windows = |readings: &[Reading]| -> Vec<f64> {
        readings.windows(2).map(|pair| error(pair, cap)).collect()
    };
    let ten = of_windows(&long);
    Ok(Errors {
        long_run: error(&long, cap),
        one_period: median(&of_windows(&short)),
        ten_periods: median(&ten),
        ten_periods_p90: quantile(&ten, 0.9),
    })
}

fn error(readings: &[Reading], cap: f64) -> f64 {
    let (time, used) = whole(readings);
    let granted = cap * time;
    (100.0 * (used - granted).abs() / granted).max(LEAST_ERROR)
}
