//! The examples that serve and measure, each as a slice and as a process, with the same client.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Output;
use std::thread;
use std::time::Duration;

use integration::http::Http;
use integration::kv::{Kv, Reply};
use integration::needs_kvm;
use integration::service;
use integration::service::{Kind, Running, Service};
use integration::sliver::{new_place, until};
use serde_json::Value;
use tempfile::TempDir;

/// Two tests of one body: on a slice, and on a process.
macro_rules! in_both {
    ($($check:ident: $slice:ident, $process:ident;)*) => {$(
        #[test]
        fn $slice() {
            needs_kvm!();
            $check(Kind::Slice);
        }

        #[test]
        fn $process() {
            $check(Kind::Process);
        }
    )*};
}

in_both! {
    check_echo: echo_as_a_slice_sends_back_what_it_gets, echo_as_a_process_sends_back_what_it_gets;
    check_web: web_as_a_slice_answers_what_it_is_asked, web_as_a_process_answers_what_it_is_asked;
    check_refusals: web_as_a_slice_refuses_nonsense, web_as_a_process_refuses_nonsense;
    check_load: web_as_a_slice_fails_none_of_many_requests,
        web_as_a_process_fails_none_of_many_requests;
    check_silence: web_as_a_slice_drops_who_is_too_slow, web_as_a_process_drops_who_is_too_slow;
    check_kv: kv_as_a_slice_keeps_what_it_is_given, kv_as_a_process_keeps_what_it_is_given;
    check_full_kv: kv_as_a_slice_tells_that_its_disk_is_full,
        kv_as_a_process_tells_that_its_disk_is_full;
    check_blast: blast_as_a_slice_measures_a_network, blast_as_a_process_measures_a_network;
    check_blast_disk: blast_as_a_slice_measures_a_disk, blast_as_a_process_measures_a_disk;
    check_traffic: traffic_as_a_slice_sends_what_its_seed_says,
        traffic_as_a_process_sends_what_its_seed_says;
    check_ping: ping_as_a_slice_measures_hosts, ping_as_a_process_measures_hosts;
    check_usage: slices_tell_wrong_arguments_from_right_ones,
        processes_tell_wrong_arguments_from_right_ones;
}

fn check_echo(kind: Kind) {
    let service = Service::new("echo").start(kind);
    let sent: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let mut from = service.connect();
    let mut to = from.try_clone().expect("a socket is copied");
    thread::scope(|scope| {
        scope.spawn(|| {
            to.write_all(&sent).expect("it takes what it is sent");
            to.shutdown(Shutdown::Write).expect("a socket ends");
        });
        let mut back = Vec::new();
        from.read_to_end(&mut back).expect("it sends");
        assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    });
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let patience = Duration::from_millis(200);
    socket
        .set_read_timeout(Some(patience))
        .expect("a socket has options");
    // A datagram may get lost.
    until("a datagram comes back", || {
        socket
            .send_to(b"datagram", service.udp())
            .expect("it leaves");
        let mut buffer = [0; 100];
        let (length, _) = socket.recv_from(&mut buffer).ok()?;
        (buffer[..length] == *b"datagram").then_some(())
    });
}

fn check_web(kind: Kind) {
    let service = Service::new("web").start(kind);
    let mut client = Http::connect(service.tcp()).expect("it listens");
    let page = client.get("/").expect("an answer");
    assert_eq!(page.status, 200);
    assert!(page.body.ends_with(b"</html>\n"));
    // The same connection goes on, also when several requests come at once.
    let two = "GET /stats HTTP/1.1\r\nHost: x\r\n\r\nHEAD /none HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send(two.as_bytes()).expect("it reads");
    let stats = client.receive(true).expect("an answer");
    assert_eq!(stats.field("content-type"), Some("application/json"));
    let told: Value = serde_json::from_slice(&stats.body).expect("it is JSON");
    assert_eq!(told["requests"], 2);
    assert_eq!(told["connections"], 1);
    assert!(
        told["sliver"].is_string() && told["slice"].is_string(),
        "{told}"
    );
    assert!(
        told["quota"].get("cpu_consumed_seconds").is_some(),
        "{told}"
    );
    assert_eq!(client.receive(false).expect("an answer").status, 404);
    client
        .send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    assert_eq!(client.receive(true).expect("an answer").status, 200);
    assert!(client.is_at_end());
}

fn check_refusals(kind: Kind) {
    let service = Service::new("web").start(kind);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nLong: {}\r\n\r\n",
        "x".repeat(9000)
    );
    for (request, status) in [
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
            405,
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
            413,
        ),
        (&long, 431),
    ] {
        let mut client = Http::connect(service.tcp()).expect("it listens");
        client.send(request.as_bytes()).expect("it reads");
        let answer = client.receive(true).expect("an answer");
        assert_eq!(answer.status, status, "{request:.60}");
        assert!(client.is_at_end(), "{request:.60}");
    }
}

/// Requests of each kind: on connections that are kept, and on one for each.
const REQUESTS: usize = 20_000;

/// Clients at once.
const CLIENTS: usize = 64;

fn check_load(kind: Kind) {
    let service = Service::new("web").start(kind);
    let to = service.tcp();
    on_all_clients(|| {
        let mut client = Http::connect(to).expect("it listens");
        for _ in 0..REQUESTS / CLIENTS {
            assert_eq!(client.get("/stats").expect("an answer").status, 200);
        }
    });
    on_all_clients(|| {
        for _ in 0..REQUESTS / CLIENTS {
            let mut client = Http::connect(to).expect("it listens");
            assert_eq!(client.get("/").expect("an answer").status, 200);
        }
    });
    let mut client = Http::connect(to).expect("it listens");
    let stats = client.get("/stats").expect("an answer");
    let told: Value = serde_json::from_slice(&stats.body).expect("it is JSON");
    let requests = 2 * (REQUESTS / CLIENTS * CLIENTS) + 1;
    assert_eq!(told["requests"], requests, "{told}");
}

fn on_all_clients(work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(&work);
        }
    });
}

fn check_silence(kind: Kind) {
    let service = Service::new("web").args(["--idle", "1"]).start(kind);
    let mut silent = Http::connect(service.tcp()).expect("it listens");
    let mut slow = Http::connect(service.tcp()).expect("it listens");
    slow.send(b"GET / HTTP/1.1\r\nHo").expect("it reads");
    assert!(silent.is_at_end());
    assert!(slow.is_at_end());
    let mut other = Http::connect(service.tcp()).expect("it listens");
    assert_eq!(other.get("/").expect("an answer").status, 200);
}

/// A file of zeros.
fn disk(place: &TempDir, bytes: u64) -> PathBuf {
    let path = place.path().join("disk.img");
    let file = File::create(&path).expect("the disk is made");
    file.set_len(bytes).expect("the disk has room");
    path
}

fn ok() -> Reply {
    Reply::Simple("OK".to_owned())
}

fn check_kv(kind: Kind) {
    let place = new_place();
    let service = Service::new("kv").disk(disk(&place, 16 << 20));
    let mut running = service.clone().start(kind);
    let mut client = Kv::connect(running.tcp()).expect("it listens");
    let mut expected = BTreeMap::new();
    // Many at once, and a value changed in between.
    for number in 0..500u32 {
        let key = format!("key {}", number % 400).into_bytes();
        let value = vec![number as u8; number as usize * 20];
        client.send(&[b"SET", &key, &value]).expect("it reads");
        expected.insert(key, value);
    }
    for _ in 0..500 {
        assert_eq!(client.receive().expect("an answer"), ok());
    }
    let removed = client.ask(&[b"DEL", b"key 1", b"key 2", b"none"]);
    assert_eq!(removed.expect("an answer"), Reply::Integer(2));
    expected.retain(|key, _| key != b"key 1" && key != b"key 2");
    // What is read after a change shows it, also without waiting in between.
    for words in [
        &[b"SET".as_slice(), b"a", b"1"][..],
        &[b"GET", b"a"],
        &[b"DEL", b"a"],
        &[b"GET", b"a"],
    ] {
        client.send(words).expect("it reads");
    }
    let replies: Vec<Reply> = (0..4)
        .map(|_| client.receive().expect("an answer"))
        .collect();
    let value = Reply::Bulk(Some(b"1".to_vec()));
    assert_eq!(replies, [ok(), value, Reply::Integer(1), Reply::Bulk(None)]);
    holds(&running, &expected);
    assert!(matches!(client.ask(&[b"FROB"]), Ok(Reply::Error(_))));
    drop(client);
    running.crash();
    holds(&service.start(kind), &expected);
}

/// Asserts that exactly these keys and values are there.
#[track_caller]
fn holds(service: &Running, expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut client = Kv::connect(service.tcp()).expect("it listens");
    let mut keys = client.keys();
    keys.sort();
    assert!(keys.iter().eq(expected.keys()), "{} keys", keys.len());
    for (key, value) in expected {
        assert!(
            client.get(key).as_ref() == Some(value),
            "{}",
            key.escape_ascii()
        );
    }
}

fn check_full_kv(kind: Kind) {
    let place = new_place();
    let service = Service::new("kv").disk(disk(&place, 1 << 20)).start(kind);
    let mut client = Kv::connect(service.tcp()).expect("it listens");
    let mut expected = BTreeMap::new();
    let value = vec![9; 30_000];
    let told = loop {
        let key = format!("{}", expected.len()).into_bytes();
        match client.ask(&[b"SET", &key, &value]).expect("an answer") {
            Reply::Error(why) => break why,
            reply => assert_eq!(reply, ok()),
        }
        expected.insert(key, value.clone());
    };
    assert!(told.contains("full"), "{told}");
    assert!(expected.len() > 10);
    holds(&service, &expected);
    assert_eq!(
        client.ask(&[b"DEL", b"0"]).expect("an answer"),
        Reply::Integer(1)
    );
    assert_eq!(
        client.ask(&[b"SET", b"new", &value]).expect("an answer"),
        ok()
    );
    expected.remove(b"0".as_slice());
    expected.insert(b"new".to_vec(), value);
    holds(&service, &expected);
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The client is a process: the other end is what is tried out here.
fn check_blast(kind: Kind) {
    let service = Service::new("blast").port_flag("--listen").start(kind);
    let to = match kind {
        Kind::Slice => SocketAddr::from((service::GUEST, service::PORT)),
        Kind::Process => service.tcp(),
    };
    let to = to.to_string();
    let measure = |flags: &[&str]| {
        let args = [&["--connect", &to, "--seconds", "0.3"], flags].concat();
        json(&service.inside(|| Service::program("blast").args(args).run(Kind::Process)))
    };
    for way in ["send", "receive"] {
        let told = measure(&["--direction", way]);
        assert!(told["bytes"].as_u64() > Some(100_000), "{told}");
        assert!(told["bits_per_second"].as_f64() > Some(0.0), "{told}");
        let told = measure(&["--udp", "--rate", "2000000", "--direction", way]);
        assert!(told["datagrams"].as_u64() > Some(0), "{told}");
    }
    let told = measure(&["--rate", "1000000", "--size", "1000"]);
    // 37,500 bytes are due in that time, and the write that may begin just before its end.
    assert!(told["bytes"].as_u64() <= Some(38_500), "{told}");
    let told = measure(&["--rr"]);
    assert!(told["round_trips"].as_u64() > Some(10), "{told}");
    assert!(told["p50_us"].as_f64() <= told["p99_us"].as_f64(), "{told}");
}

fn check_traffic(kind: Kind) {
    let sink = Service::new("blast")
        .args(["--mode", "sink"])
        .port_flag("--listen")
        .start(Kind::Process);
    let nobody = format!("{}:9", service::HOST);
    let sink = sink.tcp().to_string();
    let send = |to: &str, flags: &[&str]| {
        let args = [&["--to", to, "--seconds", "0.5", "--json"], flags].concat();
        json(&Service::program("traffic").args(args).run(kind))
    };
    let to = match kind {
        // Its calls are answered by nobody, which they bear.
        Kind::Slice => nobody.as_str(),
        Kind::Process => &sink,
    };
    let told = send(to, &["--profile", "voip", "--rate", "688"]);
    assert_eq!(
        (&told["due_sends"], &told["flows"]),
        (&250.into(), &10.into())
    );
    assert!(told["sent_bytes"].as_u64() <= Some(250 * 172), "{told}");
    if kind == Kind::Process {
        for profile in ["web", "bulk"] {
            let flags = ["--profile", profile, "--rate", "8000", "--seed", "7"];
            let [one, other] = [(); 2].map(|()| send(to, &flags));
            assert_eq!(one["due_bytes"], other["due_bytes"], "{one} {other}");
            assert_eq!(one["failed"], 0, "{one}");
            assert!(one["sent_bytes"].as_u64() > Some(0), "{one}");
            assert!(
                one["sent_bytes"].as_u64() <= one["due_bytes"].as_u64(),
                "{one}"
            );
        }
    }
}

fn check_blast_disk(kind: Kind) {
    let place = new_place();
    let blast = Service::program("blast").disk(disk(&place, 4 << 20));
    for flags in [
        &["--random", "--read"][..],
        &[
            "--sequential",
            "--write",
            "--depth",
            "4",
            "--flush-every",
            "16",
        ],
    ] {
        let args = [&["--disk", "disk0", "--seconds", "0.2"], flags].concat();
        let told = json(&blast.clone().args(args).run(kind));
        assert!(told["requests"].as_u64() > Some(0), "{told}");
        assert!(told["iops"].as_f64() > Some(0.0), "{told}");
        assert!(told["p50_us"].as_f64() <= told["p99_us"].as_f64(), "{told}");
    }
    let none = blast.args(["--disk", "disk9"]).run(kind);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
}

fn check_ping(kind: Kind) {
    let (there, silent) = match kind {
        Kind::Slice => (
            [service::HOST.to_string(), service::HOST_V6.to_string()],
            "10.9.0.77",
        ),
        Kind::Process => (["127.0.0.1", "::1"].map(str::to_owned), "name.invalid"),
    };
    let there = there.each_ref().map(String::as_str);
    let ping = Service::program("ping").args(["--count", "3", "--interval", "10"]);
    // Enough for asking twice who has an address of IPv6: a card that begins may miss the answer.
    let patient = ping.clone().args(["--patience", "5000", "--json"]);
    let told = json(&patient.args(there).run(kind));
    for (index, host) in there.iter().enumerate() {
        let measured = &told[index];
        assert_eq!(measured["host"], *host);
        assert_eq!(
            (&measured["sent"], &measured["received"]),
            (&3.into(), &3.into()),
            "{told}"
        );
        let [min, median, max] = ["min_us", "median_us", "max_us"].map(|at| measured[at].as_f64());
        assert!(min > Some(0.0) && min <= median && median <= max, "{told}");
    }
    let output = ping.args(["--patience", "300", there[0], silent]).run(kind);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(lines.contains("3 sent, 0.0 % lost, min "), "{lines}");
    assert!(
        lines.contains(silent) && lines.contains("100.0 % lost"),
        "{lines}"
    );
}

fn check_usage(kind: Kind) {
    for example in ["web", "kv", "ping", "blast", "traffic"] {
        let help = Service::program(example).args(["--help"]).run(kind);
        assert_eq!(help.status.code(), Some(0), "{help:?}");
        let usage = format!("usage: {example} ");
        assert!(
            String::from_utf8_lossy(&help.stdout).contains(&usage),
            "{help:?}"
        );
        let wrong = Service::program(example).args(["--frobnicate"]).run(kind);
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    }
}
