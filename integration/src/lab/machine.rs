//! Runs a case in a host of its own: an emulated one, or a process of this one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use slicectl::signals;

use super::Failure;
use super::assembly::{Assembly, QEMU};
use super::cases::Case;
use super::message::{Figures, Message};
use super::part::Part;

/// How often a signal that asks for the end is looked for.
const GLANCE: Duration = Duration::from_millis(100);

/// How much of what was printed is told.
const TOLD_BYTES: usize = 16 << 10;

/// Where cases run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// On this host, which has VMX or SVM.
    This,
    /// In a host that QEMU emulates.
    Emulated {
        /// What its kernel is told of its time-stamp counter, which is this host's: under
        /// emulation it measures up to 0.2 % amiss, and guests that are told so never wake.
        tsc_khz: u64,
    },
}

/// A run of a case.
#[derive(Debug)]
pub struct Run {
    /// What it measured, or what went wrong.
    pub result: Result<Figures, Failure>,
    /// The command that runs it again, if its files are kept.
    pub command: String,
}

/// Runs `case` with its files in `place`.
pub fn run(host: Host, assembly: &Assembly, case: &Case, place: &Path) -> Result<Run> {
    let host_log = place.join("host.log");
    let mut command = match host {
        Host::This => this(assembly, case),
        Host::Emulated { tsc_khz } => {
            let initrd = place.join("initrd.cpio");
            assembly.write_initrd(&initrd, case.parts)?;
            let mut qemu = emulator(case, &assembly.bzimage()?, &initrd, &host_log);
            qemu.arg("-append").arg(format!(
                "console=ttyS0 reboot=t panic=-1 quiet tsc_early_khz={tsc_khz} lab.case={}",
                case.name
            ));
            qemu
        }
    };
    let told = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(place.join("errors.log"))?);
    let mut watched = Watched::start(command)?;
    let deadline = Instant::now() + case.patience;
    let (ended, output) = watched.listen(deadline);
    drop(watched);
    let log = |name: &str| {
        let bytes = fs::read(place.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let result = match ended {
        Ended::Told(Message::Passed(figures)) => Ok(figures),
        other => Err(Failure {
            reason: other.reason(case),
            guests: tail(&output),
            host: tail(&(log("host.log") + &log("errors.log"))),
        }),
    };
    Ok(Run {
        result,
        command: told,
    })
}

/// The inside, in a network of its own.
fn this(assembly: &Assembly, case: &Case) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--kill-child", "--fork"])
        .arg(assembly.path(Part::Inside))
        .arg(case.name)
        .arg(assembly.parts());
    command
}

fn emulator(case: &Case, kernel: &Path, initrd: &Path, log: &Path) -> Command {
    // It must not outlive whoever waits for it, however that ends.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", QEMU])
        .args(["-accel", "tcg", "-cpu", "max,la57=off", "-smp", "1"])
        .args(["-m", &case.host_mib.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .args(["-chardev", "stdio,id=told,signal=off"])
        .args(["-serial", "chardev:told"]);
    command
}

/// How listening ended.
#[derive(Debug)]
enum Ended {
    Told(Message),
    Silent,
    TooLate,
    Signal(i32),
}

impl Ended {
    fn reason(self, case: &Case) -> String {
        match self {
            Self::Told(Message::Failed(reason)) => reason,
            Self::Told(other) => format!("it ended with {other:?}"),
            Self::Silent => "its host ended without a verdict".to_owned(),
            Self::TooLate => format!("it was not done after {} s", case.patience.as_secs()),
            Self::Signal(signal) => format!("ended by {}", signals::signal_name(signal)),
        }
    }
}

/// A host that is killed when it is dropped.
struct Watched {
    child: Child,
    messages: Receiver<String>,
}

impl Watched {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .spawn()
            .with_context(|| format!("{}", command.get_program().display()))?;
        let stdout = child.stdout.take().context("standard output is a pipe")?;
        let (to, messages) = mpsc::channel();
        thread::spawn(move || read_lines(stdout, &to));
        Ok(Self { child, messages })
    }

    /// Listens until there is a verdict; what the guests printed comes with it.
    fn listen(&mut self, deadline: Instant) -> (Ended, String) {
        let mut output = String::new();
        loop {
            if let Some(signal) = signals::arrived() {
                return (Ended::Signal(signal), output);
            }
            match self.messages.recv_timeout(GLANCE) {
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => return (Ended::TooLate, output),
                Err(RecvTimeoutError::Disconnected) => return (Ended::Silent, output),
                Ok(line) => match serde_json::from_str(line.trim()) {
                    Ok(Message::Output(text)) => output.push_str(&text),
                    Ok(Message::Step(text)) => output.push_str(&format!("\n[{text}]\n")),
                    Ok(verdict) => return (Ended::Told(verdict), output),
                    // What the host's firmware or kernel say on their way.
                    Err(_) => {}
                },
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: ChildStdout, to: &mpsc::Sender<String>) {
    for line in BufReader::new(from).split(b'\n') {
        let Ok(line) = line else { return };
        if to
            .send(String::from_utf8_lossy(&line).into_owned())
            .is_err()
        {
            return;
        }
    }
}

fn tail(text: &str) -> String {
    let start = text.ceil_char_boundary(text.len().saturating_sub(TOLD_BYTES));
    text[start..].to_owned()
}

/// The frequency of this host's time-stamp counter.
pub fn tsc_khz() -> u64 {
    let began = (tsc(), Instant::now());
    thread::sleep(Duration::from_millis(200));
    let (ticks, time) = (tsc() - began.0, began.1.elapsed());
    (u128::from(ticks) * 1_000_000 / time.as_nanos()) as u64
}

#[allow(unsafe_code, reason = "the counter is read by an intrinsic")]
fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux does not forbid it.
    unsafe { std::arch::x86_64::_rdtsc() }
}
