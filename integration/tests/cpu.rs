//! The processor quotas with real guests, by the host's own clock of each monitor's process. The
//! machine may be busy with other things: nothing is asserted about the time that passes, and that a
//! sliver gets what it should is waited for.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use integration::cpu_time::process_ns;
use integration::http::Http;
use integration::kv::{Kv, Reply};
use integration::needs_kvm;
use integration::service::{Kind, Service};
use integration::sliver::{Running, SOON, Sliver, new_place, until_within};
use integration::taps;
use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};
use tempfile::TempDir;
use vmm::control::proto::{Answer, Op};
use vmm::spec::LimitsChange;

/// Long enough for many periods, and for the staleness of the host's clock not to matter.
const A_WHILE: Duration = Duration::from_secs(2);

/// How long a sliver may wait for its due on a machine that others use, too.
const PATIENCE: Duration = Duration::from_secs(120);

/// Percent of one processor that it uses during `time`.
fn used(sliver: &Running, time: Duration) -> f64 {
    let clock = || process_ns(sliver.pid()).expect("the monitor runs");
    let (since, before) = (Instant::now(), clock());
    thread::sleep(time);
    100.0 * (clock() - before) as f64 / since.elapsed().as_nanos() as f64
}

/// Asserts that it uses no more than its cap and a little, and that it comes to use half of it.
#[track_caller]
fn assert_capped(sliver: &Running, cap: f64) {
    assert_below(sliver, cap);
    until_within(PATIENCE, "it gets half of its cap", || {
        (used(sliver, A_WHILE / 4) > cap / 2.0).then_some(())
    });
}

#[track_caller]
fn assert_below(sliver: &Running, cap: f64) {
    let used = used(sliver, A_WHILE);
    // A period's budget more, and what the host's clock lags behind.
    assert!(used < cap * 1.05 + 0.5, "{used} % of a cap of {cap} %");
}

#[track_caller]
fn assert_stopped_soon(sliver: Running) {
    sliver.assert_pauses();
    let mut control = sliver.control();
    let asked = Instant::now();
    assert_eq!(control.ask(Op::Resume), Ok(Answer::Done));
    assert!(asked.elapsed() < SOON, "resumed in {:?}", asked.elapsed());
    sliver.assert_well();
}

// Caps.

#[test]
fn a_busy_sliver_uses_its_cap_and_no_more() {
    needs_kvm!();
    for (cap, period) in [(20, 10), (5, 10), (20, 100), (50, 1)] {
        let sliver = Sliver::bare("busy")
            .field("cpu_cap", cap)
            .field("cpu_period", period)
            .spawn_running();
        assert_capped(&sliver, cap.into());
        sliver.assert_well();
    }
}

#[test]
fn a_cap_is_of_all_vcpus_together() {
    needs_kvm!();
    let sliver = Sliver::bare("busy-all").args(["busy-all", "2"]);
    let sliver = sliver.vcpus(2).field("cpu_cap", 50).spawn_running();
    assert_capped(&sliver, 50.0);
    sliver.assert_well();
}

#[test]
fn a_kernel_is_held_to_its_cap_too() {
    needs_kvm!();
    let one = Sliver::kernel("busy").field("cpu_cap", 20).spawn_running();
    assert_capped(&one, 20.0);
    one.assert_well();
    let two = Sliver::kernel("busy-all").args(["busy-all", "2"]);
    let two = two.vcpus(2).field("cpu_cap", 50).spawn_running();
    assert_capped(&two, 50.0);
    two.assert_well();
}

/// The guest tells by its own clock for how long its vCPUs stood still, and for how long of that one
/// did while the other ran.
#[test]
fn all_vcpus_are_held_back_together() {
    needs_kvm!();
    until_within(PATIENCE, "the machine is quiet enough to tell", || {
        let sliver = Sliver::example("jitter")
            .args(["stops", "--ms", "2000"])
            .vcpus(2)
            .field("cpu_cap", 60);
        let ended = sliver.run();
        ended.assert_exited(0);
        let told: Value = serde_json::from_str(&ended.console).expect("it is JSON");
        let together = |vcpu: &Value| {
            let [stopped, alone] = ["stopped_us", "alone_us"].map(|key| vcpu[key].as_f64());
            Some(stopped? - alone?)
        };
        let vcpus = told["vcpus"].as_array().expect("there are vCPUs");
        assert_eq!(vcpus.len(), 2, "{told}");
        // Two that want 200 % and get 60 stand still for 1.4 of 2 seconds.
        let enough = |vcpu| together(vcpu).is_some_and(|micros| micros > 700_000.0);
        vcpus.iter().all(enough).then_some(())
    });
}

#[test]
fn a_cap_is_changed_while_a_sliver_runs() {
    needs_kvm!();
    let sliver = Sliver::bare("busy").field("cpu_cap", 5).spawn_running();
    assert_capped(&sliver, 5.0);
    for cap in [40, 10] {
        let change: LimitsChange =
            serde_json::from_value(json!({ "cpu": { "cpu_cap": cap } })).expect("it is one");
        let answer = sliver.control().ask(Op::SetLimits(change));
        assert!(matches!(answer, Ok(Answer::Limits(_))), "{answer:?}");
        assert_capped(&sliver, cap.into());
    }
    let change: LimitsChange =
        serde_json::from_value(json!({ "cpu": { "cpu_cap": 101 } })).expect("it is one");
    let refused = sliver.control().ask(Op::SetLimits(change));
    assert!(refused.is_err(), "{refused:?}");
    assert_below(&sliver, 10.0);
    sliver.assert_well();
}

#[test]
fn an_idle_sliver_with_a_cap_costs_nothing() {
    needs_kvm!();
    let sliver = Sliver::bare("idle")
        .field("cpu_cap", 20)
        .field("cpu_period", 1)
        .spawn_running();
    sliver.wait_for_console("recovered\n");
    let used = used(&sliver, A_WHILE);
    assert!(used < 0.5, "{used} %");
    sliver.assert_well();
}

// What is done on behalf of a sliver is charged to it.

#[test]
fn a_guest_that_leaves_as_often_as_it_can_pays_for_it() {
    needs_kvm!();
    for case in ["flood", "flood-registers", "flood-rests"] {
        let sliver = Sliver::bare(case).field("cpu_cap", 20).spawn_running();
        assert_below(&sliver, 20.0);
        sliver.assert_well();
    }
}

#[test]
fn a_guest_that_floods_its_console_pays_for_it() {
    needs_kvm!();
    let void = File::options().write(true).open("/dev/null");
    let sliver = Sliver::bare("print-flood")
        .field("cpu_cap", 20)
        .console_to(void.expect("Linux has /dev/null"))
        .spawn_running();
    assert_below(&sliver, 20.0);
    sliver.assert_well();
}

#[test]
fn a_guest_that_floods_its_card_pays_for_it() {
    needs_kvm!();
    let tap = taps::make(1).remove(0);
    let sliver = Sliver::bare("flood-frames")
        .field("cpu_cap", 20)
        .field("nets", json!([{}]))
        .field("guard", json!({ "mode": "off" }))
        .tap(0, tap.fd)
        .spawn_running();
    assert_below(&sliver, 20.0);
    sliver.assert_well();
}

#[test]
fn a_guest_that_floods_its_disk_pays_for_it() {
    needs_kvm!();
    let place = Arc::new(new_place());
    let path = place.path().join("disk.img");
    let file = File::create(&path).expect("the disk is made");
    file.set_len(16 << 20).expect("the disk has room");
    for way in ["--read", "--write"] {
        let args = ["--disk", "disk0", "--depth", "32", "--random"];
        let sliver = Sliver::example("blast")
            .args([&args[..], &["--seconds", "3600", way]].concat())
            .field("disks", json!([{ "path": path }]))
            .field("cpu_cap", 20)
            .in_place(&place)
            .spawn_running();
        assert_below(&sliver, 20.0);
        sliver.assert_well();
    }
}

#[test]
fn a_guest_that_knows_when_nobody_looks_gains_nothing() {
    needs_kvm!();
    for case in ["sleep-through-ends", "dodge"] {
        let sliver = Sliver::bare(case).field("cpu_cap", 20).spawn_running();
        assert_below(&sliver, 20.0);
        sliver.assert_well();
    }
}

// A sliver that is held back is still there for others.

#[test]
fn a_sliver_that_is_held_back_pauses_goes_on_and_stops_at_once() {
    needs_kvm!();
    for case in ["busy", "print-flood", "flood-rests"] {
        let void = File::options().write(true).open("/dev/null");
        let sliver = Sliver::bare(case)
            .field("cpu_cap", 0.1)
            .field("cpu_period", 100)
            .console_to(void.expect("Linux has /dev/null"))
            .spawn_running();
        thread::sleep(A_WHILE / 4);
        assert_stopped_soon(sliver);
    }
    let kernel = Sliver::kernel("busy").field("cpu_cap", 0.1);
    let kernel = kernel.field("cpu_period", 100).spawn_running();
    thread::sleep(A_WHILE / 4);
    assert_stopped_soon(kernel);
}

#[test]
fn nothing_that_a_service_is_sent_is_lost_while_it_is_held_back() {
    needs_kvm!();
    let service = Service::new("echo")
        .flags(&["--cpu-cap", "10"])
        .start(Kind::Slice);
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
    let status = service.control().status();
    assert!(status.cpu.throttled_periods > 0, "{:?}", status.cpu);
}

#[test]
fn nothing_that_a_disk_is_asked_for_is_lost_while_its_sliver_is_held_back() {
    needs_kvm!();
    let place = new_place();
    let path = place.path().join("disk.img");
    let file = File::create(&path).expect("the disk is made");
    file.set_len(8 << 20).expect("the disk has room");
    let service = Service::new("kv").flags(&["--cpu-cap", "5"]).disk(path);
    let service = service.start(Kind::Slice);
    let mut client = Kv::connect(service.tcp()).expect("it listens");
    for number in 0..500u32 {
        let key = number.to_string().into_bytes();
        let set = client.ask(&[b"SET", &key, &vec![number as u8; 1000]]);
        assert_eq!(set.expect("an answer"), Reply::Simple("OK".to_owned()));
    }
    for number in 0..500u32 {
        let value = client.get(number.to_string().as_bytes());
        assert_eq!(value, Some(vec![number as u8; 1000]));
    }
    let status = service.control().status();
    assert!(status.cpu.throttled_periods > 0, "{:?}", status.cpu);
}

// What a guest is told, and what it makes of it.

#[test]
fn a_service_sees_what_it_is_granted_and_what_it_has_used() {
    needs_kvm!();
    let cpu = ["--cpu-cap", "20", "--cpu-pct", "2.5", "--cpu-share", "7"];
    let net = ["--net-max-rate", "50mbit", "--net-rx-max-rate", "20mbit"];
    let flags = [&cpu[..], &net, &["--net-allowance", "1G"]].concat();
    let service = Service::new("web").flags(&flags).start(Kind::Slice);
    let mut client = Http::connect(service.tcp()).expect("it listens");
    let mut quota = || {
        let stats = client.get("/stats").expect("an answer");
        let told: Value = serde_json::from_slice(&stats.body).expect("it is JSON");
        told["quota"].clone()
    };
    let told = quota();
    assert_eq!(told["cpu_cap_milli"], 200, "{told}");
    assert_eq!(told["cpu_share"], 7, "{told}");
    assert!(told["cpu_reserve_milli"].as_u64() > Some(0), "{told}");
    assert!(told["cpu_throttled_seconds"].is_number(), "{told}");
    assert_eq!(told["net_tx_rate"], 50_000_000, "{told}");
    assert_eq!(told["net_rx_rate"], 20_000_000, "{told}");
    let left = told["net_tx_left_today"].as_u64().expect("it is told");
    assert!((1..=1 << 30).contains(&left), "{told}");
    let consumed = |told: &Value| told["cpu_consumed_seconds"].as_f64().expect("it is told");
    let before = consumed(&told);
    until_within(PATIENCE, "more is used", || {
        (consumed(&quota()) > before).then_some(())
    });
}

fn adaptive(sliver: Sliver) -> Value {
    let ended = sliver.run();
    ended.assert_exited(0);
    serde_json::from_str(&ended.console).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

#[test]
fn an_adaptive_service_with_too_small_a_cap_refuses_work_and_answers_the_rest_in_time() {
    needs_kvm!();
    let args = [
        "--rate",
        "100",
        "--work",
        "2000",
        "--goal",
        "200",
        "--seconds",
        "5",
    ];
    let sliver = Sliver::example("adaptive").field("cpu_cap", 10);
    let told = adaptive(sliver.clone().args(args));
    let [due, done, refused, late] =
        ["due", "done", "refused", "late"].map(|key| told[key].as_u64().expect("it is a number"));
    assert_eq!((due, done + refused), (500, 500), "{told}");
    assert!(refused > 100 && done > 0 && late <= done / 4, "{told}");
    assert!(told["throttled_ms"].as_u64() > Some(0), "{told}");
    // The same without refusing: nearly everything is late.
    let told = adaptive(sliver.args(args.iter().copied().chain(["--stubborn"])));
    assert_eq!(told["refused"], 0, "{told}");
    assert!(told["late"].as_u64() > Some(300), "{told}");
}

#[test]
fn an_adaptive_service_without_a_cap_refuses_nothing() {
    needs_kvm!();
    let args = [
        "--rate",
        "50",
        "--work",
        "500",
        "--goal",
        "2000",
        "--seconds",
        "2",
    ];
    let told = adaptive(Sliver::example("adaptive").args(args));
    assert_eq!(
        (&told["refused"], &told["done"]),
        (&json!(0), &json!(100)),
        "{told}"
    );
}

// Several slivers on one processor: each is launched by a thread that has no other.

fn on_one() {
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first).expect("the first processor is there");
}

/// Slivers of one ledger, which lies in memory.
struct Party {
    slivers: Vec<Running>,
    _memory: TempDir,
}

/// Slivers of these shares in one ledger.
fn party(shares: &[u32]) -> Party {
    let place = Arc::new(new_place());
    let memory = TempDir::with_prefix_in("slicevisor-test-", "/dev/shm");
    let memory = memory.expect("a temporary directory is made");
    let ledger = memory.path().join("ledger");
    let sliver = |&share: &u32| {
        Sliver::bare("busy")
            .field("cpu_share", share)
            .launched_after(on_one)
            .ledger(&ledger)
            .in_place(&place)
            .spawn_running()
    };
    let slivers: Vec<_> = shares.iter().map(sliver).collect();
    for sliver in &slivers {
        let rivals = sliver.control().status().cpu.rivals;
        assert!(rivals.is_some(), "it has no ledger: {}", sliver.errors());
    }
    Party {
        slivers,
        _memory: memory,
    }
}

/// What each uses, in percent.
fn used_by_each(slivers: &[Running], time: Duration) -> Vec<f64> {
    thread::scope(|scope| {
        let threads: Vec<_> = { slivers.iter() }
            .map(|sliver| scope.spawn(move || used(sliver, time)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, f64>| thread.join().expect("it measures");
        threads.into_iter().map(join).collect()
    })
}

#[test]
fn busy_slivers_share_a_processor_by_weight() {
    needs_kvm!();
    let party = party(&[1, 3]);
    let slivers = &party.slivers;
    until_within(
        PATIENCE,
        "one gets three times as much as the other",
        || {
            let used = used_by_each(slivers, A_WHILE);
            let ratio = used[1] / used[0];
            (2.4..3.6).contains(&ratio).then_some(())
        },
    );
    party.slivers.into_iter().for_each(Running::assert_well);
}

#[test]
fn nobody_waits_for_a_monitor_that_was_killed() {
    needs_kvm!();
    for _ in 0..3 {
        let mut party = party(&[100, 100, 1]);
        thread::sleep(A_WHILE / 4);
        let left = party.slivers.pop().expect("there are three");
        for killed in &party.slivers {
            killed.signal(Signal::KILL);
        }
        until_within(PATIENCE, "who is left gets the processor", || {
            (used(&left, A_WHILE / 4) > 25.0).then_some(())
        });
        left.assert_well();
    }
}

#[test]
fn nobody_waits_for_a_sliver_that_is_paused() {
    needs_kvm!();
    let party = party(&[100, 1]);
    let slivers = &party.slivers;
    thread::sleep(A_WHILE / 4);
    slivers[0].assert_pauses();
    until_within(PATIENCE, "who is left gets the processor", || {
        (used(&slivers[1], A_WHILE / 4) > 25.0).then_some(())
    });
    let resumed = slivers[0].control().ask(Op::Resume);
    assert_eq!(resumed, Ok(Answer::Done));
    party.slivers.into_iter().for_each(Running::assert_well);
}
