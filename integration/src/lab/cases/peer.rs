//! The same kernel and RAM disk under our monitor and under QEMU's microvm machine: time from the
//! start of the process to the first line of init, and memory of the process beside its guest's.
//!
//! One run in each host: in an emulated one the second guest takes twice as long as the first.

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

/// Name of the sample of the time to the first line of init, in milliseconds.
pub const INIT_MS: &str = "init-ms";

/// Name of the sample of the process's memory beside its guest's, in MiB.
pub const PSS_MIB: &str = "pss-mib";

/// Memory of the guests.
const GUEST_MIB: u64 = 256;

/// When a guest has printed that it is ready, its monitor has done with what only the start needs.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

pub(super) fn ours(stage: &Stage) {
    let (printed, output) = pipe().expect("a pipe is made");
    let sliver = linux(stage, Part::BzImage, "serve").console_to(output);
    let began = Instant::now();
    let running = sliver.spawn();
    let measured = measure(stage, began, printed, running.pid());
    measured.unwrap_or_else(|| panic!("it ended: {}", running.errors()));
}

pub(super) fn qemu(stage: &Stage) {
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
            "console=ttyS0 panic=-1 reboot=acpi quiet nohz=off lab=serve",
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
    measured.unwrap_or_else(|| panic!("it ended: {status:?}"));
}

/// Samples the time to the first line of init, and once that serves, the memory of the process.
/// `None` if it ended before.
fn measure(stage: &Stage, began: Instant, mut printed: impl Read, pid: u32) -> Option<()> {
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
    stage.sample(INIT_MS, first_line.as_secs_f64() * 1000.0);
    stage.sample(PSS_MIB, own as f64 / 1024.0);
    Some(())
}
