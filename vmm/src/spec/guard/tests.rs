use super::*;
use crate::spec::SliverSpec;

fn read(guard: &str) -> Result<SliverSpec, String> {
    let spec = format!(
        r#"{{"version":1,"name":"a","slice":"a_b","owner":"o","contact":"c","image":"/i"{guard}}}"#
    );
    SliverSpec::parse(spec.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn without_fields_the_defaults_are_enforced() {
    let usual = read("").unwrap();
    assert_eq!(usual.guard(), &GuardSpec::default());
    assert_eq!(usual.guard().mode(), GuardMode::Enforce);
    assert_eq!(read(r#","guard":{}"#).unwrap(), usual);
}

#[test]
fn fields_are_read_and_written_back() {
    let spec = read(
        r#","guard":{"mode":"report","flows_per_second":7,"destinations_per_hour":50,
        "icmp_per_second":3,"bogons":false,"broadcast":true,"strict_audit":true,
        "reachable":["10.0.0.0/8"],"multicast":["ff05::/16"],"allow":["8.8.8.8"],
        "deny":["9.9.9.0/24"],"do_not_contact":["::1"],"opt_in":["1.1.1.1"],
        "node_prefixes":["10.7.0.0/16"],"peers":["10.7.0.9"],"blocked":["192.0.2.0/24"]}"#,
    )
    .unwrap();
    assert_eq!(spec.guard().mode(), GuardMode::Report);
    assert_eq!(spec.guard().flows_burst(), 70);
    let again = SliverSpec::parse(spec.to_json().as_bytes()).unwrap();
    assert_eq!(again, spec);
}

#[test]
fn what_is_not_allowed_is_told_with_what_is() {
    for (fields, told) in [
        (
            r#""mode":"maybe""#,
            "guard.mode: is \"maybe\", allowed are enforce, report, off",
        ),
        (
            r#""flows_per_second":0"#,
            "guard.flows_per_second: is 0, allowed are 1 to 1000000",
        ),
        (
            r#""destinations_per_hour":1000000"#,
            "guard.destinations_per_hour: is 1000000, allowed are 1 to 100000",
        ),
        (
            r#""deny":["10.0.0.0/8","10.0.0.1/8"]"#,
            "guard.deny[1]: \"10.0.0.1/8\" has bits behind the prefix: 10.0.0.0/8 is meant",
        ),
        (r#""peers":"10.0.0.1""#, "guard.peers: is a string"),
        (r#""colour":1"#, "guard.colour: is not a known field"),
    ] {
        let error = read(&format!(r#","guard":{{{fields}}}"#)).unwrap_err();
        assert!(error.contains(told), "{fields}: {error}");
    }
}
