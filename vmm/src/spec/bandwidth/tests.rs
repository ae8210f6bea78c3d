use proptest::prelude::*;

use super::*;
use crate::spec::SliverSpec;

fn read(fields: &str) -> Result<NetLimits, String> {
    let spec = format!(
        r#"{{"version":1,"name":"a","slice":"a_b","owner":"o","contact":"c","image":"/i"{fields}}}"#
    );
    let spec = SliverSpec::parse(spec.as_bytes()).map_err(|error| error.to_string())?;
    Ok(spec.net_limits().clone())
}

#[test]
fn without_fields_there_is_no_limit() {
    assert_eq!(read("").unwrap(), NetLimits::default());
    assert_eq!(NetLimits::default().plain().max_kbit, None);
}

#[test]
fn fields_are_read_and_written_back() {
    let limits = read(
        r#","net_min_rate":100,"net_max_rate":10000,"net_share":5,"net_burst":64,
        "net_max_kbyte":1000,"net_thresh_kbyte":900,"net_exempt":["10.0.0.0/8","::1"],
        "net_exempt_max_rate":"none","net_rx_max_rate":512"#,
    )
    .unwrap();
    assert_eq!(limits.plain().max_kbit, Some(10_000));
    assert_eq!(limits.burst_bytes(10_000), 64 << 10);
    assert_eq!(limits.rx_burst_bytes(512), 32 << 10);
    assert!(limits.exempt_prefixes().contains([10, 1, 2, 3].into()));
    let json = serde_json::to_string(&limits).unwrap();
    assert_eq!(serde_json::from_str::<NetLimits>(&json).unwrap(), limits);
}

#[test]
fn what_was_sent_today_is_read_and_written_back() {
    let spec = |more: &str| {
        let text = format!(
            r#"{{"version":1,"name":"a","slice":"a_b","owner":"o","contact":"c","image":"/i"{more}}}"#
        );
        SliverSpec::parse(text.as_bytes())
    };
    let told = spec(r#","net_used_today":{"day":20780,"bytes":7,"exempt_bytes":1}"#).unwrap();
    let used = told.net_used_today();
    assert_eq!((used.day, used.bytes, used.exempt_bytes), (20_780, 7, 1));
    assert_eq!(SliverSpec::parse(told.to_json().as_bytes()).unwrap(), told);
    assert!(spec("").unwrap().net_used_today().is_nothing());
    let refused = spec(r#","net_used_today":{"bytes":-1,"since":5}"#).unwrap_err();
    let refused = refused.to_string();
    for part in ["net_used_today.bytes", "net_used_today.since"] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn what_is_not_allowed_is_told_with_what_is() {
    for (fields, told) in [
        (
            r#","net_max_rate":0"#,
            "net_max_rate: is 0, allowed are 1 to",
        ),
        (
            r#","net_share":0"#,
            "net_share: is 0, allowed are 1 to 10000",
        ),
        (
            r#","net_min_rate":20,"net_max_rate":10"#,
            "net_min_rate: is 20, more than net_max_rate: allowed are 0 to 10",
        ),
        (
            r#","net_thresh_kbyte":20"#,
            "net_thresh_kbyte: is 20, more than net_max_kbyte, which is none",
        ),
        (
            r#","net_exempt":["10.0.0.1/8"]"#,
            "net_exempt[0]: \"10.0.0.1/8\" has bits behind the prefix: 10.0.0.0/8 is meant",
        ),
        (r#","net_max_rate":"much""#, "net_max_rate"),
        (r#","net_burst":1"#, "net_burst: is 1, allowed are 2 to"),
    ] {
        let error = read(fields).unwrap_err();
        assert!(error.contains(told), "{fields}: {error}");
    }
}

#[test]
fn a_change_leaves_what_it_does_not_name() {
    let limits = read(r#","net_max_rate":1000,"net_max_kbyte":100,"net_thresh_kbyte":90"#).unwrap();
    let change = NetChange {
        net_max_kbyte: Some(Most::None),
        ..NetChange::default()
    };
    let changed = change.apply(&limits).unwrap();
    assert_eq!(changed.plain().max_kbit, Some(1000));
    assert_eq!(changed.plain().thresh_kbyte, None);
    assert_eq!(NetChange::default().apply(&limits).unwrap(), limits);
}

const UPLINK: &str = r#","uplink":{"interface":"eth0","rate":10000}"#;

fn spec(fields: &str) -> Result<SliverSpec, String> {
    let spec = format!(
        r#"{{"version":1,"name":"a","slice":"a_b","owner":"o","contact":"c","image":"/i"{fields}}}"#
    );
    SliverSpec::parse(spec.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn with_an_uplink_the_defaults_are_planetlabs() {
    let spec = spec(UPLINK).unwrap();
    let uplink = spec.uplink().unwrap();
    assert_eq!((uplink.interface(), uplink.kbit()), ("eth0", 10_000));
    let limits = spec.net_limits();
    assert_eq!((limits.share(), limits.guaranteed_kbit()), (1, 0));
    for (class, most, threshold) in [
        (limits.plain(), 10_546_875, 9_492_187),
        (limits.exempt(), 31_640_625, 28_476_562),
    ] {
        assert_eq!(class.max_kbit, Some(1_000_000));
        assert_eq!(class.daily_bytes(), Some(most << 10));
        assert_eq!(class.threshold_bytes(), Some(threshold << 10));
    }
}

#[test]
fn what_an_uplink_or_a_disk_cannot_give_is_told() {
    let with_uplink = |fields: &str| format!("{UPLINK}{fields}");
    for (fields, told) in [
        (
            with_uplink(r#","net_min_rate":2501"#),
            "net_min_rate: 2501 kbit/s are more than 25 % of the uplink's 10000: allowed are 0 to \
             2500",
        ),
        (
            with_uplink(r#","net_min_rate":2000,"net_exempt_min_rate":501"#),
            "net_exempt_min_rate: 2501 kbit/s (501 of it exempt) are more than 25 %",
        ),
        (
            r#","uplink":{"interface":"eth0","rate":0}"#.to_owned(),
            "uplink.rate: is 0, allowed are 1 to 1000000000",
        ),
        (
            r#","uplink":{"rate":5}"#.to_owned(),
            "uplink.interface: is missing",
        ),
        (
            r#","disk_rate":0,"disk_iops":0"#.to_owned(),
            "disk_iops: is 0, allowed are 1 to",
        ),
        (
            r#","disks":[{"path":"/x","iops":0}]"#.to_owned(),
            "disks[0].iops: is 0, allowed are 1 to",
        ),
    ] {
        let error = spec(&fields).unwrap_err();
        assert!(error.contains(told), "{fields}: {error}");
    }
}

#[test]
fn another_allowance_has_the_usual_threshold() {
    let limits = read(r#","net_exempt_max_kbyte":100,"net_exempt_thresh_kbyte":50"#).unwrap();
    assert_eq!(limits.exempt().threshold_bytes(), Some(50 << 10));
    let change = |allowance| NetChange {
        net_exempt_max_kbyte: Some(allowance),
        ..NetChange::default()
    };
    let less = change(Most::Number(40)).apply(&limits).unwrap();
    assert_eq!(less.exempt().threshold_bytes(), Some(36 << 10));
    let none = change(Most::None).apply(&limits).unwrap();
    assert_eq!(none.exempt().threshold_bytes(), None);
}

#[test]
fn limits_of_disks_are_read_of_all_and_of_one() {
    let spec = spec(
        r#","disk_rate":100,"disk_iops":7,
        "disks":[{"path":"/x","rate_kib":50,"iops":"none"},{"path":"/y"}]"#,
    )
    .unwrap();
    assert_eq!(spec.disk_limits().bytes_per_second(), Some(100 << 10));
    assert_eq!(spec.disk_limits().requests_per_second(), Some(7));
    assert_eq!(spec.disks()[0].limits().bytes_per_second(), Some(50 << 10));
    assert_eq!(*spec.disks()[1].limits(), DiskLimits::default());
    assert_eq!(SliverSpec::parse(spec.to_json().as_bytes()).unwrap(), spec);
}

fn most() -> impl Strategy<Value = Most> {
    prop_oneof![Just(Most::None), (1u64..=1000).prop_map(Most::Number)]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        uplink: bool, min in 0u64..=2500, share in 1u64..=10_000, exempt: bool,
        rate in most(), allowance in most(), received in most(),
    ) {
        let change = NetChange {
            net_min_rate: Some(min),
            net_exempt_max_rate: Some(rate),
            net_share: Some(share),
            net_max_kbyte: Some(allowance),
            net_rx_max_rate: Some(received),
            net_exempt: exempt.then(|| vec!["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()]),
            ..NetChange::default()
        };
        let json = serde_json::to_string(&change).unwrap();
        let fields = format!(",{}", &json[1..json.len() - 1]);
        let spec = spec(&format!("{}{fields}", if uplink { UPLINK } else { "" })).unwrap();
        prop_assert_eq!(&SliverSpec::parse(spec.to_json().as_bytes()).unwrap(), &spec);
        let limits = spec.net_limits().clone();
        let json = serde_json::to_string(&limits).unwrap();
        prop_assert_eq!(&serde_json::from_str::<NetLimits>(&json).unwrap(), &limits);
        let whole = NetChange::from(limits.clone());
        prop_assert_eq!(whole.apply(&NetLimits::on_uplink()).unwrap(), limits);
    }
}
