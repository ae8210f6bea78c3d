//! The inside of the lab: makes a host of a bare kernel, runs a case, tells how it went, and ends
//! the host.
//!
//! Run as the first process of a kernel it does all of that. On a host that is one already it is
//! an ordinary program: `lab-inside CASE PARTS`, which tells on its standard output.

use std::fs::{self, File};
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{chdir, chroot};
use rustix::system::{RebootCommand, finit_module, reboot};

use super::cases::{self, Case};
use super::message::{Figures, Message};
use super::part::Part;
use crate::artifacts;

/// Where an emulated host has the parts.
pub const PARTS: &str = "/lab";

/// Where an emulated host tells.
const SERIAL: &str = "/dev/ttyS1";

/// What a case has at hand.
#[derive(Debug)]
pub struct Stage {
    parts: PathBuf,
    reporter: Reporter,
    figures: Mutex<Figures>,
}

/// Where messages go.
#[derive(Debug, Clone)]
pub struct Reporter(Arc<Mutex<File>>);

impl Reporter {
    /// Tells.
    pub fn tell(&self, message: &Message) {
        let line = serde_json::to_string(message).expect("messages have string keys") + "\n";
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever listened has gone: it has seen the end already.
        let _ = file.write_all(line.as_bytes());
    }
}

impl Stage {
    /// The path of a part.
    pub fn part(&self, part: Part) -> PathBuf {
        self.parts.join(part.file())
    }

    /// Where messages go.
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Says where the case is.
    pub fn step(&self, text: impl Into<String>) {
        self.reporter.tell(&Message::Step(text.into()));
    }

    /// Keeps a sample of what the case measures.
    pub fn sample(&self, name: &str, value: f64) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.entry(name.to_owned()).or_default().push(value);
    }

    /// Runs a tool of busybox; what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn busybox(&self, command: &str) -> String {
        let output = Command::new(self.part(Part::Busybox))
            .args(command.split_whitespace())
            .output()
            .expect("busybox is there");
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// What the program does.
pub fn main() -> Result<()> {
    if std::process::id() == 1 {
        let ended = init();
        if let Err(error) = &ended {
            eprintln!("lab: {error:#}");
        }
        // The first process never ends.
        reboot(RebootCommand::PowerOff)?;
        return ended;
    }
    let mut args = std::env::args_os().skip(1);
    let (Some(case), Some(parts)) = (args.next(), args.next()) else {
        bail!("usage: lab-inside CASE PARTS");
    };
    let stdout = rustix::io::dup(rustix::stdio::stdout())?;
    run(&case.to_string_lossy(), parts.into(), stdout.into())
}

/// As the first process.
fn init() -> Result<()> {
    leave_rootfs().context("another root")?;
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(place)?;
        mount(kind, place, kind, MountFlags::empty(), None).with_context(|| place)?;
    }
    let modules = Path::new("/modules");
    for name in fs::read_to_string(modules.join("order"))?.lines() {
        let file = File::open(modules.join(format!("{name}.ko")))?;
        finit_module(file, c"", 0).with_context(|| format!("module {name}"))?;
    }
    let line = fs::read_to_string("/proc/cmdline")?;
    let word = |name: &str| {
        let mut words = line.split_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let case = word("lab.case").context("the command line names no case")?;
    let serial = File::options().write(true).open(SERIAL)?;
    run(case, PARTS.into(), serial)
}

/// Puts the same files on top of the root that the kernel began with, which cannot be exchanged for
/// another (pivot_root(2)), as the jail of a monitor has to.
fn leave_rootfs() -> Result<()> {
    const AGAIN: &str = "/again";
    fs::create_dir_all(AGAIN)?;
    mount_bind("/", AGAIN)?;
    chdir(AGAIN)?;
    mount_move(".", "/")?;
    chroot(".")?;
    Ok(chdir("/")?)
}

fn run(name: &str, parts: PathBuf, told: File) -> Result<()> {
    let case = cases::find(name).with_context(|| format!("there is no case {name}"))?;
    let stage = Stage {
        parts,
        reporter: Reporter(Arc::new(Mutex::new(told))),
        figures: Mutex::default(),
    };
    artifacts::give_slicevmm(stage.part(Part::Monitor));
    stage.busybox("ifconfig lo 127.0.0.1 up");
    let verdict = match play(case, &stage) {
        Ok(()) => {
            let figures = stage.figures.lock().unwrap_or_else(PoisonError::into_inner);
            Message::Passed(figures.clone())
        }
        Err(reason) => Message::Failed(reason),
    };
    stage.reporter.tell(&verdict);
    let file = stage
        .reporter
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    // A serial port is slow; the host must not end before all has left it.
    let _ = rustix::termios::tcdrain(&*file);
    Ok(())
}

/// Runs the case; the first panic, if there was one.
fn play(case: &Case, stage: &Stage) -> Result<(), String> {
    let said: Arc<Mutex<Option<String>>> = Arc::default();
    let first = Arc::clone(&said);
    panic::set_hook(Box::new(move |panic| {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| panic.to_string());
    }));
    let ended = panic::catch_unwind(AssertUnwindSafe(|| (case.run)(stage)));
    let first = said.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (ended, first) {
        (Ok(()), None) => Ok(()),
        (_, first) => Err(first.unwrap_or_else(|| "it panicked".to_owned())),
    }
}
