//! What the flags of devices mean, and what is refused.

use clap::Parser;
use proptest::prelude::*;
use vmm::spec::TapName;

use super::*;
use crate::cli::{Cli, Command};

fn args(line: &[&str]) -> RunArgs {
    match Cli::parse_from(["slicectl", "run", "x"].iter().chain(line)).command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

/// The devices of a command line, and the spec with them.
fn devices(line: &[&str]) -> Result<(Devices, SliverSpec), Vec<String>> {
    let mut problems = Vec::new();
    let devices = Devices::read(&args(line), Kind::Native, false, &mut problems);
    let mut document = json!({
        "version": 1, "name": "x-1", "slice": "local_x", "owner": "a", "contact": "a", "image": "x",
    });
    devices.describe(&mut document);
    let mut told: Vec<String> = problems.iter().map(Problem::to_string).collect();
    match SliverSpec::parse(document.to_string().as_bytes()) {
        Ok(spec) if told.is_empty() => return Ok((devices, spec)),
        Ok(_) => {}
        Err(error) => told.extend(
            error
                .mistakes()
                .iter()
                .map(|m| format!("{}: {}", devices.flag_of(&m.field), m.problem)),
        ),
    }
    Err(told)
}

fn refused(line: &[&str]) -> Vec<String> {
    devices(line).expect_err("must be refused")
}

#[test]
fn without_flags_there_is_a_console_that_only_speaks() {
    let (devices, spec) = devices(&[]).unwrap();
    assert_eq!(devices.console, Console::Stdout);
    assert!(spec.nets().is_empty() && spec.disks().is_empty() && spec.vsock().is_none());
    assert!(!spec.console().input());
}

#[test]
fn publishing_alone_gives_a_card_with_addresses_and_this_host_as_its_gateway() {
    let (devices, spec) = devices(&["-p", "8080:80"]).unwrap();
    let net = &spec.nets()[0];
    assert_eq!(
        net.ipv4().map(|(a, p)| (a.to_string(), p)),
        Some(("10.0.2.15".to_owned(), 24))
    );
    let cards = devices.own_cards(&spec);
    assert_eq!(cards.len(), 1);
    let gateway: IpAddr = "10.0.2.2".parse().unwrap();
    assert_eq!(cards[0].host[0], (gateway, 24));
    assert_eq!(net.gateway4().map(IpAddr::from), Some(gateway));
    assert_eq!(devices.target(&spec), Some("10.0.2.15".parse().unwrap()));
}

#[test]
fn two_cards_of_its_own_are_in_two_networks() {
    let (devices, spec) = devices(&["--net", "tap", "--net", "tap"]).unwrap();
    assert_ne!(spec.nets()[0].ipv4(), spec.nets()[1].ipv4());
    assert_eq!(devices.own_cards(&spec)[1].index, 1);
}

#[test]
fn all_words_of_a_card_reach_the_spec() {
    let (devices, spec) = devices(&[
        "--net",
        "tap=tap3,addr=192.0.2.7/24,addr=2001:db8::7/64,gw=192.0.2.1,gw=2001:db8::1,\
         mac=02:00:00:00:00:01,mtu=9000,dns=192.0.2.1,dns=2001:db8::1,dhcp,offloads=off",
    ])
    .unwrap();
    let net = &spec.nets()[0];
    assert_eq!(net.tap().map(TapName::as_str), Some("tap3"));
    assert_eq!(net.mtu(), 9000);
    assert_eq!(net.dns().len(), 2);
    assert!(net.dhcp() && !net.offloads());
    assert_eq!(
        net.gateway6().map(|gw| gw.to_string()).as_deref(),
        Some("2001:db8::1")
    );
    assert!(devices.own_cards(&spec).is_empty());
    assert_eq!(devices.target(&spec), Some("192.0.2.7".parse().unwrap()));
}

#[test]
fn the_host_takes_the_first_free_address_of_a_network_without_gateway() {
    for (address, gateway) in [
        ("10.0.0.2/24", "10.0.0.1"),
        ("10.0.0.1/24", "10.0.0.2"),
        ("10.0.0.4/31", "10.0.0.5"),
        ("10.0.0.5/31", "10.0.0.4"),
        ("fd00::5/64", "fd00::1"),
        ("fd00::1/64", "fd00::2"),
    ] {
        let (devices, spec) = devices(&["--net", &format!("tap,addr={address}")]).unwrap();
        let card = &devices.own_cards(&spec)[0];
        assert_eq!(card.host[0].0.to_string(), gateway, "{address}");
        assert_eq!(card.host.len(), 1);
    }
}

#[test]
fn a_link_local_gateway_is_the_host_beside_an_address_of_the_network() {
    let (devices, spec) = devices(&["--net", "tap,addr=fd00::5/64,gw=fe80::1"]).unwrap();
    let host = devices.own_cards(&spec)[0].host.clone();
    let host: Vec<String> = host.iter().map(|(a, p)| format!("{a}/{p}")).collect();
    assert_eq!(host, ["fe80::1/64", "fd00::1/64"]);
}

#[test]
fn every_mistake_of_every_flag_is_told_with_its_flag() {
    let told = refused(&[
        "--net",
        "addr=10.0.0.0/24,colour=red,offloads=maybe,dhcp=yes,mtu=big",
        "--net",
        "tap,addr=10.0.0.2/24,gw=10.0.1.1,mac=01:00:00:00:00:00",
        "--net",
        "tap,dhcp",
        "--net",
        "tap,addr=10.0.0.2/32",
        "--net",
        "tap=a,tap=b,addr=10.0.0.2/8,addr=10.0.0.3/8",
        "--publish",
        "80",
        "--publish",
        "8080:80",
        "--publish",
        "127.0.0.1:8080:81",
        "--publish",
        "1:0",
        "--publish",
        "1:2/sctp",
        "--publish",
        "::1:1:2",
        "--disk",
        "/x,rw",
        "--disk",
        ",ro",
        "--disk",
        "/y,serial=",
        "--disk",
        "/z,ro,ro",
        "--balloon",
        "1",
    ]);
    let wanted = [
        "--net addr=10.0.0.0/24,colour=red,offloads=maybe,dhcp=yes,mtu=big: \"colour\" is none of",
        "--net addr=10.0.0.0/24,colour=red,offloads=maybe,dhcp=yes,mtu=big: offloads=maybe is",
        "--net addr=10.0.0.0/24,colour=red,offloads=maybe,dhcp=yes,mtu=big: dhcp takes no value",
        "--net addr=10.0.0.0/24,colour=red,offloads=maybe,dhcp=yes,mtu=big: mtu=big is not a",
        "--net addr=10.0.0.0/24,colour=red,offloads=maybe,dhcp=yes,mtu=big: begins with tap",
        "--net addr=10.0.0.0/24,colour=red,offloads=maybe,dhcp=yes,mtu=big: addr: 10.0.0.0/24",
        "--net tap,addr=10.0.0.2/24,gw=10.0.1.1,mac=01:00:00:00:00:00: gw: 10.0.1.1 is outside",
        "--net tap,addr=10.0.0.2/24,gw=10.0.1.1,mac=01:00:00:00:00:00: mac: ",
        "--net tap,dhcp: dhcp needs a tap with a server",
        "--net tap,addr=10.0.0.2/32: addr=10.0.0.2: its prefix has no other address",
        "--net tap=a,tap=b,addr=10.0.0.2/8,addr=10.0.0.3/8: tap is given twice",
        "--net tap=a,tap=b,addr=10.0.0.2/8,addr=10.0.0.3/8: addr is given twice for IPv4",
        "--publish 80: is not [IP:]HOST:GUEST",
        "--publish 127.0.0.1:8080:81: tcp port 8080 is published by 8080:80/tcp, too",
        "--publish 1:0: the sliver's port cannot be 0",
        "--publish 1:2/sctp: \"sctp\" is neither tcp nor udp",
        "--publish ::1:1:2: \"::1\" is no address",
        "--disk /x,rw: \"rw\" is none of ro",
        "--disk ,ro: begins with the path",
        "--disk /y,serial=: serial needs a value, such as serial=kv0",
        "--disk /z,ro,ro: ro is given twice",
        "--balloon: \"1\" has no unit",
    ];
    for wanted in wanted {
        assert!(
            told.iter().any(|told| told.starts_with(wanted)),
            "{wanted} not in {told:#?}"
        );
    }
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
}

#[test]
fn ports_are_read_with_address_and_protocol() {
    let (devices, _) = devices(&[
        "-p",
        "0:7",
        "-p",
        "127.0.0.1:53:53/udp",
        "-p",
        "[::1]:80:8080/tcp",
    ])
    .unwrap();
    let told: Vec<String> = devices.publishes.iter().map(Publish::to_string).collect();
    assert_eq!(
        told,
        ["0:7/tcp", "127.0.0.1:53:53/udp", "[::1]:80:8080/tcp"]
    );
}

#[test]
fn a_comma_in_a_path_is_written_twice() {
    let (_, spec) = devices(&["--disk", "/a,,b,ro,serial=s1"]).unwrap();
    let disk = &spec.disks()[0];
    assert_eq!(disk.path(), Path::new("/a,b"));
    assert_eq!(disk.serial(), "s1");
    assert!(disk.read_only() && !disk.direct());
}

#[test]
fn disks_that_are_none_are_refused_with_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, len: u64| {
        let path = dir.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(len).unwrap();
        path.display().to_string()
    };
    let objection = |path: &str| {
        let (devices, spec) = devices(&["--disk", path]).unwrap();
        let told = devices.objections(&spec);
        assert!(told.len() <= 1, "{told:?}");
        told.first().map(Problem::to_string)
    };
    assert_eq!(objection(&file("good", 1024)), None);
    let (empty, odd) = (file("empty", 0), file("odd", 513));
    let missing = dir.path().join("missing").display().to_string();
    let directory = dir.path().display().to_string();
    for (path, why) in [
        (&empty, "is empty; truncate -s 1G"),
        (&odd, "has 513 bytes, which is no multiple of 512"),
        (&missing, "cannot be read: No such file"),
        (&directory, "is neither a file nor a block device"),
    ] {
        let told = objection(path).expect("refused");
        assert!(told.starts_with(&format!("--disk {path}: {why}")), "{told}");
    }
}

#[test]
fn vsock_directories_and_console_files_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("a/b").display().to_string();
    let here = dir.path().display().to_string();
    let objections = |line: &[&str]| {
        let (devices, spec) = devices(line).unwrap();
        let told = devices.objections(&spec);
        told.iter()
            .map(Problem::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(objections(&["--vsock-dir", &here]), "");
    assert!(objections(&["--vsock-dir", &missing]).contains("cannot be read: No such file"));
    assert!(objections(&["--vsock-dir", "/dev/null"]).contains("is not a directory"));
    assert!(objections(&["--console", &here]).contains("is a directory"));
    assert!(objections(&["--console", &missing]).contains("its directory does not exist"));
    let log = dir.path().join("log").display().to_string();
    assert_eq!(objections(&["--console", &log]), "");
    assert!(!Path::new(&log).exists());
}

#[test]
fn a_tap_that_is_not_there_is_refused_by_name() {
    let (devices, spec) = devices(&["--net", "tap=no-such-tap"]).unwrap();
    let told = devices.objections(&spec)[0].to_string();
    assert!(
        told.starts_with("--net tap=no-such-tap: there is no such interface; "),
        "{told}"
    );
}

#[test]
fn ports_need_an_address_to_lead_to() {
    let (devices, spec) = devices(&["--net", "tap=lo,dhcp", "-p", "0:80"]).unwrap();
    let told: Vec<String> = devices
        .objections(&spec)
        .iter()
        .map(Problem::to_string)
        .collect();
    assert!(
        told.iter()
            .any(|told| told.starts_with("--publish: no card")),
        "{told:?}"
    );
    // And the loopback interface is no tap.
    assert!(
        told.iter().any(|told| told.starts_with("--net tap=lo: ")),
        "{told:?}"
    );
}

proptest! {
    #[test]
    fn any_text_is_answered_without_panic(net in ".{0,40}", disk in ".{0,40}", port in ".{0,20}") {
        let line = ["--net".to_owned(), format!("tap,{net}"), format!("--disk={disk}"),
            format!("--publish={port}")];
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let _ = devices(&line);
    }

    #[test]
    fn a_chosen_gateway_is_always_a_neighbour(
        first in 1u8..=223,
        rest in any::<[u8; 3]>(),
        prefix in 8u8..=32,
    ) {
        let [b, c, d] = rest;
        if let Err(told) = devices(&["--net", &format!("tap,addr={first}.{b}.{c}.{d}/{prefix}")]) {
            // It is the address that is wrong, and the gateway for want of one.
            let of_gateway = |told: &String| told.contains(": gw: ") && !told.contains("needs an");
            prop_assert!(!told.iter().any(of_gateway), "{told:?}");
        }
    }
}

#[test]
fn a_card_with_a_way_out_has_ipv4_and_the_ports_that_are_asked_for() {
    let (devices, spec) = devices(&["--net", "nat,ports=20000-20099", "-p", "8080:80"]).unwrap();
    let net = &spec.nets()[0];
    assert!(net.ipv4().is_some() && net.ipv6().is_none());
    assert!(devices.own_cards(&spec)[0].leads_out);
    let wanted = devices.nat("x-1").unwrap();
    assert_eq!(
        wanted.ports.map(|ports| ports.to_string()).as_deref(),
        Some("20000-20099")
    );
    assert_eq!(wanted.avoid, [8080]);
    assert_eq!(
        devices.target(&spec).map(|address| address.to_string()),
        Some("10.0.2.15".to_owned())
    );
}

#[test]
fn who_names_servers_is_not_given_the_host_s() {
    let (devices, spec) = devices(&["--net", "nat,dns=192.0.2.53"]).unwrap();
    assert_eq!(spec.nets()[0].dns().len(), 1);
    assert_eq!(devices.nat("x-1").unwrap().ports, None);
    let (devices, _) = self::devices(&["--net", "tap"]).unwrap();
    assert!(devices.nat("x-1").is_none());
}

#[test]
fn ways_out_that_cannot_be_are_refused() {
    for (cards, wanted) in [
        (vec!["tap,nat"], "tap and nat are two kinds of cards"),
        (vec!["nat,tap=t0"], "tap and nat are two kinds of cards"),
        (vec!["nat,nat"], "nat is given twice"),
        (vec!["nat=t0"], "nat takes no value"),
        (vec!["nat,dhcp"], "dhcp needs a tap with a server"),
        (vec!["nat,ports=80-90"], "ports: 80-90 begins below 1024"),
        (vec!["nat,ports=x"], "such as 20000-20999"),
        (
            vec!["tap,ports=20000-20999"],
            "ports is for nat: other cards keep their ports",
        ),
        (
            vec!["nat,ports=20000-20999", "nat,ports=21000-21999"],
            "one range of ports for all of its cards",
        ),
        (vec!["nat", "tap=t0"], "either cards with nat or cards on"),
    ] {
        let line: Vec<&str> = cards.iter().flat_map(|card| ["--net", card]).collect();
        let told = refused(&line);
        assert!(
            told.iter().any(|told| told.contains(wanted)),
            "{line:?}: {told:?}"
        );
    }
}
