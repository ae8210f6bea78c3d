//! Quotas as they are written, and what becomes of them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::spec::SliverSpec;

fn document(quotas: &Value) -> Value {
    let mut document = json!({
        "version": 1, "name": "hello-1", "slice": "local_demo", "owner": "Ada",
        "contact": "ada@example.org", "image": "hello", "vcpus": 2,
    });
    for (field, value) in quotas.as_object().expect("an object") {
        document[field] = value.clone();
    }
    document
}

fn parse(quotas: &Value) -> Result<SliverSpec, String> {
    SliverSpec::parse(document(quotas).to_string().as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn without_quotas_a_sliver_has_no_cap_no_reserve_and_one_share() {
    let spec = parse(&json!({})).unwrap();
    assert_eq!(*spec.cpu(), CpuLimits::default());
    assert_eq!(spec.cpu().cap(), None);
    assert_eq!(spec.cpu().bandwidth(), None);
    for nothing in [json!({ "cpu_cap": null }), json!({ "cpu_cap": "none" })] {
        assert_eq!(parse(&nothing).unwrap(), spec);
    }
}

#[test]
fn quotas_are_read_from_the_top_of_the_document() {
    let spec = parse(&json!({
        "cpu_cap": 150.5, "cpu_pct": 12.3, "cpu_share": 5, "cpu_burst": 20, "cpu_period": 5,
    }))
    .unwrap();
    let cpu = spec.cpu();
    assert_eq!(cpu.cap(), Some(MilliCpu(1505)));
    assert_eq!(cpu.reserve_permille(), 123);
    assert_eq!(cpu.reserve(4), MilliCpu(492));
    assert_eq!((cpu.share(), cpu.burst_ms(), cpu.period_ms()), (5, 20, 5));
    let bandwidth = cpu.bandwidth().unwrap();
    assert_eq!(bandwidth.quota, Nanos::from_micros(7525));
}

#[test]
fn what_is_outside_the_bounds_is_refused_with_the_bounds() {
    let caps = "allowed are 0.1 to 200 in steps of 0.1 with 2 vCPUs, or none";
    let reserves = "allowed are 0 to 100 in steps of 0.1";
    for (field, value, told) in [
        ("cpu_cap", json!(0), caps),
        ("cpu_cap", json!(0.05), caps),
        ("cpu_cap", json!(0.15), caps),
        ("cpu_cap", json!(200.1), caps),
        ("cpu_cap", json!(-1), caps),
        ("cpu_cap", json!(1e300), caps),
        (
            "cpu_cap",
            json!("50%"),
            "is a string, not a number or \"none\"",
        ),
        ("cpu_pct", json!(100.1), reserves),
        ("cpu_pct", json!(-0.1), reserves),
        ("cpu_pct", json!(0.01), reserves),
        ("cpu_pct", json!("none"), "is a string, not a number"),
        ("cpu_share", json!(0), "is 0, allowed are 1 to 10000"),
        ("cpu_share", json!(10_001), "allowed are 1 to 10000"),
        ("cpu_share", json!(1.5), "is a number, not a whole number"),
        ("cpu_burst", json!(10_001), "allowed are 0 to 10000"),
        ("cpu_burst", json!(-1), "not a whole number of at least 0"),
        ("cpu_period", json!(0), "allowed are 1 to 100"),
        ("cpu_period", json!(101), "allowed are 1 to 100"),
        ("cpu_period", json!(u64::MAX), "allowed are 1 to 100"),
        ("cpu_period", json!([]), "is a list"),
    ] {
        let why = parse(&json!({ field: value })).expect_err(field);
        assert!(why.contains(field) && why.contains(told), "{value}: {why}");
        assert!(why.len() < 200, "{why}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let why = parse(&json!({
        "cpu_cap": 500, "cpu_pct": "x", "cpu_share": 0, "cpu_burst": 20_000, "cpu_period": 0,
    }))
    .unwrap_err();
    for field in ["cpu_cap", "cpu_pct", "cpu_share", "cpu_burst", "cpu_period"] {
        assert!(why.contains(field), "{why}");
    }
}

#[test]
fn a_change_leaves_what_it_does_not_name() {
    let before = *parse(&json!({ "cpu_cap": 50, "cpu_share": 3 }))
        .unwrap()
        .cpu();
    let change = |json: Value| serde_json::from_value::<CpuChange>(json).unwrap();
    let after = change(json!({ "cpu_pct": 10 })).apply(&before, 1).unwrap();
    assert_eq!((after.cap(), after.share()), (before.cap(), 3));
    assert_eq!(after.reserve_permille(), 100);
    let lifted = change(json!({ "cpu_cap": "none" }))
        .apply(&after, 1)
        .unwrap();
    assert_eq!(lifted.cap(), None);
    assert_eq!(lifted.reserve_permille(), 100);
    assert!(change(json!({})).is_empty());
    assert_eq!(change(json!({})).apply(&lifted, 1).unwrap(), lifted);
}

#[test]
fn a_change_of_what_does_not_exist_is_refused() {
    for wrong in [
        json!({ "cpu_sahre": 3 }),
        json!({ "cpu_cap": "much" }),
        json!({ "cpu_cap": {} }),
        json!({ "cpu_share": "3" }),
    ] {
        assert!(
            serde_json::from_value::<CpuChange>(wrong.clone()).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn a_number_that_is_none_is_no_quota() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.04, 1e-9] {
        let change = CpuChange {
            cpu_cap: Some(Cap::Percent(Percent(number))),
            cpu_pct: Some(Percent(number)),
            ..CpuChange::default()
        };
        let mistakes = change.apply(&CpuLimits::default(), 1).unwrap_err();
        assert!(
            mistakes.iter().any(|mistake| mistake.field == "cpu_cap"),
            "{number}"
        );
    }
}

#[test]
fn more_than_the_vcpus_can_use_cannot_be_reserved() {
    let limits = *parse(&json!({ "cpu_pct": 60 })).unwrap().cpu();
    assert_eq!(limits.beyond_vcpus(1, 1), None);
    assert_eq!(limits.beyond_vcpus(2, 3), None);
    let why = limits.beyond_vcpus(1, 3).unwrap();
    assert_eq!(
        why.to_string(),
        "cpu_pct: is 60 % of this node's 3 processors, more than 1 vCPU can use: allowed are 0 to \
         33.3"
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        cap in prop::option::of(1u32..=2000),
        permille in 0u32..=1000,
        share in 1u32..=10_000,
        burst_ms in 0u32..=10_000,
        period_ms in 1u32..=100,
    ) {
        let mut quotas = json!({
            "cpu_pct": f64::from(permille) / 10.0,
            "cpu_share": share, "cpu_burst": burst_ms, "cpu_period": period_ms,
        });
        if let Some(cap) = cap {
            quotas["cpu_cap"] = json!(f64::from(cap) / 10.0);
        }
        let spec = parse(&quotas).unwrap();
        let limits = *spec.cpu();
        prop_assert_eq!(limits.cap(), cap.map(MilliCpu));
        prop_assert_eq!(limits.reserve_permille(), permille);
        prop_assert_eq!(SliverSpec::parse(spec.to_json().as_bytes()).unwrap(), spec);
        let json = serde_json::to_string(&limits).unwrap();
        prop_assert_eq!(serde_json::from_str::<CpuLimits>(&json).unwrap(), limits);
        let whole = CpuChange::from(limits);
        prop_assert_eq!(whole.apply(&CpuLimits::default(), 2).unwrap(), limits);
    }

    #[test]
    fn any_number_is_a_quota_or_refused(cap: f64, reserve: f64, share: u64) {
        let change = CpuChange {
            cpu_cap: Some(Cap::Percent(Percent(cap))),
            cpu_pct: Some(Percent(reserve)),
            cpu_share: Some(share),
            ..CpuChange::default()
        };
        if let Ok(limits) = change.apply(&CpuLimits::default(), 2) {
            prop_assert!((1..=2000).contains(&limits.cap().unwrap().0));
            prop_assert!(limits.reserve_permille() <= 1000 && limits.share() <= 10_000);
        }
    }
}
