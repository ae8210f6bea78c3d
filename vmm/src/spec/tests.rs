mod devices;
mod seed;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn minimal() -> Value {
    json!({
        "version": 1, "name": "hello-1", "slice": "local_demo", "owner": "Ada",
        "contact": "ada@example.org", "image": "hello",
    })
}

fn parse(value: &Value) -> Result<SliverSpec, SpecError> {
    SliverSpec::parse(value.to_string().as_bytes())
}

fn with(field: &str, value: Value) -> Value {
    let mut spec = minimal();
    spec[field] = value;
    spec
}

fn problems(value: &Value) -> Vec<String> {
    let error = parse(value).expect_err("the spec is wrong");
    error
        .mistakes()
        .iter()
        .map(|m| format!("{}: {}", m.field, m.problem))
        .collect()
}

#[test]
fn a_minimal_spec_gets_the_defaults() {
    let spec = parse(&minimal()).unwrap();
    assert_eq!(spec.memory_bytes(), 64 << 20);
    assert_eq!(spec.vcpus(), 1);
    assert!(spec.args().is_empty());
    assert_eq!(spec.time_limit(), None);
    assert!(!spec.start_paused());
}

#[test]
fn what_is_written_is_read_back() {
    let mut value = minimal();
    value["args"] = json!(["a b", ""]);
    value["vcpus"] = json!(3);
    value["time_limit_ms"] = json!(1500);
    let spec = parse(&value).unwrap();
    assert_eq!(SliverSpec::parse(spec.to_json().as_bytes()).unwrap(), spec);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let spec = json!({
        "version": 2, "name": "../etc", "slice": "Nosite", "owner": " ", "contact": 7,
        "memory_mib": 0, "vcpus": -1, "args": ["ok", 3], "start_paused": "yes", "colour": "red",
    });
    let problems = problems(&spec);
    for field in [
        "version: is 2",
        "name: ",
        "slice: ",
        "owner: is empty",
        "contact: is a number",
        "image: is missing",
        "memory_mib: is 0",
        "vcpus: is a number",
        "args[1]: is a number",
        "start_paused: is a string",
        "colour: is not a known field",
    ] {
        assert!(
            problems.iter().any(|p| p.starts_with(field)),
            "{field} not in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 11, "{problems:#?}");
}

#[test]
fn what_a_document_holds_is_shown_in_one_short_line() {
    let mut spec = with("name", json!("x".repeat(10_000)));
    spec["a\nb\u{1b}[2J"] = json!(1);
    spec["args"] = json!(vec![1; 1000]);
    let problems = problems(&spec);
    assert!(problems.len() <= 33, "{}", problems.len());
    assert!(
        problems
            .iter()
            .all(|p| p.len() < 700 && !p.contains(['\n', '\u{1b}']))
    );
    assert!(
        problems.last().unwrap().contains("more mistakes"),
        "{problems:?}"
    );
}

#[test]
fn what_is_not_an_object_is_refused_whole() {
    for text in ["", "{", "[]", "null", "\"x\"", "{\"version\":1}trailing"] {
        let error = SliverSpec::parse(text.as_bytes()).expect_err(text);
        assert!(!error.mistakes().is_empty());
    }
    assert!(SliverSpec::parse(&vec![b' '; MAX_SPEC_BYTES + 1]).is_err());
}

#[test]
fn memory_and_vcpus_have_bounds() {
    assert!(parse(&with("memory_mib", json!(MAX_MEMORY_MIB))).is_ok());
    assert!(parse(&with("memory_mib", json!(MAX_MEMORY_MIB + 1))).is_err());
    assert!(parse(&with("memory_mib", json!(u64::MAX))).is_err());
    assert!(parse(&with("memory_mib", json!(1.5))).is_err());
    assert!(parse(&with("vcpus", json!(MAX_VCPUS))).is_ok());
    assert!(parse(&with("vcpus", json!(MAX_VCPUS + 1))).is_err());
}

#[test]
fn arguments_that_do_not_fit_are_refused_with_their_size() {
    assert!(parse(&with("args", json!(["x".repeat(4095)]))).is_ok());
    let too_long = problems(&with("args", json!(["x".repeat(4095), ""])));
    assert_eq!(
        too_long,
        ["args: need 4097 bytes with their terminators, 4096 are available"]
    );
    assert!(parse(&with("args", json!(["a\0b"]))).is_err());
}

#[test]
fn slice_names_are_planetlab_s() {
    for good in ["princeton_codeen", "a.b_C.d_e", "0_0"] {
        assert!(parse(&with("slice", json!(good))).is_ok(), "{good}");
    }
    for bad in [
        "",
        "_x",
        "x_",
        "Up_x",
        "a-b_c",
        "noname",
        "a_b-c",
        &format!("a_{}", "x".repeat(62)),
    ] {
        assert!(parse(&with("slice", json!(bad))).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = SliverSpec::parse(&bytes);
    }

    #[test]
    fn a_name_that_parses_is_a_safe_file_name(text in ".{0,70}") {
        if let Ok(name) = SliverName::parse(&text) {
            prop_assert!(!name.as_str().contains('/') && !name.as_str().starts_with('.'));
            prop_assert!(name.as_str().len() <= 63);
        }
    }
}

#[test]
fn a_kernel_brings_its_own_defaults() {
    let spec = parse(&with("kernel", json!({}))).unwrap();
    assert_eq!(spec.memory_bytes(), DEFAULT_LEGACY_MEMORY_MIB << 20);
    assert_eq!(spec.kernel(), Some(&KernelSpec::default()));
    let all = json!({
        "initrd": "/boot/initrd.img", "append": "quiet", "protocol": "pvh", "acpi": false,
        "console": "virtio",
    });
    let spec = parse(&with("kernel", all)).unwrap();
    assert_eq!(SliverSpec::parse(spec.to_json().as_bytes()).unwrap(), spec);
    let wrong = json!({ "append": "a\nb", "protocol": "uefi", "initrd": "" });
    let problems = problems(&with("kernel", wrong));
    assert_eq!(problems.len(), 3, "{problems:?}");
}
