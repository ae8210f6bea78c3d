//! What the devices of real guests do beside disks and bulk traffic: consoles, random numbers,
//! vsocks, balloons; and that a sliver which stands still or has several vCPUs misses nothing.

use std::fs;
use std::io::{Read, Write, pipe};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use integration::client::Client;
use integration::needs_kvm;
use integration::service::{GUEST, Kind, PORT, Service};
use integration::sliver::{Running, Sliver, until};
use serde_json::json;
use tempfile::TempDir;
use vmm::control::proto::{Answer, DeviceStatus, Op, State};

/// For what should not take long, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// A counter of a device; 0 before its driver has come up.
fn counter(control: &mut Client, tag: &str, name: &str) -> u64 {
    counted(&control.status().devices, tag, name)
}

fn counted(devices: &[DeviceStatus], tag: &str, name: &str) -> u64 {
    let device = devices.iter().find(|device| device.tag == tag);
    let device = device.unwrap_or_else(|| panic!("no device is called {tag:?}: {devices:?}"));
    device.counters.get(name).copied().unwrap_or(0)
}

/// Waits until a counter has grown by `more`.
fn wait_for_more(control: &mut Client, (tag, name): (&str, &str), more: u64) {
    let before = counter(control, tag, name);
    until(&format!("{name} of {tag} grows"), || {
        (counter(control, tag, name) >= before + more).then_some(())
    });
}

fn pause(control: &mut Client) {
    assert_eq!(control.ask(Op::Pause), Ok(Answer::Done));
    assert_eq!(control.status().state, State::Paused);
}

fn resume(control: &mut Client) {
    assert_eq!(control.ask(Op::Resume), Ok(Answer::Done));
}

// Consoles.

#[test]
fn a_flood_at_a_rate_goes_on_wait_after_wait_and_stands_still_while_paused() {
    needs_kvm!();
    // Much is printed at once before the rate bites; from then on each wait is the timer's.
    let flood = Sliver::bare("print-flood").field("console", json!({ "rate_kib_s": 128 }));
    let flood = flood.spawn_running();
    let mut control = flood.control();
    for _ in 0..5 {
        wait_for_more(&mut control, ("console", "rate_waits"), 20);
        pause(&mut control);
        let printed = counter(&mut control, "console", "printed_bytes");
        thread::sleep(Duration::from_millis(50)); // several waits long
        assert_eq!(counter(&mut control, "console", "printed_bytes"), printed);
        resume(&mut control);
    }
    wait_for_more(&mut control, ("console", "rate_waits"), 20);
    flood.assert_well();
}

#[test]
fn a_flood_of_several_vcpus_is_bounded_like_that_of_one() {
    needs_kvm!();
    let flood = Sliver::bare("print-flood")
        .vcpus(4)
        .field("console", json!({ "rate_kib_s": 128 }));
    let flood = flood.spawn_running();
    wait_for_more(&mut flood.control(), ("console", "rate_waits"), 20);
    flood.assert_pauses();
}

#[test]
fn a_vcpu_that_gave_a_device_endless_work_is_not_kept_until_it_is_done() {
    needs_kvm!();
    let devnull = fs::File::options().write(true).open("/dev/null");
    let printer = Sliver::bare("print-gigabytes")
        .field("console", json!({ "rate_kib_s": 1 << 30 }))
        .console_to(devnull.expect("it can be written"))
        .spawn_running();
    let mut control = printer.control();
    let before = control.status().cpu_us.guest;
    // Its work goes on all the while: in three seconds and more, none of which it would be left.
    until("the guest gets on", || {
        let status = control.status();
        (status.cpu_us.guest > before + 10_000).then_some(())
    });
    let printed = counter(&mut control, "console", "printed_bytes");
    assert!(printed < 3 << 30, "it is done: {printed}");
    printer.assert_pauses();
}

#[test]
fn what_is_typed_reaches_the_guest_line_by_line() {
    needs_kvm!();
    let (theirs, mut ours) = pipe().expect("a pipe is made");
    let lines = Sliver::example("lines")
        .field("console", json!({ "input": true }))
        .field("start_paused", true)
        .input_from(theirs)
        .spawn();
    let mut control = lines.control();
    let (columns, rows) = (100, 40);
    let resize = Op::ResizeConsole { columns, rows };
    assert_eq!(control.ask(resize), Ok(Answer::Done));
    resume(&mut control);
    lines.wait_for_console("100 columns, 40 rows\n");
    lines.wait_for_console("ready\n");
    for (number, line) in ["hello", "a longer line of input"].iter().enumerate() {
        writeln!(ours, "{line}").expect("the monitor reads");
        lines.wait_for_console(&format!("{} {line}\n", number + 1));
        pause(&mut control);
        resume(&mut control);
    }
    // What comes while it stands still is read afterwards.
    pause(&mut control);
    writeln!(ours, "patience").expect("the monitor reads");
    thread::sleep(Duration::from_millis(20));
    assert!(!lines.console().contains("patience"));
    resume(&mut control);
    lines.wait_for_console("3 patience\n");
    writeln!(ours, "end").expect("the monitor reads");
    let ended = lines.wait();
    ended.assert_exited(0);
    let devices = &ended.record().devices;
    let typed = "hello\na longer line of input\npatience\nend\n".len() as u64;
    assert_eq!(counted(devices, "console", "input_bytes"), typed);
}

// Random numbers.

#[test]
fn random_bytes_differ_and_are_counted_in_the_record() {
    needs_kvm!();
    let [one, other] = [(); 2].map(|()| Sliver::example("rand").args(["64"]).run());
    for ended in [&one, &other] {
        ended.assert_exited(0);
        let record = ended.record();
        assert!(counted(&record.devices, "rng", "random_bytes") > 0);
        assert!(counted(&record.devices, "console", "printed_bytes") > 0);
        let json = serde_json::to_value(record).expect("a record is JSON");
        assert_eq!(json["devices"].as_array().map(Vec::len), Some(3), "{json}");
    }
    let lines: Vec<&str> = one.console.lines().chain(other.console.lines()).collect();
    assert_eq!(lines.len(), 4);
    for (i, line) in lines.iter().enumerate() {
        assert!(!lines[..i].contains(line), "{lines:?}");
    }
}

// Vsocks.

fn talker(dir: &TempDir) -> Sliver {
    Sliver::example("vsock").field("vsock", json!({ "dir": dir.path(), "cid": 9 }))
}

/// A stream to a port of the guest, accepted or refused.
fn call(dir: &Path, port: u32) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(dir.join("guest.sock")).expect("the monitor listens");
    let set = stream.set_read_timeout(Some(PATIENCE));
    set.expect("a socket has options");
    writeln!(stream, "CONNECT {port}").expect("the monitor reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") {
        let mut byte = [0];
        match stream.read(&mut byte).expect("the monitor answers") {
            0 => {
                assert_eq!(answer, b"");
                return None;
            }
            _ => answer.push(byte[0]),
        }
    }
    assert!(answer.starts_with(b"OK "), "{answer:?}");
    Some(stream)
}

#[test]
fn streams_go_both_ways_and_their_socket_is_gone_at_the_end() {
    needs_kvm!();
    let dir = TempDir::new().expect("a directory is made");
    let listener = UnixListener::bind(dir.path().join("9.sock")).expect("a socket is made");
    let talker = talker(&dir).spawn();
    let (mut hello, _) = listener.accept().expect("the guest comes");
    let mut greeting = String::new();
    hello.read_to_string(&mut greeting).expect("it is said");
    assert!(greeting.starts_with("hello from test-"), "{greeting:?}");
    talker.wait_for_console("listening on port 7");
    assert!(call(dir.path(), 8).is_none());
    // More than the credit of either side.
    let stream = call(dir.path(), 7).expect("the guest listens");
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i >> 3) as u8).collect();
    thread::scope(|scope| {
        let (mut to, sent) = (&stream, &sent);
        scope.spawn(move || to.write_all(sent).expect("the guest reads"));
        let (mut from, mut back) = (&stream, vec![0; sent.len()]);
        from.read_exact(&mut back).expect("the guest answers");
        assert!(back == *sent);
    });
    drop(stream);
    talker.wait_for_console("sent 1000000 bytes back");
    let mut last = call(dir.path(), 7).expect("the guest listens");
    last.write_all(b"end").expect("the guest reads");
    let ended = talker.wait();
    ended.assert_exited(0);
    let devices = &ended.record().devices;
    assert!(counted(devices, "vsock", "from_guest_bytes") > 1_000_000);
    assert!(counted(devices, "vsock", "to_guest_bytes") > 1_000_000);
    assert!(!dir.path().join("guest.sock").exists());
}

#[test]
fn a_guest_is_told_that_nobody_serves_a_port() {
    needs_kvm!();
    let dir = TempDir::new().expect("a directory is made");
    let talker = talker(&dir).spawn();
    talker.wait_for_console("port 9 of the host: ");
    talker.wait_for_console("listening on port 7");
    assert_eq!(counter(&mut talker.control(), "vsock", "refused"), 1);
    talker.assert_well();
}

#[test]
fn an_idle_sliver_that_is_stopped_leaves_no_socket() {
    needs_kvm!();
    for round in 0..20 {
        let vcpus = [1, 1, 2, 4][round % 4];
        let dir = TempDir::new().expect("a directory is made");
        let talker = talker(&dir).vcpus(vcpus).spawn();
        talker.wait_for_console("listening on port 7");
        talker.assert_well();
        assert!(!dir.path().join("guest.sock").exists());
    }
}

// Balloons.

/// Memory of a monitor, its guest's included, in KiB.
fn resident_kib(sliver: &Running) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", sliver.pid());
    let text = fs::read_to_string(path).expect("the monitor runs");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .expect("the kernel tells the memory")
}

#[test]
fn what_an_operator_asks_back_goes_to_the_host_and_may_be_had_again() {
    needs_kvm!();
    const PAGES_PER_MIB: u64 = 256;
    // More is asked for than the guest has never touched.
    let (used, asked, untouched) = (112, 48, 16);
    let words = [used.to_string(), "60".to_owned()];
    let giver = Sliver::example("give").args(&words).memory_mib(128).spawn();
    giver.wait_for_console("giving");
    let mut control = giver.control();
    let before = resident_kib(&giver);
    assert!(before > used << 10, "{before}");
    let set = |control: &mut Client, mib| {
        assert_eq!(control.ask(Op::SetBalloon { mib }), Ok(Answer::Done));
        until("the balloon has its size", || {
            let holds = counter(control, "balloon", "actual_pages");
            (holds == mib * PAGES_PER_MIB).then_some(())
        });
    };
    set(&mut control, asked);
    let after = resident_kib(&giver);
    let least = (asked - untouched) << 10;
    assert!(after + least < before + (4 << 10), "{before} {after}");
    pause(&mut control);
    assert_eq!(control.ask(Op::SetBalloon { mib: 0 }), Ok(Answer::Done));
    resume(&mut control);
    set(&mut control, 0);
    let deflated = counter(&mut control, "balloon", "deflated_pages");
    assert_eq!(deflated, asked * PAGES_PER_MIB);
    let refusal = control.ask(Op::SetBalloon { mib: 128 });
    assert!(refusal.is_err_and(|why| why.contains("128 MiB")));
    giver.assert_well();
}

// Networks.

fn echo_once(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("it is taken");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(back, bytes);
}

#[test]
fn a_paused_sliver_takes_no_frames_and_goes_on_after_a_resume() {
    needs_kvm!();
    let echo = Service::new("echo").start(Kind::Slice);
    let mut control = echo.control();
    let mut stream = echo.connect();
    stream.set_read_timeout(Some(PATIENCE)).expect("it can");
    echo_once(&mut stream, b"before");
    for _ in 0..3 {
        pause(&mut control);
        let taken = counter(&mut control, "net0", "rx_frames");
        stream.write_all(b"meanwhile").expect("it is taken");
        echo.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
            for _ in 0..200 {
                let to = SocketAddr::from((GUEST, PORT));
                socket.send_to(b"datagram", to).expect("it leaves");
            }
        });
        thread::sleep(Duration::from_millis(50));
        assert_eq!(control.status().state, State::Paused);
        assert_eq!(counter(&mut control, "net0", "rx_frames"), taken);
        resume(&mut control);
        let mut back = [0; 9];
        stream.read_exact(&mut back).expect("it comes back");
        assert_eq!(&back, b"meanwhile");
        assert!(counter(&mut control, "net0", "rx_frames") > taken);
    }
    echo_once(&mut stream, b"after");
}

#[test]
fn several_connections_at_once_are_served_whatever_the_number_of_vcpus() {
    needs_kvm!();
    let echo = Service::new("echo").vcpus(4).start(Kind::Slice);
    thread::scope(|scope| {
        for client in 0..8u8 {
            let echo = &echo;
            scope.spawn(move || {
                let mut stream = echo.connect();
                stream.set_read_timeout(Some(PATIENCE)).expect("it can");
                for round in 0..20u8 {
                    let len = usize::from(round) * 700 + 1;
                    echo_once(&mut stream, &vec![client ^ round; len]);
                }
            });
        }
        let mut control = echo.control();
        for _ in 0..10 {
            pause(&mut control);
            resume(&mut control);
            thread::sleep(Duration::from_millis(5));
        }
    });
    let mut control = echo.control();
    assert_eq!(control.status().vcpus, 4);
    assert_eq!(counter(&mut control, "net0", "faults"), 0);
}
