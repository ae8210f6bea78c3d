//! The console, network cards, disks, vsock and balloon of a spec.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;

fn net(value: Value) -> Value {
    with("nets", json!([value]))
}

fn only_problem(value: &Value) -> String {
    let problems = problems(value);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

#[test]
fn a_spec_without_devices_has_a_bounded_console_and_nothing_else() {
    let spec = parse(&minimal()).unwrap();
    assert!(!spec.console().input());
    assert_eq!(spec.console().rate_kib_s(), 1024);
    assert!(spec.nets().is_empty() && spec.disks().is_empty() && spec.vsock().is_none());
    assert_eq!(spec.balloon_mib(), 0);
}

#[test]
fn what_is_written_about_devices_is_what_is_told() {
    let mut value = minimal();
    value["console"] = json!({ "input": true, "rate_kib_s": 7 });
    value["nets"] = json!([{
        "tap": "tap3", "mac": "02:00:00:00:00:01", "mtu": 9000, "ipv4": "10.0.0.2/24",
        "gateway4": "10.0.0.1", "ipv6": "fd00::2/64", "gateway6": "fe80::1",
        "dns": ["10.0.0.1", "fd00::1"], "dhcp": true, "offloads": false,
    }]);
    value["disks"] = json!([{
        "path": "/x/disk.img", "read_only": true, "serial": "kv0", "direct": true,
    }]);
    value["vsock"] = json!({ "dir": "/run/x", "cid": 4711 });
    value["balloon_mib"] = json!(63);
    let spec = parse(&value).unwrap();

    assert!(spec.console().input());
    assert_eq!(spec.console().rate_kib_s(), 7);
    let [net] = spec.nets() else {
        panic!("{:?}", spec.nets())
    };
    assert_eq!(net.tap().map(TapName::as_str), Some("tap3"));
    assert_eq!(net.mac().bytes(), [2, 0, 0, 0, 0, 1]);
    assert_eq!(net.mtu(), 9000);
    assert_eq!(net.ipv4(), Some((Ipv4Addr::new(10, 0, 0, 2), 24)));
    assert_eq!(net.gateway4(), Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(net.ipv6(), Some(("fd00::2".parse().unwrap(), 64)));
    assert_eq!(net.gateway6(), Some("fe80::1".parse().unwrap()));
    let servers: Vec<String> = net.dns().iter().map(IpAddr::to_string).collect();
    assert_eq!(servers, ["10.0.0.1", "fd00::1"]);
    assert!(net.dhcp() && !net.offloads());
    let [disk] = spec.disks() else {
        panic!("{:?}", spec.disks())
    };
    assert_eq!(disk.path(), Path::new("/x/disk.img"));
    assert_eq!(disk.serial(), "kv0");
    assert!(disk.read_only() && disk.direct());
    let vsock = spec.vsock().unwrap();
    assert_eq!((vsock.dir(), vsock.cid()), (Path::new("/run/x"), 4711));
    assert_eq!(spec.balloon_mib(), 63);
}

#[test]
fn devices_of_which_little_is_said_get_defaults() {
    let mut value = minimal();
    value["nets"] = json!([{}, {}]);
    value["disks"] = json!([{ "path": "a" }, { "path": "b" }]);
    value["vsock"] = json!({ "dir": "v" });
    let spec = parse(&value).unwrap();
    let [first, second] = spec.nets() else {
        panic!("{:?}", spec.nets())
    };
    assert_eq!(
        (first.tap(), first.ipv4(), first.ipv6()),
        (None, None, None)
    );
    assert_eq!(first.mtu(), DEFAULT_MTU);
    assert!(first.offloads() && !first.dhcp());
    assert_ne!(first.mac(), second.mac());
    assert_eq!(first.mac(), parse(&value).unwrap().nets()[0].mac());
    let serials: Vec<&str> = spec.disks().iter().map(DiskSpec::serial).collect();
    assert_eq!(serials, ["disk0", "disk1"]);
    assert!(!spec.disks()[0].read_only() && !spec.disks()[0].direct());
    assert_eq!(spec.vsock().map(VsockSpec::cid), Some(3));
}

#[test]
fn all_mistakes_of_devices_are_reported_at_once_each_with_its_path() {
    let mut value = minimal();
    value["console"] = json!({ "input": 1, "rate_kib_s": 0, "colour": "red" });
    value["nets"] = json!([
        {
            "tap": "a/b", "mac": "01:00:00:00:00:01", "mtu": 100, "ipv4": "10.0.0.2",
            "ipv6": "::1/64", "dns": ["x", "10.0.0.1", "10.0.0.2"], "dhcp": 0,
            "offloads": "on", "colour": 1,
        },
        7,
    ]);
    value["disks"] = json!([{ "path": "a" }, { "path": "a", "serial": "", "direct": null }, {}]);
    value["vsock"] = json!({ "cid": 2 });
    value["balloon_mib"] = json!(64);
    let problems = problems(&value);
    let wanted = [
        "console.input: is a number",
        "console.rate_kib_s: is 0",
        "console.colour: is not a known field",
        "nets[0].tap: ",
        "nets[0].mac: 01:00:00:00:00:01 is the address of a group",
        "nets[0].ipv4: ",
        "nets[0].ipv6: ::1/64: ::1 is a loopback address",
        "nets[0].mtu: is 100",
        "nets[0].dns: has 3, 2 are allowed",
        "nets[0].dns[0]: ",
        "nets[0].dhcp: is a number",
        "nets[0].offloads: is a string",
        "nets[0].colour: is not a known field",
        "nets[1]: is a number, not an object",
        "disks[1].serial: ",
        "disks[1].path: \"a\" is the path of another disk",
        "disks[2].path: is missing",
        "vsock.dir: is missing",
        "vsock.cid: is 2",
        "balloon_mib: is 64, allowed are 0 to 63",
    ];
    for field in wanted {
        assert!(
            problems.iter().any(|p| p.starts_with(field)),
            "{field} not in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
}

#[test]
fn parts_of_the_wrong_kind_are_refused() {
    assert_eq!(
        only_problem(&with("console", json!("stdio"))),
        "console: is a string, not an object"
    );
    assert_eq!(
        only_problem(&with("nets", json!({}))),
        "nets: is an object, not a list of objects"
    );
    assert!(only_problem(&with("vsock", json!([]))).starts_with("vsock: is a list"));
    assert!(parse(&with("vsock", Value::Null)).is_ok());
}

#[test]
fn more_devices_than_there_is_room_for_are_refused() {
    let disks = |n: usize| {
        (0..n)
            .map(|i| json!({ "path": i.to_string() }))
            .collect::<Vec<_>>()
    };
    assert!(parse(&with("disks", json!(disks(MAX_DISKS)))).is_ok());
    assert_eq!(
        only_problem(&with("disks", json!(disks(MAX_DISKS + 1)))),
        "disks: has 17, 16 are allowed"
    );
    assert!(parse(&with("nets", json!(vec![json!({}); 8]))).is_ok());
    assert_eq!(
        only_problem(&with("nets", json!(vec![json!({}); 9]))),
        "nets: has 9, 8 are allowed"
    );
}

#[test]
fn addresses_that_are_not_one_host_s_are_refused() {
    for good in [
        "10.0.0.2/24",
        "192.0.2.0/31",
        "192.0.2.255/32",
        "10.0.0.255/16",
        "1.2.3.4/1",
    ] {
        assert!(parse(&net(json!({ "ipv4": good }))).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("10.0.0.0/24", "the address of its network"),
        ("10.0.0.255/24", "the broadcast address of its network"),
        ("127.0.0.2/8", "a loopback address"),
        ("224.0.0.5/4", "a multicast address"),
        ("0.0.0.5/8", "no host's address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("10.0.0.2/0", "allowed are 1 to 32"),
        ("10.0.0.2/33", "allowed are 1 to 32"),
        ("10.0.0.2/+8", "is not an address with its prefix"),
        ("10.0.0/8", "is not an address with its prefix"),
        ("fd00::1/64", "is not an address with its prefix"),
    ] {
        let told = only_problem(&net(json!({ "ipv4": bad })));
        assert!(
            told.starts_with("nets[0].ipv4: ") && told.contains(why),
            "{told}"
        );
    }
    for good in [
        "fd00::2/64",
        "2001:db8::1/127",
        "2001:db8::/127",
        "fe80::5/10",
        "::5/128",
    ] {
        assert!(parse(&net(json!({ "ipv6": good }))).is_ok(), "{good}");
    }
    for bad in [
        "fd00::/64",
        "::1/128",
        "::/0",
        "ff02::1/8",
        "::ffff:10.0.0.1/96",
        "fd00::2/129",
    ] {
        assert!(parse(&net(json!({ "ipv6": bad }))).is_err(), "{bad}");
    }
}

#[test]
fn a_gateway_is_a_neighbour_and_somebody_else() {
    let four = |gateway: &str| net(json!({ "ipv4": "10.0.0.2/24", "gateway4": gateway }));
    assert!(parse(&four("10.0.0.254")).is_ok());
    assert_eq!(
        only_problem(&four("10.0.1.1")),
        "nets[0].gateway4: 10.0.1.1 is outside the prefix of 10.0.0.2/24"
    );
    assert!(only_problem(&four("10.0.0.2")).ends_with("is the card's own address"));
    assert!(only_problem(&four("10.0.0.255")).ends_with("the broadcast address of its network"));
    assert!(only_problem(&net(json!({ "gateway4": "10.0.0.1" }))).contains("needs an IPv4"));

    let six = |gateway: &str| net(json!({ "ipv6": "fd00::2/64", "gateway6": gateway }));
    assert!(parse(&six("fd00::1")).is_ok());
    assert!(parse(&six("fe80::1")).is_ok());
    assert!(only_problem(&six("fd01::1")).contains("is outside the prefix of fd00::2/64"));
    assert!(only_problem(&six("fd00::2")).ends_with("is the card's own address"));
    assert!(only_problem(&net(json!({ "gateway6": "fd00::1" }))).contains("needs an IPv6"));
}

#[test]
fn ipv6_needs_packets_of_1280_bytes() {
    assert!(parse(&net(json!({ "mtu": 576 }))).is_ok());
    assert!(parse(&net(json!({ "mtu": 9001 }))).is_err());
    assert!(parse(&net(json!({ "mtu": 1280, "ipv6": "fd00::2/64" }))).is_ok());
    assert_eq!(
        only_problem(&net(json!({ "mtu": 1279, "ipv6": "fd00::2/64" }))),
        "nets[0].mtu: is 1279, IPv6 needs at least 1280"
    );
}

#[test]
fn cards_do_not_share_a_tap_or_an_address() {
    let tap = only_problem(&with("nets", json!([{ "tap": "t0" }, { "tap": "t0" }])));
    assert_eq!(tap, "nets[1].tap: t0 is the tap of another card, too");
    let mac = json!({ "mac": "02:00:00:00:00:01" });
    assert!(only_problem(&with("nets", json!([mac, mac]))).starts_with("nets[1].mac: "));
}

fn any_net() -> impl Strategy<Value = Value> {
    let four = prop::option::of((1u8..=223, any::<[u8; 3]>(), 1u8..=32, any::<u32>()));
    let six = prop::option::of((any::<[u16; 8]>(), 1u8..=128, any::<u128>()));
    let rest = (any::<bool>(), any::<bool>(), 1280u64..=9000, any::<bool>());
    (four, six, rest).prop_map(|(four, six, (dhcp, offloads, mtu, with_mac))| {
        let mut net = json!({ "dhcp": dhcp, "offloads": offloads, "mtu": mtu });
        if let Some((first, [b, c, d], prefix, other)) = four {
            let address = Ipv4Addr::new(first, b, c, d);
            let mask = u32::MAX << (32 - u32::from(prefix));
            let gateway = address.to_bits() & mask | other & !mask;
            net["ipv4"] = json!(format!("{address}/{prefix}"));
            net["gateway4"] = json!(Ipv4Addr::from_bits(gateway).to_string());
            net["dns"] = json!([address.to_string()]);
        }
        if let Some((parts, prefix, other)) = six {
            let address = Ipv6Addr::from(parts);
            let mask = u128::MAX << (128 - u32::from(prefix));
            let gateway = address.to_bits() & mask | other & !mask;
            net["ipv6"] = json!(format!("{address}/{prefix}"));
            net["gateway6"] = json!(Ipv6Addr::from_bits(gateway).to_string());
        }
        if with_mac {
            net["mac"] = json!("02:00:00:00:00:01");
        }
        net
    })
}

fn any_disk() -> impl Strategy<Value = Value> {
    (".{1,20}", any::<[bool; 2]>(), prop::option::of("[ -~]{1,20}")).prop_map(
        |(path, [read_only, direct], serial)| {
            json!({ "path": path, "read_only": read_only, "direct": direct, "serial": serial })
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_accepted_is_written_and_read_back_alike(
        net in prop::option::of(any_net()),
        disk in prop::option::of(any_disk()),
        vsock in prop::option::of((".{1,20}", 3u32..u32::MAX)),
        (input, rate, balloon) in (any::<bool>(), 1u64..1_000_000, 0u64..64),
    ) {
        let mut value = minimal();
        value["nets"] = json!(Vec::from_iter(net));
        value["disks"] = json!(Vec::from_iter(disk));
        value["vsock"] = json!(vsock.map(|(dir, cid)| json!({ "dir": dir, "cid": cid })));
        value["console"] = json!({ "input": input, "rate_kib_s": rate });
        value["balloon_mib"] = json!(balloon);
        // Some of the addresses made here no host can have.
        if let Ok(spec) = parse(&value) {
            prop_assert_eq!(SliverSpec::parse(spec.to_json().as_bytes()).unwrap(), spec);
        }
    }

    #[test]
    fn a_gateway_that_is_accepted_is_in_the_prefix_and_not_the_card(net in any_net()) {
        if let Ok(spec) = parse(&super::devices::net(net)) {
            let net = &spec.nets()[0];
            if let (Some((address, prefix)), Some(gateway)) = (net.ipv4(), net.gateway4()) {
                prop_assert_ne!(address, gateway);
                let differing = (address.to_bits() ^ gateway.to_bits()).leading_zeros();
                prop_assert!(differing >= u32::from(prefix));
            }
        }
    }
}

#[test]
fn the_samples_are_valid() {
    for sample in [
        include_bytes!("../../../../resources/specs/hello.json").as_slice(),
        include_bytes!("../../../../resources/specs/network.json").as_slice(),
        include_bytes!("../../../../resources/specs/linux.json").as_slice(),
    ] {
        SliverSpec::parse(sample).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_ports_that_the_outside_sees_are_told_as_they_are_written() {
    let mut value = net(json!({}));
    value["public"] = json!({ "ports": "20000-20999", "address": "192.0.2.1" });
    let spec = parse(&value).unwrap();
    let public = spec.public().unwrap();
    assert_eq!(public.ports().to_string(), "20000-20999");
    assert_eq!(public.address(), Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(SliverSpec::parse(spec.to_json().as_bytes()).unwrap(), spec);

    value["public"] = json!({ "ports": "20000-20999" });
    assert_eq!(parse(&value).unwrap().public().unwrap().address(), None);
}

#[test]
fn ports_outside_that_cannot_be_are_refused_with_what_is_wrong() {
    let public = |public: Value| {
        let mut value = net(json!({}));
        value["public"] = public;
        only_problem(&value)
    };
    for (ports, wanted) in [
        ("20000", "such as 20000-20999"),
        ("20999-20000", "begins after its end"),
        ("80-2000", "begins below 1024"),
        ("20000-20001", "16 ports are the least"),
    ] {
        let told = public(json!({ "ports": ports }));
        assert!(told.starts_with("public.ports: "), "{told}");
        assert!(told.contains(wanted), "{told}");
    }
    assert!(public(json!({})).starts_with("public.ports: is missing"));
    let told = public(json!({ "ports": "20000-20999", "address": "::1" }));
    assert!(
        told.starts_with("public.address: \"::1\" is not an IPv4"),
        "{told}"
    );
    let told = only_problem(&with("public", json!({ "ports": "20000-20999" })));
    assert!(told.contains("without a network card"), "{told}");
}
