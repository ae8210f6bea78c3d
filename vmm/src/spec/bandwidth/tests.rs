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
            "net_min_rate: is 20, more than net_max_rate, which is 10",
        ),
        (
            r#","net_thresh_kbyte":20"#,
            "net_thresh_kbyte: is 20, more than net_max_kbyte, which is none",
        ),
        (
            r#","net_exempt":["10.0.0.1/8"]"#,
            "net_exempt[0]: has bits behind the prefix: 10.0.0.0/8 is meant",
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
