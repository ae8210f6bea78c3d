//! The same kernel and RAM disk under our monitor and under QEMU's microvm machine: time from the
//! start of the process to the first line of init, and memory of the process beside its guest's.

use std::io::{Read, pipe};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::assembly::QEMU;
use crate::lab::guest::{INIT, READY, linux};
use crate::lab::inside::Stage;
use crate::lab::message::Message;
use crate::lab::part::Part;
use crate::pss::own_pss_kib;

/// Names of the samples.
pub const OURS_MS: &str = "ours-ms";
/// As [`OURS_MS`].
pub const PEER_MS: &str = "peer-ms";
/// As [`OURS_MS`].
pub const OURS_PSS_MIB: &str = "ours-pss-mib";
/// As [`OURS_MS`].
pub const PEER_PSS_MIB: &str = "peer-pss-mib";

/// Memory of the guests.
const GUEST_MIB: u64 = 256;

/// When a guest has printed that it is ready, its monitor has done with what only the start needs.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Makes quads of two runs of ours and two of the peer: A B B A and B A A B in turn. The word of
/// the case is their number, 1 without.
pub(super) fn compare(stage: &Stage) {
    let quads = stage
        .words()
        .first()
        .map_or(Ok(1), |word| word.parse::<usize>());
    let quads = quads.expect("the word is a number");
    for quad in 0..quads {
        let order = match quad % 2 {
            0 => [true, false, false, true],
            _ => [false, true, true, false],
        };
        for is_ours in order {
            let (name, pss_name) = match is_ours {
                true => (OURS_MS, OURS_PSS_MIB),
                false => (PEER_MS, PEER_PSS_MIB),
            };
            let (ms, pss) = if is_ours { ours(stage) } else { peer(stage) };
            stage.step(format!("{name} {ms:.0}, {pss:.2} MiB"));
            stage.sample(name, ms);
            stage.sample(pss_name, pss);
        }
    }
}

/// A run of ours.
fn ours(stage: &Stage) -> (f64, f64) {
    let (printed, output) = pipe().expect("a pipe is made");
    let sliver = linux(stage, Part::BzImage, "serve").console_to(output);
    let began = Instant::now();
    let running = sliver.spawn();
    let measured = measure(stage, began, printed, running.pid());
    measured.unwrap_or_else(|| panic!("it ended: {}", running.errors()))
}

/// A run of the peer.
fn peer(stage: &Stage) -> (f64, f64) {
    let mut command = Command::new(QEMU);
    command
        .args(["-M", "microvm,pit=off,pic=off,rtc=on"])
        .args(["-accel", "kvm", "-cpu", "host", "-m"])
        .arg(format!("{GUEST_MIB}M"))
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(stage.part(Part::BzImage))
        .arg("-initrd")
        .arg(stage.part(Part::Initrd))
        .args([
            "-append",
            "console=ttyS0 panic=-1 reboot=acpi quiet lab=serve",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().expect("QEMU starts");
    let printed = child.stdout.take().expect("standard output is a pipe");
    let measured = measure(stage, began, printed, child.id());
    // It may have ended by itself.
    let _ = child.kill();
    let status = child.wait();
    measured.unwrap_or_else(|| panic!("it ended: {status:?}"))
}

/// Milliseconds to the first line of init, and MiB of the process beside the guest's memory once
/// that is ready. `None` if it ended before.
fn measure(stage: &Stage, began: Instant, mut printed: impl Read, pid: u32) -> Option<(f64, f64)> {
    let mut console = String::new();
    let mut wait_for = |text: &str| {
        let mut chunk = [0; 4096];
        while !console.contains(text) {
            let length = printed.read(&mut chunk).ok().filter(|length| *length > 0)?;
            let part = String::from_utf8_lossy(&chunk[..length]).into_owned();
            stage.reporter().tell(&Message::Output(part.clone()));
            console.push_str(&part);
        }
        Some(began.elapsed())
    };
    let first_line = wait_for(INIT)?;
    wait_for(READY)?;
    thread::sleep(SETTLED_AFTER);
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let own = own_pss_kib(&smaps, GUEST_MIB << 10).expect("it has the guest's memory");
    Some((first_line.as_secs_f64() * 1000.0, own as f64 / 1024.0))
}
