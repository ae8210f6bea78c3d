use proptest::prelude::*;
use serde_json::json;

use super::*;

fn simulated(name: &str, seed: u64) -> Report {
    let workload = Workload::built_in(name).unwrap_or_else(|| panic!("no workload {name}"));
    let setup = Setup {
        seed,
        ..Setup::default()
    };
    simulate(&workload, &setup)
}

fn group<'a>(report: &'a Report, name: &str) -> &'a GroupReport {
    let found = report.groups.iter().find(|group| group.name == name);
    found.unwrap_or_else(|| panic!("no group {name}"))
}

fn worst_share_error(report: &Report) -> f64 {
    let errors = report
        .groups
        .iter()
        .filter_map(|group| group.share_error_pct);
    errors.map(|error| error.max).fold(0.0, f64::max)
}

#[test]
fn every_built_in_workload_is_one() {
    let names: Vec<_> = Workload::list().collect();
    assert_eq!(names.len(), workload::BUILT_IN.len());
    for (name, about) in names {
        assert!(!about.is_empty(), "{name}");
    }
    assert!(Workload::built_in("unknown").is_none());
}

#[test]
fn shares_are_kept_within_two_percent() {
    for name in ["steady", "weights", "caps", "joiner", "smp", "io", "bursty"] {
        let report = simulated(name, 7);
        let worst = worst_share_error(&report);
        assert!(worst <= 2.0, "{name}: {worst} %: {report:#?}");
    }
}

#[test]
fn a_reserve_is_kept_among_fifty_others() {
    let report = simulated("reserve", 7);
    // A quarter of two processors.
    let service = group(&report, "reserved").service_pct;
    assert!(service >= 49.0, "{service}");
    assert!(worst_share_error(&report) <= 2.0, "{report:#?}");
}

#[test]
fn no_theft_gains_more_than_two_percent() {
    let thefts = Workload::list().filter(|(name, _)| name.starts_with("theft-"));
    for (name, _) in thefts {
        for seed in 1..=3 {
            let report = simulated(name, seed);
            for group in &report.groups {
                let theft = group.theft_pct;
                assert!(theft <= 2.0, "{name}, seed {seed}: {group:#?}");
            }
            assert!(worst_share_error(&report) <= 2.0, "{name}: {report:#?}");
        }
    }
}

#[test]
fn nobody_starves_and_nobody_waits_for_an_idle_processor() {
    for (name, _) in Workload::list().filter(|(name, _)| *name != "crowd") {
        let report = simulated(name, 11);
        assert!(report.wasted_pct <= 1.0, "{name}: {}", report.wasted_pct);
        for group in &report.groups {
            // A turn of everybody, some times over.
            let longest = 20.0 * report.slivers as f64 + 100.0;
            assert!(group.longest_wait_ms <= longest, "{name}: {group:#?}");
        }
    }
}

#[test]
fn who_sleeps_most_of_the_time_runs_soon_after_waking() {
    let report = simulated("io", 3);
    let latency = group(&report, "io").latency_us;
    let latency = latency.unwrap_or_else(|| panic!("they sleep: {report:#?}"));
    assert!(latency.p50 < 100.0 && latency.p99 < 4_000.0 && latency.max < 20_000.0);
}

#[test]
fn who_comes_late_gets_what_the_others_do_from_then_on() {
    let report = simulated("joiner", 5);
    let error = group(&report, "late")
        .share_error_pct
        .map(|error| error.max);
    assert!(error.is_some_and(|error| error < 1.0), "{report:#?}");
}

#[test]
fn the_same_seed_gives_the_same_report() {
    assert_eq!(simulated("theft-flicker", 9), simulated("theft-flicker", 9));
    assert_ne!(
        simulated("theft-flicker", 9).groups,
        simulated("theft-flicker", 10).groups
    );
}

#[test]
fn workloads_are_scaled_in_proportion() {
    let scaled = |name: &str, slivers| {
        let workload = Workload::built_in(name).unwrap_or_else(|| panic!("no {name}"));
        let groups = workload.with_slivers(slivers).groups;
        groups.iter().map(|group| group.count).collect::<Vec<_>>()
    };
    assert_eq!(scaled("reserve", 102), [2, 100]);
    assert_eq!(scaled("reserve", 1), [1, 1]);
    assert_eq!(scaled("crowd", 100), [90, 4, 1, 5]);
}

#[test]
fn all_mistakes_of_a_workload_are_told_at_once() {
    let text = json!({
        "groups": [
            { "name": "a", "behaviour": "lazy", "count": 0 },
            { "behaviour": "cycle", "run_us": 5, "cpu_cap": 101 },
            { "name": "c", "behaviour": "steady", "speed": 3 }
        ]
    });
    let Err(error) = Workload::parse(text.to_string().as_bytes()) else {
        panic!("it is wrong");
    };
    let mut fields: Vec<_> = error
        .mistakes()
        .iter()
        .map(|one| one.field.clone())
        .collect();
    fields.sort();
    let expected = [
        "groups[0].behaviour",
        "groups[0].count",
        "groups[1].behaviour",
        "groups[1].cpu_cap",
        "groups[1].name",
        "groups[2].speed",
    ];
    for field in expected {
        assert!(fields.iter().any(|one| one == field), "{field} of {error}");
    }
    let Err(error) = Workload::parse(b"[]") else {
        panic!("it is wrong");
    };
    assert_eq!(
        error.to_string(),
        "invalid workload: workload: is a list, not an object"
    );
}

#[test]
fn a_rival_with_long_quanta_costs_nobody_its_share() {
    let text = json!({ "groups": [
        { "name": "large", "cpu_share": 4, "behaviour": "steady" },
        { "name": "small", "cpu_share": 1, "behaviour": "steady" },
    ] });
    let workload = Workload::parse(text.to_string().as_bytes()).unwrap();
    let setup = Setup {
        processors: 1,
        ..Setup::default()
    };
    let report = simulate(&workload, &setup);
    assert!(worst_share_error(&report) <= 2.0, "{report:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_shares_are_kept(
        shares in prop::collection::vec(1..=6u32, 2..8),
        processors in 1..=4u32,
        seed in any::<u64>(),
    ) {
        let groups = shares.iter().enumerate().map(|(i, share)| json!({
            "name": format!("{i}"), "cpu_share": share, "behaviour": "steady",
        }));
        let text = json!({ "groups": groups.collect::<Vec<_>>() }).to_string();
        let workload = Workload::parse(text.as_bytes());
        prop_assert!(workload.is_ok(), "{workload:?}");
        if let Ok(workload) = workload {
            let setup = Setup { processors, seed, ..Setup::default() };
            let report = simulate(&workload, &setup);
            prop_assert!(worst_share_error(&report) <= 2.0, "{report:#?}");
        }
    }
}
