//! An example that serves on a port, as a slice or as a process of this host: for tests that reach
//! both with the same client.
//!
//! A slice is started with `slicectl run`, has a card of its own and its port published on
//! 127.0.0.1; a process listens there itself. Either is killed when it is dropped.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::artifacts;
use crate::client::Client;
use crate::sliver::{new_place, run_dir, until};

/// The port that a slice serves on.
pub const PORT: u16 = 7000;

/// The address of a slice. Its gateway is [`HOST`].
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// The address of the host's side of a slice's card, in the namespace of that.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// As [`GUEST`].
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);

/// As [`HOST`].
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);

/// The flag that gives a slice a card with these addresses.
pub fn card() -> String {
    format!("tap,addr={GUEST}/24,gw={HOST},addr={GUEST_V6}/64,gw={HOST_V6}")
}

/// What an example is to run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A sliver of its image.
    Slice,
    /// A process of this host.
    Process,
}

/// A service to be.
#[derive(Debug, Clone)]
pub struct Service {
    example: &'static str,
    /// The flag before its port, if it serves on one.
    port_flag: Option<&'static str>,
    args: Vec<String>,
    vcpus: usize,
    flags: Vec<String>,
    cards: Vec<String>,
    publish: Vec<String>,
    disks: Vec<OsString>,
    place: Option<Arc<TempDir>>,
}

/// A running service.
#[derive(Debug)]
pub struct Running {
    child: Child,
    place: Arc<TempDir>,
    status: Option<ExitStatus>,
}

impl Service {
    /// The example that takes its port after `--port`.
    pub fn new(example: &'static str) -> Self {
        Self {
            port_flag: Some("--port"),
            publish: ["tcp", "udp"]
                .map(|protocol| format!("127.0.0.1:0:{PORT}/{protocol}"))
                .to_vec(),
            ..Self::program(example)
        }
    }

    /// An example that does something and ends.
    pub fn program(example: &'static str) -> Self {
        Self {
            example,
            port_flag: None,
            args: Vec::new(),
            vcpus: 1,
            flags: Vec::new(),
            cards: vec![card()],
            publish: Vec::new(),
            disks: Vec::new(),
            place: None,
        }
    }

    /// It takes its port after this flag.
    pub fn port_flag(mut self, flag: &'static str) -> Self {
        self.port_flag = Some(flag);
        self
    }

    /// With these arguments besides.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A slice with this many vCPUs.
    pub fn vcpus(mut self, vcpus: usize) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// A slice with these flags of `slicectl run` besides.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        self
    }

    /// A slice with these cards instead of the usual one.
    pub fn cards(mut self, cards: &[&str]) -> Self {
        self.cards = cards.iter().map(|&card| card.to_owned()).collect();
        self
    }

    /// A slice with these ports published instead of the usual ones.
    pub fn publish(mut self, ports: &[&str]) -> Self {
        self.publish = ports.iter().map(|&port| port.to_owned()).collect();
        self
    }

    /// With a file as its disk; for a slice, words may follow the path.
    pub fn disk(mut self, path: impl Into<OsString>) -> Self {
        self.disks.push(path.into());
        self
    }

    /// In the run directory of others.
    pub fn in_place(mut self, place: &Arc<TempDir>) -> Self {
        self.place = Some(Arc::clone(place));
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be started at all.
    pub fn run(self, kind: Kind) -> Output {
        let place = self.place();
        let mut command = self.command(kind, &place);
        command.stdin(Stdio::null());
        command.output().expect("the program starts")
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started at all.
    pub fn spawn(self, kind: Kind) -> Running {
        let place = self.place();
        let mut command = self.command(kind, &place);
        let output = |name| File::create(place.path().join(name)).expect("the output file is made");
        command
            .stdin(Stdio::null())
            .stdout(output("service.out"))
            .stderr(output("service.err"));
        Running {
            child: command.spawn().expect("the service starts"),
            place,
            status: None,
        }
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn start(self, kind: Kind) -> Running {
        let mut service = self.spawn(kind);
        until("the service listens", || {
            if let Some(status) = service.child.try_wait().expect("the service is our child") {
                panic!(
                    "it ended with {status}: {} {}",
                    service.output(),
                    service.errors()
                );
            }
            service.output().contains("listening on").then_some(())
        });
        service
    }

    fn place(&self) -> Arc<TempDir> {
        let place = self.place.clone();
        place.unwrap_or_else(|| Arc::new(new_place()))
    }

    fn command(&self, kind: Kind, place: &TempDir) -> Command {
        let (mut command, port) = match kind {
            Kind::Slice => (self.slice(place), PORT),
            Kind::Process => (self.process(), 0),
        };
        if let Some(flag) = self.port_flag {
            command.args([flag, &port.to_string()]);
        }
        command.args(&self.args);
        command
    }

    fn slice(&self, place: &TempDir) -> Command {
        artifacts::slicevmm();
        let mut command = Command::new(artifacts::slicectl());
        command
            .arg("run")
            .arg(artifacts::image(self.example))
            .arg("--no-build")
            .args(["--vcpus", &self.vcpus.to_string()])
            .args(&self.flags)
            .env("SLICEVISOR_RUN_DIR", run_dir(place));
        for (flag, words) in [("--net", &self.cards), ("--publish", &self.publish)] {
            for word in words {
                command.args([flag, word]);
            }
        }
        for disk in &self.disks {
            command.arg("--disk").arg(disk);
        }
        command.arg("--");
        command
    }

    fn process(&self) -> Command {
        let mut command = Command::new(artifacts::desktop(self.example));
        let disks = std::env::join_paths(&self.disks).expect("no path has a colon");
        command.env("SLICE_DISKS", disks);
        command
    }
}

impl Running {
    /// Where it serves streams.
    ///
    /// # Panics
    /// If it has not said where.
    pub fn tcp(&self) -> SocketAddr {
        self.address("tcp")
    }

    /// Where it serves datagrams.
    ///
    /// # Panics
    /// If it has not said where.
    pub fn udp(&self) -> SocketAddr {
        self.address("udp")
    }

    /// A connection to it.
    ///
    /// # Panics
    /// If it cannot be had.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp()).expect("the service takes connections");
        stream.set_nodelay(true).expect("a socket has options");
        stream
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        self.read("service.out")
    }

    /// What it has complained of, and what `slicectl` has said.
    pub fn errors(&self) -> String {
        self.read("service.err")
    }

    /// Connects to the control socket of the only sliver in its place.
    ///
    /// # Panics
    /// If there is none.
    pub fn control(&self) -> Client {
        until("the control socket answers", || {
            let mut dirs = fs::read_dir(run_dir(&self.place)).ok()?.flatten();
            dirs.find_map(|dir| Client::connect(&dir.path().join("control.sock")).ok())
        })
    }

    /// Process id of `slicectl`, or of the process that it is.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Process ids of the monitors that run in its place.
    ///
    /// # Panics
    /// If processes cannot be listed.
    pub fn monitors(&self) -> Vec<Pid> {
        monitors(self.place.path())
    }

    /// Does something in the network namespace of the slice's card; a process has none of its own.
    ///
    /// # Panics
    /// If the namespace cannot be entered.
    pub fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let namespace = namespace_of(self.pid());
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                if let Some(namespace) = namespace {
                    let kind = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(namespace.as_fd(), kind).expect("it can be entered");
                }
                action()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Kills the monitor, or the process, without any warning, and waits for the end of all.
    ///
    /// # Panics
    /// If there is nothing to kill.
    pub fn crash(&mut self) -> ExitStatus {
        let monitors = self.monitors();
        let victims = if monitors.is_empty() {
            vec![Pid::from_child(&self.child)]
        } else {
            monitors
        };
        for victim in victims {
            kill_process(victim, Signal::KILL).expect("it is there");
        }
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = until("the service ends", || {
            child.try_wait().expect("the service is our child")
        });
        self.status = Some(status);
        status
    }

    /// The address at which it is reached: published, or its own.
    fn address(&self, protocol: &str) -> SocketAddr {
        let published = format!("{protocol} port ");
        let (errors, output) = (self.errors(), self.output());
        let said = errors.split(&published).nth(1);
        let said = said.or_else(|| output.split("listening on [::]:").nth(1));
        let digits = said.and_then(|said| said.split(|c: char| !c.is_ascii_digit()).next());
        let port = digits.and_then(|digits| digits.parse().ok());
        let port: u16 = port.unwrap_or_else(|| panic!("no port is named: {errors:?} {output:?}"));
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.place.path().join(name)).expect("the output file is there");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            // The monitor is tied to it and ends, too.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The network namespace of that thread of a process which has left its own.
fn namespace_of(pid: u32) -> Option<File> {
    let own = fs::read_link("/proc/self/ns/net").expect("proc is mounted");
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it is there")
        .flatten();
    let namespaces = tasks.map(|task| task.path().join("ns/net"));
    let other = |path: &PathBuf| fs::read_link(path).is_ok_and(|namespace| namespace != own);
    let path = { namespaces }.find(other)?;
    Some(File::open(path).expect("a namespace can be opened"))
}

/// Process ids of the monitors whose files are in `place`.
///
/// # Panics
/// If processes cannot be listed.
pub fn monitors(place: &Path) -> Vec<Pid> {
    let place = place.to_str().expect("a test's path is UTF-8");
    let processes = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let monitor = |process: fs::DirEntry| {
        let line = fs::read_to_string(process.path().join("cmdline")).ok()?;
        let pid = process.file_name().to_str()?.parse().ok()?;
        (line.contains("slicevmm") && line.contains(place)).then(|| Pid::from_raw(pid))?
    };
    processes.filter_map(monitor).collect()
}
