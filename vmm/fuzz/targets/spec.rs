//! A spec of any bytes, or a sound one with fields of any values: all that is wrong with it is told
//! within bounds, and what is right with it can be acted on.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use slice_abi::layout::MAX_VCPUS;
use vmm::nanos::Nanos;
use vmm::net::gate::Gate;
use vmm::net::uplink::Membership;
use vmm::seed;
use vmm::spec::{Bounds, Limits, LimitsChange, MAX_MEMORY_MIB, SliverSpec};
use vmm_fuzz::{Unstructured, shown_in_one_line};

/// Objects in a spec, and the fields that mean something there.
const FIELDS: [(&str, &[&str]); 11] = [
    (
        "",
        &[
            "version",
            "name",
            "slice",
            "owner",
            "contact",
            "image",
            "memory_mib",
            "vcpus",
            "args",
            "time_limit_ms",
            "start_paused",
            "console",
            "nets",
            "public",
            "disks",
            "vsock",
            "balloon_mib",
            "kernel",
            "seed",
            "uplink",
            "guard",
        ],
    ),
    (
        "",
        &["cpu_cap", "cpu_pct", "cpu_share", "cpu_burst", "cpu_period"],
    ),
    (
        "",
        &[
            "net_min_rate",
            "net_max_rate",
            "net_share",
            "net_burst",
            "net_exempt",
            "net_max_kbyte",
            "net_thresh_kbyte",
            "net_exempt_min_rate",
            "net_exempt_max_rate",
            "net_exempt_max_kbyte",
            "net_exempt_thresh_kbyte",
            "net_rx_max_rate",
            "net_rx_burst",
            "net_used_today",
            "disk_rate",
            "disk_iops",
        ],
    ),
    (
        "/nets/0",
        &[
            "tap", "mac", "mtu", "ipv4", "gateway4", "ipv6", "gateway6", "dns", "dhcp", "offloads",
        ],
    ),
    ("/disks/0", &["path", "read_only", "serial", "direct"]),
    (
        "/kernel",
        &["protocol", "append", "initrd", "acpi", "console"],
    ),
    ("/seed", &["hostname", "ssh_keys", "user_data", "network"]),
    ("/public", &["ports", "address"]),
    ("/vsock", &["dir", "cid"]),
    (
        "/guard",
        &[
            "mode",
            "flows_per_second",
            "flows_burst",
            "destinations_per_hour",
            "icmp_per_second",
            "bogons",
            "broadcast",
            "strict_audit",
            "reachable",
            "multicast",
            "allow",
            "deny",
            "do_not_contact",
            "opt_in",
            "node_prefixes",
            "peers",
            "blocked",
        ],
    ),
    ("/uplink", &["interface", "rate"]),
];

/// Values that some field means something by.
const TEXTS: [&str; 24] = [
    "",
    " ",
    "a",
    "a_b",
    "..",
    "/a/../b",
    "10.0.0.2/24",
    "10.0.0.1",
    "0.0.0.0/0",
    "fd00::2/64",
    "fd00::1",
    "::/0",
    "02:00:00:00:00:07",
    "ff:ff:ff:ff:ff:ff",
    "20000-20999",
    "65535-1",
    "none",
    "auto",
    "linux",
    "strict",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== a",
    "eth0",
    "\u{1b}[2J",
    "off",
];

/// The most that is told of what is wrong with one document, about.
const MOST_TOLD: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    // As people write it, it begins with a brace or a blank.
    if data.first().is_some_and(|byte| b"{[ \n".contains(byte)) {
        check(data);
    } else {
        let _ = build(&mut Unstructured::new(data));
    }
});

fn build(input: &mut Unstructured) -> Result<()> {
    let mut spec = json!({
        "version": 1, "name": "fuzz", "slice": "test_fuzz", "owner": "o", "contact": "c",
        "image": "/i",
    });
    let parts = input.arbitrary::<u8>()?;
    for (bit, (part, usual)) in [
        ("nets", json!([{}])),
        ("disks", json!([{ "path": "/d" }])),
        ("kernel", json!({})),
        ("seed", json!({})),
        ("public", json!({ "ports": "20000-20999" })),
        ("vsock", json!({ "dir": "/v" })),
        ("guard", json!({})),
        ("uplink", json!({ "interface": "eth0", "rate": 10_000 })),
    ]
    .into_iter()
    .enumerate()
    {
        if parts & 1 << bit != 0 {
            spec[part] = usual;
        }
    }
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let (whose, fields) = input.choose(&FIELDS)?;
        let field = *input.choose(fields)?;
        let value = value(input, 0)?;
        if let Some(Value::Object(object)) = spec.pointer_mut(whose) {
            object.insert(field.to_owned(), value);
        }
    }
    check(spec.to_string().as_bytes());
    Ok(())
}

fn value(input: &mut Unstructured, depth: usize) -> Result<Value> {
    Ok(match input.arbitrary::<u8>()? % 16 {
        0..=2 => json!(input.arbitrary::<u8>()?),
        3 => json!(u64::from(input.arbitrary::<u16>()?)),
        4 => json!(1u64 << (input.arbitrary::<u8>()? % 64)),
        5 => json!(input.arbitrary::<i64>()?),
        6 => json!(f64::from(input.arbitrary::<f32>()?)),
        7 => json!(input.arbitrary::<bool>()?),
        8..=10 => json!(input.choose(&TEXTS)?),
        11 => json!(input.arbitrary::<&str>()?),
        12 => json!("a".repeat(usize::from(input.arbitrary::<u16>()?))),
        13 if depth < 2 => {
            let count = input.arbitrary::<u8>()? % 5;
            (0..count)
                .map(|_| value(input, depth + 1))
                .collect::<Result<_>>()?
        }
        14 if depth < 2 => {
            let (_, fields) = input.choose(&FIELDS)?;
            let field = *input.choose(fields)?;
            json!({ field: value(input, depth + 1)? })
        }
        _ => Value::Null,
    })
}

fn check(text: &[u8]) {
    let spec = match SliverSpec::parse(text) {
        Ok(spec) => spec,
        Err(error) => {
            assert!(!error.mistakes().is_empty());
            let told = error.to_string();
            assert!(told.len() < MOST_TOLD, "{} bytes", told.len());
            assert!(shown_in_one_line(&told), "{told:?}");
            return;
        }
    };
    assert_eq!(
        SliverSpec::parse(spec.to_json().as_bytes()),
        Ok(spec.clone())
    );
    assert!((1..=MAX_VCPUS).contains(&spec.vcpus()));
    assert!((1..=MAX_MEMORY_MIB).contains(&(spec.memory_bytes() >> 20)));
    assert!(spec.balloon_mib() < spec.memory_bytes() >> 20);
    for text in [spec.name(), spec.slice(), spec.owner(), spec.contact()] {
        assert!(!text.is_empty() && shown_in_one_line(text), "{text:?}");
    }
    act(&spec);
}

/// What is done by the spec before the guest runs, and needs nothing of the host.
fn act(spec: &SliverSpec) {
    if let Some(uplink) = spec.uplink() {
        let membership = Membership::of(uplink, spec.slice(), spec.net_limits());
        assert!(membership.claim.max <= membership.rate);
    }
    if let Some(seed) = spec.seed() {
        let files = seed::files(spec, seed);
        seed::image(&files).expect("it has room for what a spec may hold");
    }
    let gate = Gate::new(spec, 1, Nanos(1), Nanos(2));
    gate.status();
    let limits = Limits {
        cpu: *spec.cpu(),
        net: Some(spec.net_limits().clone()),
        disk: Some(*spec.disk_limits()),
    };
    let text = serde_json::to_vec(&limits).expect("limits are written");
    assert_eq!(
        serde_json::from_slice::<Limits>(&text).expect("and read"),
        limits
    );
    let bounds = Bounds {
        vcpus: spec.vcpus(),
        processors: None,
        uplink: spec.uplink(),
    };
    assert_eq!(LimitsChange::default().apply(&limits, &bounds), Ok(limits));
}
