//! A sliver for a test: described in a line, run as its own `slicevmm`, told apart by what it left.
//!
//! The monitor runs tied to the test process, so that a failing test leaves nothing running. Its
//! console and its own messages go to files in a temporary directory that dies with the sliver.

use std::fs::{self, File};
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tempfile::TempDir;
use vmm::control::proto::{Answer, Notice, Op, State, read_frame};
use vmm::exit::{ExitKind, ExitRecord};
use vmm::jail::Layers;
use vmm::launch::{Launch, Launched, launch};

use crate::artifacts;
use crate::client::Client;
pub use crate::ended::Ended;
use crate::guests;

/// How long a sliver of a test may run: long enough for a busy machine, short enough to see a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long what should happen at once may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(2);

/// A sliver to be.
#[derive(Debug, Clone)]
pub struct Sliver {
    spec: Value,
    /// Its files' names begin with this.
    files: String,
    tied: bool,
    clogged: bool,
    console: Option<Arc<OwnedFd>>,
    errors: Option<Arc<OwnedFd>>,
    input: Option<Arc<OwnedFd>>,
    taps: Vec<(usize, Arc<OwnedFd>)>,
    first: Option<fn()>,
    ledger: Option<PathBuf>,
    place: Option<Arc<TempDir>>,
    patience: Duration,
}

/// A running sliver. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    /// The record of one that could not be launched, otherwise.
    monitor: Result<Launched, ExitRecord>,
    _unread: Option<PipeReader>,
    name: String,
    files: String,
    place: Arc<TempDir>,
    patience: Duration,
}

impl Sliver {
    /// A sliver of the image at `path`: one vCPU, the default memory, a name of its own.
    pub fn new(image: impl AsRef<Path>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self {
            files: name.clone(),
            spec: json!({
                "version": 1,
                "name": name,
                "slice": "test_integration",
                "owner": "Integration Test",
                "contact": "test@example.org",
                "image": image.as_ref(),
            }),
            tied: true,
            clogged: false,
            console: None,
            errors: None,
            input: None,
            taps: Vec::new(),
            first: None,
            ledger: None,
            place: None,
            patience: PATIENCE,
        }
    }

    /// A sliver of the bare guest that does what `case` names.
    pub fn bare(case: &str) -> Self {
        Self::new(guests::bare()).args([case])
    }

    /// A sliver of the guest that is a kernel, told of its devices on its command line, that does
    /// what `case` names.
    pub fn kernel(case: &str) -> Self {
        Self::new(guests::metal())
            .field("kernel", json!({ "acpi": false }))
            .args([case])
    }

    /// A sliver of an example.
    pub fn example(name: &str) -> Self {
        Self::new(artifacts::image(name))
    }

    /// With these arguments.
    pub fn args<S: AsRef<str>>(self, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<String> = args
            .into_iter()
            .map(|arg| arg.as_ref().to_owned())
            .collect();
        self.field("args", args)
    }

    /// With this much memory.
    pub fn memory_mib(self, memory: u64) -> Self {
        self.field("memory_mib", memory)
    }

    /// With this many vCPUs.
    pub fn vcpus(self, vcpus: usize) -> Self {
        self.field("vcpus", vcpus)
    }

    /// With any field of the spec set to anything.
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.spec[name] = value.into();
        self
    }

    /// Not tied to this process: it leaves its exit record in its directory.
    pub fn untied(mut self) -> Self {
        self.tied = false;
        self
    }

    /// With its console in a pipe that nobody reads.
    pub fn clogged(mut self) -> Self {
        self.clogged = true;
        self
    }

    /// With its console going there.
    pub fn console_to(mut self, file: impl Into<OwnedFd>) -> Self {
        self.console = Some(Arc::new(file.into()));
        self
    }

    /// With the monitor's own messages going there.
    pub fn errors_to(mut self, file: impl Into<OwnedFd>) -> Self {
        self.errors = Some(Arc::new(file.into()));
        self
    }

    /// With its console's input coming from there.
    pub fn input_from(mut self, file: impl Into<OwnedFd>) -> Self {
        self.input = Some(Arc::new(file.into()));
        self
    }

    /// With this tap as its network card `card`.
    pub fn tap(mut self, card: usize, tap: impl Into<OwnedFd>) -> Self {
        self.taps.push((card, Arc::new(tap.into())));
        self
    }

    /// Launched by a thread that has done this first.
    pub fn launched_after(mut self, first: fn()) -> Self {
        self.first = Some(first);
        self
    }

    /// Sharing the processors with the slivers of this ledger.
    pub fn ledger(mut self, path: impl Into<PathBuf>) -> Self {
        self.ledger = Some(path.into());
        self
    }

    /// In the same run directory as others.
    pub fn in_place(mut self, place: &Arc<TempDir>) -> Self {
        self.place = Some(Arc::clone(place));
        self
    }

    /// That may take longer than a test's usually do.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it. What cannot be launched has ended already.
    ///
    /// # Panics
    /// If its files cannot be made.
    pub fn spawn(mut self) -> Running {
        let Some(first) = self.first.take() else {
            return self.spawn_here();
        };
        let thread = std::thread::spawn(move || {
            first();
            self.spawn_here()
        });
        thread.join().expect("the thread did not panic")
    }

    fn spawn_here(self) -> Running {
        let place = self.place.unwrap_or_else(|| Arc::new(new_place()));
        let name = self.spec["name"].as_str().unwrap_or("unnamed").to_owned();
        let output = |kind, elsewhere: Option<Arc<OwnedFd>>| match elsewhere {
            Some(file) => file.try_clone().expect("a descriptor is copied"),
            None => File::create(output_path(&place, &self.files, kind))
                .expect("the output file is made")
                .into(),
        };
        let (console, unread) = match self.clogged {
            true => {
                let (unread, console) = io::pipe().expect("a pipe is made");
                (console.into(), Some(unread))
            }
            false => (output("console", self.console), None),
        };
        let errors = output("errors", self.errors);
        let taps = self.taps.iter().map(|(card, tap)| (*card, tap.as_fd()));
        let launched = launch(Launch {
            program: artifacts::slicevmm(),
            spec: &self.spec.to_string(),
            run_dir: &run_dir(&place),
            ledger: self.ledger.as_deref(),
            core: None,
            taps: taps.collect(),
            console: console.as_fd(),
            input: self.input.as_ref().map(|input| input.as_fd()),
            errors: errors.as_fd(),
            tied: self.tied,
            layers: Layers::all(),
        });
        let monitor = launched.map_err(|error| {
            // As a monitor's own words.
            let _ = writeln!(File::from(errors), "slicevmm: {error}");
            ExitRecord::of_error(&name, "", error.to_string())
        });
        Running {
            monitor,
            _unread: unread,
            name,
            files: self.files,
            place,
            patience: self.patience,
        }
    }

    /// Starts it and waits until it runs.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn spawn_running(self) -> Running {
        let sliver = self.spawn();
        sliver.control().wait_for(State::Running);
        sliver
    }

    /// Runs it to its end.
    pub fn run(self) -> Ended {
        self.spawn().wait()
    }
}

impl Running {
    /// Process id of the monitor.
    ///
    /// # Panics
    /// If it could not be launched.
    pub fn pid(&self) -> u32 {
        self.monitor().pid()
    }

    fn monitor(&self) -> &Launched {
        match &self.monitor {
            Ok(monitor) => monitor,
            Err(record) => panic!("it was not launched: {}", record.exit.detail.message),
        }
    }

    /// Its status, if it has ended: as of an error, if it could not even be launched.
    fn status(&mut self) -> Option<ExitStatus> {
        match &mut self.monitor {
            Ok(monitor) => {
                let ended = monitor.try_wait().expect("the monitor is our child");
                ended.map(|ended| ended.status)
            }
            Err(record) => Some(ExitStatus::from_raw(i32::from(record.exit.status) << 8)),
        }
    }

    /// The sliver's own directory.
    pub fn dir(&self) -> PathBuf {
        run_dir(&self.place).join(&self.name)
    }

    /// Connects to its control socket, waiting for the socket to appear.
    ///
    /// # Panics
    /// If it does not appear in time.
    pub fn control(&self) -> Client {
        let path = self.dir().join("control.sock");
        until("the control socket answers", || Client::connect(&path).ok())
    }

    /// The same, unless it has ended.
    ///
    /// # Panics
    /// If neither happens in time.
    pub fn control_if_it_runs(&mut self) -> Option<Client> {
        let path = self.dir().join("control.sock");
        until("the control socket answers", || {
            match (Client::connect(&path), self.status()) {
                (Ok(client), _) => Some(Some(client)),
                (Err(_), Some(_)) => Some(None),
                (Err(_), None) => None,
            }
        })
    }

    /// Waits until the console holds `text`.
    ///
    /// # Panics
    /// If that does not happen in time.
    pub fn wait_for_console(&self, text: &str) {
        let what = format!("the console shows {text:?}");
        until_within(self.patience, &what, || {
            self.console().contains(text).then_some(())
        });
    }

    /// What the guest has printed so far.
    pub fn console(&self) -> String {
        read_output(&self.place, &self.files, "console")
    }

    /// What the monitor has said so far.
    pub fn errors(&self) -> String {
        read_output(&self.place, &self.files, "errors")
    }

    /// Sends the monitor a signal.
    ///
    /// # Panics
    /// If it is no longer there.
    pub fn signal(&self, signal: Signal) {
        self.monitor().signal(signal);
    }

    /// Closes the tie.
    pub fn cut_tie(&mut self) {
        if let Ok(monitor) = &mut self.monitor {
            monitor.cut();
        }
    }

    /// Asserts that a pause is answered soon.
    #[track_caller]
    pub fn assert_pauses(&self) {
        let mut control = self.control();
        let asked = Instant::now();
        assert_eq!(control.ask(Op::Pause), Ok(Answer::Done));
        assert!(asked.elapsed() < SOON, "paused in {:?}", asked.elapsed());
        assert_eq!(control.status().state, State::Paused);
    }

    /// Asserts that it runs, can be asked and can be stopped.
    #[track_caller]
    pub fn assert_well(self) {
        let mut control = self.control();
        assert_eq!(control.status().state, State::Running);
        let reason = "test".to_owned();
        assert_eq!(control.ask(Op::Stop { reason }), Ok(Answer::Done));
        let ended = self.wait_within(SOON);
        ended.assert_end(ExitKind::Stopped, 143);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time; it is killed then.
    pub fn wait(self) -> Ended {
        let patience = self.patience;
        self.wait_within(patience)
    }

    /// The same with less patience.
    ///
    /// # Panics
    /// If it does not end in time; it is killed then.
    pub fn wait_within(mut self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.status() {
                Some(status) => break status,
                None if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                None => panic!(
                    "{} hangs; its console: {:?}; its messages: {:?}",
                    self.name,
                    self.console(),
                    read_output(&self.place, &self.files, "errors"),
                ),
            }
        };
        Ended {
            record: self.record(),
            console: self.console(),
            errors: read_output(&self.place, &self.files, "errors"),
            status,
        }
    }

    fn record(&self) -> Option<ExitRecord> {
        let monitor = match &self.monitor {
            Ok(monitor) => monitor,
            Err(record) => return Some(record.clone()),
        };
        if let Some(tie) = monitor.tie() {
            tie.set_read_timeout(Some(self.patience))
                .expect("a socket takes a timeout");
            while let Some(notice) = read_frame(tie).expect("the tie carries whole frames") {
                if let Notice::Ended(record) = notice {
                    return Some(*record);
                }
            }
        }
        let text = fs::read(self.dir().join("exit.json")).ok()?;
        Some(serde_json::from_slice(&text).expect("the exit record is one"))
    }
}

/// A temporary directory for one or several slivers.
///
/// # Panics
/// If it cannot be made.
pub fn new_place() -> TempDir {
    let place = TempDir::with_prefix("slicevisor-test-").expect("a temporary directory is made");
    fs::create_dir(run_dir(&place)).expect("the run directory is made");
    place
}

/// The run directory in a place.
pub fn run_dir(place: &TempDir) -> PathBuf {
    place.path().join("run")
}

/// Tries until it works.
///
/// # Panics
/// If it does not work in time.
pub fn until<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, attempt)
}

/// The same with more or less patience.
///
/// # Panics
/// If it does not work in time.
pub fn until_within<T>(
    patience: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn output_path(place: &TempDir, files: &str, kind: &str) -> PathBuf {
    place.path().join(format!("{files}.{kind}"))
}

fn read_output(place: &TempDir, files: &str, kind: &str) -> String {
    match fs::read(output_path(place, files, kind)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => panic!("the {kind} of {files}: {error}"),
    }
}

/// Now, by the clock that all processes share, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
