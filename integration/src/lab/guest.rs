//! A Linux guest on the stage of a case: what is typed at its console is waited for.
//!
//! Its first program is `guests/linux/init`, unless the case boots something else.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::inside::{Reporter, Stage};
use super::message::Message;
use super::part::Part;
use crate::client::Client;
use crate::sliver::{Ended, Running, Sliver};

/// How long a guest may take for anything: under emulation it boots in 6 to 15 s.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What `init` prints before anything else.
pub const INIT: &str = "lab: init";

/// What it prints when it serves.
pub const READY: &str = "lab: ready";

/// A Linux sliver of `kernel` whose init becomes what `role` says.
pub fn linux(stage: &Stage, kernel: Part, role: &str) -> Sliver {
    let how = json!({ "initrd": stage.part(Part::Initrd), "append": append(role) });
    legacy(stage, kernel, how)
}

/// What is appended to the command line of a Linux whose init becomes what `role` says. It keeps its
/// tick: QEMU's emulation of SVM may let an interrupt in between `sti` and `hlt`, and a guest that
/// waited for that one would sleep on.
pub fn append(role: &str) -> String {
    format!("quiet nohz=off lab={role}")
}

/// A sliver of any kernel; `how` is the `kernel` of its spec.
pub fn legacy(stage: &Stage, kernel: Part, how: Value) -> Sliver {
    Sliver::new(stage.part(kernel))
        .field("kernel", how)
        .memory_mib(256)
        .patience(PATIENCE)
}

/// A running guest. Dropped, it is killed.
#[derive(Debug)]
pub struct Guest {
    running: Option<Running>,
    reporter: Reporter,
    input: PipeWriter,
    console: Arc<Console>,
    /// How much of the console has been looked at.
    seen: usize,
}

/// What a guest has printed.
#[derive(Debug, Default)]
struct Console {
    text: Mutex<String>,
    grew: Condvar,
}

impl Guest {
    /// Starts it.
    ///
    /// # Panics
    /// If the monitor cannot be started.
    pub fn start(stage: &Stage, sliver: Sliver) -> Self {
        let (typed, input) = pipe().expect("a pipe is made");
        let (printed, output) = pipe().expect("a pipe is made");
        let reporter = stage.reporter().clone();
        let console = Arc::new(Console::default());
        let (to, also_to) = (Arc::clone(&console), reporter.clone());
        thread::spawn(move || read(printed, &to, &also_to));
        let sliver = sliver
            .field("console", json!({ "input": true }))
            .input_from(typed)
            .console_to(output);
        Self {
            running: Some(sliver.spawn()),
            reporter,
            input,
            console,
            seen: 0,
        }
    }

    /// Starts one whose init serves, and waits until it does.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn serve(stage: &Stage, sliver: Sliver) -> Self {
        let mut guest = Self::start(stage, sliver);
        guest.expect(READY);
        guest
    }

    /// Waits for this text on the console, after what was seen before; what comes before it.
    ///
    /// # Panics
    /// If it does not come.
    pub fn expect(&mut self, text: &str) -> String {
        let (before, found) = self.look_for(text);
        assert!(found, "waited in vain for {text:?} after {before:?}");
        before
    }

    fn look_for(&mut self, wanted: &str) -> (String, bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.console.text();
        loop {
            if let Some((before, _)) = text[self.seen..].split_once(wanted) {
                self.seen += before.len() + wanted.len();
                return (before.to_owned(), true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return (text[self.seen..].to_owned(), false);
            }
            let waited = self.console.grew.wait_timeout(text, left);
            text = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Types a line.
    ///
    /// # Panics
    /// If the monitor takes no input.
    pub fn type_line(&mut self, line: &str) {
        let typed = self.input.write_all(format!("{line}\n").as_bytes());
        typed.expect("the monitor reads what is typed");
    }

    /// Has a serving guest run a command; its status and what it printed.
    ///
    /// # Panics
    /// If it is not done in time.
    pub fn attempt(&mut self, command: &str) -> (u8, String) {
        self.type_line(command);
        let output = self.expect("lab: status ");
        let status = self.expect("\n");
        let status = status.trim().parse();
        (status.expect("a status is a number"), output)
    }

    /// The same of a command that succeeds.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> String {
        let (status, output) = self.attempt(command);
        assert_eq!(status, 0, "{command}: {output}");
        output
    }

    /// Its control socket.
    pub fn control(&self) -> Client {
        self.running().control()
    }

    /// Its monitor.
    pub fn running(&self) -> &Running {
        self.running
            .as_ref()
            .expect("it is there until it is waited for")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(mut self) -> Ended {
        let running = self.running.take().expect("it is waited for once");
        let mut ended = running.wait();
        ended.console = self.console.text().clone();
        if !ended.errors.is_empty() {
            self.reporter.tell(&Message::Output(ended.errors.clone()));
        }
        ended
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            self.reporter.tell(&Message::Output(running.errors()));
        }
    }
}

impl Console {
    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes in what a guest prints until its monitor is gone.
fn read(mut from: PipeReader, to: &Console, also_to: &Reporter) {
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        let text = String::from_utf8_lossy(&chunk[..length]).into_owned();
        to.text().push_str(&text);
        to.grew.notify_all();
        also_to.tell(&Message::Output(text));
    }
}
