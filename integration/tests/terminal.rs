//! `slicectl run` and `top` on a terminal: who gets the keys, and that the terminal is afterwards as it
//! was.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use integration::sliver::until;
use integration::{artifacts, needs_kvm};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use tempfile::TempDir;

/// A `slicectl` with a terminal and a run directory of its own.
struct Session {
    outside: File,
    inside: OwnedFd,
    before: Termios,
    shown: Arc<Mutex<Vec<u8>>>,
    child: Child,
    _place: TempDir,
}

impl Session {
    /// Runs the example that says lines back as sliver `ada`, which gets every key, and waits until
    /// it reads them.
    fn start(detach_keys: &str) -> Self {
        artifacts::slicevmm();
        artifacts::image("lines");
        let session = Self::begin(&[
            "run",
            "lines",
            "--no-build",
            "--name",
            "ada",
            "--console",
            "stdio",
            "--detach-keys",
            detach_keys,
        ]);
        session.wait_for("ready");
        session
    }

    /// `slicectl` with these arguments.
    fn begin(args: &[&str]) -> Self {
        let place = TempDir::with_prefix("slicevisor-test-").expect("a directory is made");
        let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal is made");
        grantpt(&outside).expect("granted");
        unlockpt(&outside).expect("unlocked");
        let name = ptsname(&outside, Vec::new()).expect("it has a name");
        let options = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let inside = open(name, options, Mode::empty()).expect("it opens");
        let stdio = || inside.try_clone().expect("another descriptor");
        let before = tcgetattr(&inside).expect("a terminal");
        // A session's leader, whose group gets the terminal's signals.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(artifacts::slicectl())
            .args(args)
            .current_dir(artifacts::workspace())
            .env("SLICEVISOR_RUN_DIR", place.path().join("run"))
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .expect("setsid starts");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let outside = File::from(outside);
        let session = Self {
            before,
            outside,
            inside,
            shown,
            child,
            _place: place,
        };
        session.keep_what_is_shown();
        session
    }

    fn keep_what_is_shown(&self) {
        let mut outside = self.outside.try_clone().expect("another descriptor");
        let shown = Arc::clone(&self.shown);
        thread::spawn(move || {
            let mut piece = [0; 1024];
            while let Ok(len @ 1..) = outside.read(&mut piece) {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.extend(&piece[..len]);
            }
        });
    }

    fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    fn wait_for(&self, text: &str) {
        until(&format!("{text:?} is shown"), || {
            self.shown().contains(text).then_some(())
        });
    }

    fn type_keys(&self, keys: &str) {
        (&self.outside).write_all(keys.as_bytes()).expect("typed");
    }

    fn is_as_before(&self) -> bool {
        let now = tcgetattr(&self.inside).expect("a terminal");
        now.local_modes == self.before.local_modes && now.input_modes == self.before.input_modes
    }

    fn wait(&mut self) -> ExitStatus {
        until("slicectl ends", || self.child.try_wait().expect("a child"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_guest_gets_every_key_until_the_detach_keys_and_then_control_c_ends_it() {
    needs_kvm!();
    let mut session = Session::start("ctrl-a,d");
    assert!(
        session
            .shown()
            .contains("ada gets every key until Ctrl-A d")
    );
    let modes = tcgetattr(&session.inside).expect("a terminal").local_modes;
    assert!(!modes.intersects(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO));
    session.type_keys("a\x01b\x03\x1c\n");
    session.wait_for("1 a\x01b\x03\x1c\r\n");
    session.type_keys("last\n\x01");
    session.wait_for("2 last\r\n");
    session.type_keys("d");
    session.wait_for("ada gets no more keys and goes on");
    assert!(session.is_as_before());
    assert!(session.child.try_wait().expect("a child").is_none());
    session.type_keys("\x03");
    assert_eq!(session.wait().code(), Some(143), "{}", session.shown());
    session.wait_for("ada: stopped: ");
}

#[test]
fn the_terminal_is_as_before_when_the_guest_has_ended() {
    needs_kvm!();
    let mut session = Session::start("ctrl-]");
    session.type_keys("end\n");
    assert_eq!(session.wait().code(), Some(0), "{}", session.shown());
    assert!(session.is_as_before());
}

#[test]
fn the_terminal_is_as_before_when_a_signal_has_ended_slicectl() {
    needs_kvm!();
    for signal in [Signal::TERM, Signal::HUP, Signal::QUIT] {
        let mut session = Session::start("none");
        assert!(session.shown().contains("slicectl stop ada ends it"));
        session.type_keys("\x1dstill the guest's\n");
        session.wait_for("1 \x1dstill the guest's");
        let slicectl = Pid::from_child(&session.child);
        kill_process(slicectl, signal).expect("it is there");
        assert_eq!(session.wait().code(), Some(143), "{}", session.shown());
        assert!(session.is_as_before(), "after {signal:?}");
    }
}

#[test]
fn top_sorts_by_keys_and_leaves_the_terminal_as_it_was() {
    let mut session = Session::begin(&["top", "--interval", "100ms"]);
    session.wait_for("0 slivers");
    session.wait_for("CPU%*");
    session.type_keys("m");
    session.wait_for("MEM*");
    session.type_keys(">");
    session.wait_for("RX/s*");
    assert!(!session.is_as_before());
    session.type_keys("q");
    assert_eq!(session.wait().code(), Some(0), "{}", session.shown());
    assert!(session.is_as_before());
    // The screen that was there before, and its cursor.
    session.wait_for("\x1b[?25h\x1b[?1049l");
}

#[test]
fn top_leaves_the_terminal_as_it_was_when_a_signal_ends_it() {
    let mut session = Session::begin(&["top"]);
    session.wait_for("0 slivers");
    kill_process(Pid::from_child(&session.child), Signal::TERM).expect("it is there");
    assert_eq!(session.wait().code(), Some(0), "{}", session.shown());
    assert!(session.is_as_before());
}
