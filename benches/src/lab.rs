//! Where experiments are made: what they run, how often, in what order, and how they tell of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io, thread};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::{Value, json};
use tempfile::TempDir;

use integration::artifacts;
use integration::client::Client;
use integration::sliver::monotonic_ns;
use vmm::control::proto::{Notice, Status};
use vmm::exit::ExitRecord;
use vmm::jail::Layers;
use vmm::launch::{Launch, Launched, launch};

use crate::process::{self, Run, Started};
use crate::stats::{Quad, Rng};

/// The bench of a run.
pub(crate) struct Lab {
    /// Pairs of each comparison of latencies; even.
    pub(crate) pairs: usize,
    /// Whether figures may be rough.
    pub(crate) quick: bool,
    rng: Rng,
    place: TempDir,
    /// For the ledger, which lies in memory.
    memory: TempDir,
}

/// Two runs of ours and two of the peer, whatever a run gives.
#[derive(Debug)]
pub(crate) struct QuadOf<T> {
    ours: [T; 2],
    peer: [T; 2],
}

impl<T> QuadOf<T> {
    /// One number of each run.
    pub(crate) fn map(&self, number: impl Fn(&T) -> f64) -> Quad {
        self.map_each(&number, &number)
    }

    /// One number of each run, another for the peer's.
    pub(crate) fn map_each(&self, ours: impl Fn(&T) -> f64, peer: impl Fn(&T) -> f64) -> Quad {
        Quad {
            ours: [ours(&self.ours[0]), ours(&self.ours[1])],
            peer: [peer(&self.peer[0]), peer(&self.peer[1])],
        }
    }
}

impl Lab {
    /// A bench that makes `pairs` pairs per comparison, rounded up to whole quads.
    pub(crate) fn new(pairs: usize, quick: bool, seed: u64) -> Result<Self> {
        let place = TempDir::with_prefix("slicevisor-bench-")?;
        fs::create_dir(place.path().join("run"))?;
        Ok(Self {
            pairs: pairs.max(2).next_multiple_of(2),
            quick,
            rng: Rng::new(seed),
            place,
            memory: TempDir::with_prefix_in("slicevisor-bench-", "/dev/shm")?,
        })
    }

    /// Runs ours and the peer `pairs` times each, interleaved A B B A or B A A B by the toss of a
    /// coin. Each is run once before, unmeasured, so that a mistake shows before an hour has gone.
    pub(crate) fn interleave<T>(
        &mut self,
        what: &str,
        pairs: usize,
        mut ours: impl FnMut(&Self) -> Result<T>,
        mut peer: impl FnMut(&Self) -> Result<T>,
    ) -> Result<Vec<QuadOf<T>>> {
        ours(self).with_context(|| format!("{what}: ours"))?;
        peer(self).with_context(|| format!("{what}: the peer"))?;
        let quads = pairs.div_ceil(2);
        let mut done = Vec::with_capacity(quads);
        for quad in 0..quads {
            progress(&format!("{what}: {} of {} pairs", 2 * quad, 2 * quads));
            done.push(if self.rng.coin() {
                let first = ours(self)?;
                let peer = [peer(self)?, peer(self)?];
                QuadOf {
                    ours: [first, ours(self)?],
                    peer,
                }
            } else {
                let first = peer(self)?;
                let ours = [ours(self)?, ours(self)?];
                QuadOf {
                    ours,
                    peer: [first, peer(self)?],
                }
            });
        }
        progress_done(&format!("{what}: {} pairs", 2 * quads));
        Ok(done)
    }

    /// A path in the bench's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Writes the spec of a sliver called `name`.
    pub(crate) fn spec(&self, name: &str, image: &Path, args: &[&str]) -> Result<PathBuf> {
        self.spec_with(name, image, args, json!({}))
    }

    /// Writes the spec of a sliver called `name`, with these fields besides the usual ones.
    pub(crate) fn spec_with(
        &self,
        name: &str,
        image: &Path,
        args: &[&str],
        fields: Value,
    ) -> Result<PathBuf> {
        let mut spec = json!({
            "version": 1,
            "name": name,
            "slice": "bench_slivers",
            "owner": "Benchmark",
            "contact": "bench@example.org",
            "image": image,
            "args": args,
        });
        if let (Some(spec), Value::Object(fields)) = (spec.as_object_mut(), fields) {
            spec.extend(fields);
        }
        let path = self.path(&format!("{name}.json"));
        fs::write(&path, spec.to_string())?;
        Ok(path)
    }

    /// How the sliver called `name` does.
    pub(crate) fn status(&self, name: &str) -> Result<Status> {
        let socket = self.path("run").join(name).join("control.sock");
        Ok(Client::connect(&socket)?.status())
    }

    /// Does something so many times, after once unmeasured.
    pub(crate) fn repeat<T>(
        &self,
        what: &str,
        times: usize,
        mut run: impl FnMut(&Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        run(self).with_context(|| what.to_owned())?;
        let mut done = Vec::with_capacity(times);
        for time in 0..times {
            progress(&format!("{what}: {time} of {times}"));
            done.push(run(self)?);
        }
        progress_done(&format!("{what}: {times} runs"));
        Ok(done)
    }

    /// Starts a sliver tied to this process.
    pub(crate) fn start_sliver(&self, spec: &Path) -> Result<Sliver> {
        self.start(spec, Surroundings::USUAL)
    }

    /// Starts a sliver tied to this process, not alone in the world.
    pub(crate) fn start(&self, spec: &Path, surroundings: Surroundings) -> Result<Sliver> {
        if !surroundings.namespaced {
            return self.launch(spec, surroundings);
        }
        // What the host counts of a device is shown by the file system of this thread's network.
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                see_own_devices()?;
                self.launch(spec, surroundings)
            });
            there.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn launch(&self, spec: &Path, surroundings: Surroundings) -> Result<Sliver> {
        let text = fs::read_to_string(spec)?;
        let (stderr, errors) = io::pipe()?;
        let (stdout, console) = io::pipe()?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let ledger = self.memory.path().join("ledger");
        let since = monotonic_ns();
        let monitor = launch(Launch {
            program: artifacts::slicevmm(),
            spec: &text,
            run_dir: &self.path("run"),
            ledger: surroundings.rivals.then_some(&ledger),
            core: None,
            taps: Vec::new(),
            console: match surroundings.unheard {
                true => null.as_fd(),
                false => console.as_fd(),
            },
            input: Some(null.as_fd()),
            errors: errors.as_fd(),
            tied: true,
            layers: Layers::all().without(surroundings.without),
        })?;
        let stdout = File::from(OwnedFd::from(stdout));
        Ok(Sliver {
            started: process::launched(
                monitor,
                (!surroundings.unheard).then_some(stdout),
                OwnedFd::from(stderr).into(),
                since,
            ),
        })
    }

    /// Runs a sliver that ends itself with status 0.
    pub(crate) fn run_sliver(&self, spec: &Path) -> Result<(Run, ExitRecord)> {
        self.start_sliver(spec)?.finish(0)
    }
}

/// Has this thread see the devices of its own network namespace in `/sys`.
#[allow(unsafe_code, reason = "gives this thread a root of its own")]
fn see_own_devices() -> Result<()> {
    // SAFETY: file descriptors stay shared, and no code relies on its threads having one root.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }?;
    mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None)?;
    Ok(())
}

/// What is around a sliver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings {
    /// Other slivers, which it shares the processors with.
    pub(crate) rivals: bool,
    /// Nobody reads what its guest prints.
    pub(crate) unheard: bool,
    /// It sees the devices of the calling thread's network namespace.
    pub(crate) namespaced: bool,
    /// Layers that its monitor's jail does without.
    pub(crate) without: Layers,
}

impl Surroundings {
    /// Nothing but what every sliver has.
    pub(crate) const USUAL: Self = Self {
        rivals: false,
        unheard: false,
        namespaced: false,
        without: Layers::NONE,
    };
}

/// A running sliver.
pub(crate) struct Sliver {
    started: Started,
}

impl Sliver {
    /// Process id of its monitor.
    pub(crate) fn pid(&self) -> u32 {
        self.started.pid()
    }

    /// Waits until its guest has printed something.
    pub(crate) fn wait_for_output(&self) -> Result<()> {
        self.started.wait_for_output()
    }

    /// Ends it by closing the tie.
    pub(crate) fn stop(mut self) -> Result<Run> {
        if let Some(monitor) = self.started.monitor() {
            monitor.cut();
        }
        self.started.finish()?.expect("slicevmm", 143)
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self, code: i32) -> Result<(Run, ExitRecord)> {
        let run = self.started.wait()?.expect("slicevmm", code)?;
        while let Some(notice) = self.started.monitor().and_then(Launched::notice) {
            if let Notice::Ended(record) = notice {
                return Ok((run, *record));
            }
        }
        bail!("slicevmm left no exit record: {}", run.stderr.trim())
    }
}

/// Runs a program that takes no part in the comparison's subject: no input, expected status 0.
pub(crate) fn run_program<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S]) -> Result<Run> {
    let mut command = Command::new(program.as_ref());
    command.args(args).stdin(Stdio::null());
    let since = monotonic_ns();
    process::run(command, since)?.expect(&program.as_ref().to_string_lossy(), 0)
}

/// Builds a file of this package with the C compiler.
pub(crate) fn cc(lab: &Lab, source: &str, name: &str, flags: &[&str]) -> Result<PathBuf> {
    let into = lab.path(name);
    let mut command = Command::new("cc");
    command
        .args(flags)
        .arg("-o")
        .arg(&into)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
    let status = command
        .status()
        .context("cc does not run (`apt-get install -y --no-install-recommends gcc libc6-dev`)")?;
    ensure!(status.success(), "{command:?} failed, see above");
    Ok(into)
}

/// The floor: see its source.
pub(crate) fn floor(lab: &Lab) -> Result<PathBuf> {
    cc(lab, "floor/floor.c", "floor", &["-O2", "-static"])
}

/// The image whose guest ends at once: see its source.
pub(crate) fn exit_image(lab: &Lab) -> Result<PathBuf> {
    let version = format!("-DABI_VERSION={}", slice_abi::ABI_VERSION);
    let flags = [
        version.as_str(),
        "-nostdlib",
        "-static",
        "-Wl,-Ttext-segment=0x200000",
        "-Wl,-z,separate-code",
        "-Wl,-z,max-page-size=4096",
        "-Wl,--build-id=none",
        "-Wa,-mx86-used-note=no",
    ];
    cc(lab, "guests/exit.S", "exit", &flags)
}

/// Nanoseconds as milliseconds.
pub(crate) fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Shows where the run is, on standard error, in one line that the next one overwrites.
pub(crate) fn progress(text: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        // Progress that cannot be shown is not worth failing for.
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
    }
}

/// Says on standard error that a part is done.
pub(crate) fn progress_done(text: &str) {
    progress("");
    eprintln!("{text}");
}
