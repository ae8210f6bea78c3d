//! Real jails, seen from outside through what the kernel tells of a process, and from inside by this
//! program again, told what to try.
#![allow(unsafe_code, reason = "the jailed process calls what it must not")]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use rustix::process::{Resource, Signal};

use super::*;

/// Says that this program is the jailed one: its environment is empty.
const INSIDE: &str = "inside-the-jail";

/// A jailed process that runs a test of this module, and what it was given.
struct Inmate {
    jailed: Jailed,
    /// What it waits for the end of before it does anything.
    go: Option<io::PipeWriter>,
    said: io::PipeReader,
}

impl Inmate {
    /// Starts the test of this name in a jail.
    fn start(test: &str, layers: Layers) -> Result<Self, JailError> {
        Self::start_seeing(test, layers, None)
    }

    /// The same, with a directory of the host to see.
    fn start_seeing(test: &str, layers: Layers, shown: Option<&Path>) -> Result<Self, JailError> {
        let (stdin, go) = io::pipe().expect("a pipe");
        let (said, stdout) = io::pipe().expect("a pipe");
        let program = File::open("/proc/self/exe").expect("this program");
        let nowhere = File::options()
            .write(true)
            .open("/dev/null")
            .expect("opened");
        let name = format!("jail::tests::{test}");
        let arguments = ["vmm", &name, "--exact", "--nocapture", "--test-threads=1"];
        let arguments = arguments.into_iter().chain(["--skip", INSIDE]);
        let arguments: Vec<_> = arguments.map(|arg| CString::new(arg).unwrap()).collect();
        let jailed = spawn(&Launch {
            program: program.as_fd(),
            arguments: &arguments,
            descriptors: &[stdin.as_fd(), stdout.as_fd(), nowhere.as_fd()],
            layers,
            limits: &[(Resource::Nofile, 64), (Resource::Core, 0)],
            shown,
        })?;
        Ok(Self {
            jailed,
            go: Some(go),
            said,
        })
    }

    /// A file of the process, as proc(5) shows it.
    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.jailed.pid)).expect("it lives")
    }

    /// A field of its `status`.
    fn status(&self, field: &str) -> String {
        let status = self.proc("status");
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(name, _)| *name == field).expect("a field");
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether it is in a namespace of its own.
    fn is_apart(&self, namespace: &str) -> bool {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("one");
        of(&self.jailed.pid.to_string()) != of("self")
    }

    /// Lets it do what it is there for: what it has said, line by line.
    fn finish(mut self) -> Vec<String> {
        self.go = None;
        let mut said = String::new();
        self.said.read_to_string(&mut said).expect("read");
        let ended = self.jailed.wait().expect("nobody else waits");
        assert!(ended.status.success(), "{said}");
        let lines = said.lines().filter_map(|line| line.strip_prefix("> "));
        lines.map(str::to_owned).collect()
    }
}

/// Whether this is the jailed process, which waits here until it is to begin.
fn is_inside() -> bool {
    let inside = std::env::args().any(|arg| arg == INSIDE);
    if inside {
        let _ = io::stdin().read(&mut [0]);
    }
    inside
}

fn tell(what: &str, result: io::Result<impl Sized>) {
    println!(
        "\n> {what}: {}",
        result.map_or_else(|e| e.kind().to_string(), |_| "done".into())
    );
}

#[test]
fn the_kernel_tells_of_every_layer() {
    if is_inside() {
        return;
    }
    let inmate = Inmate::start("the_kernel_tells_of_every_layer", Layers::all()).expect("jailed");
    let namespaces = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
    for namespace in namespaces {
        assert!(inmate.is_apart(namespace), "{namespace}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(inmate.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(inmate.status("NoNewPrivs"), "1");
    // SIGHUP, SIGINT and SIGTERM wait for whoever takes them.
    assert_eq!(inmate.status("SigBlk"), "0000000000004003");
    let root = format!("/proc/{}/root", inmate.jailed.pid);
    assert_eq!(fs::read_dir(&root).expect("read").count(), 0);
    let mounts = inmate.proc("mounts");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" tmpfs ro,nosuid,nodev,noexec"), "{mounts}");
    let limits = inmate.proc("limits");
    assert!(limits.contains("Max open files            64 "), "{limits}");
    let environment = inmate.proc("environ");
    assert!(environment.is_empty(), "{environment}");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", inmate.jailed.pid)).expect("read");
    assert_eq!(descriptors.count(), 3);
    let uid = format!("/proc/{}", inmate.jailed.pid);
    let uid = fs::metadata(uid).expect("it lives").uid();
    match gives_own_user() {
        true => assert!(uid >= 0x7000_0000, "{uid}"),
        false => assert_eq!(uid, rustix::process::geteuid().as_raw()),
    }
    inmate.finish();
}

#[test]
fn from_inside_there_is_nothing_to_get_hold_of() {
    if is_inside() {
        tell("read /proc", fs::read_dir("/proc"));
        tell("read the libraries", fs::read_dir("/usr"));
        tell(
            "read what is above the root",
            File::open("/../../etc/passwd"),
        );
        tell("make a file", File::create("/file"));
        tell("make a directory", fs::create_dir("/tmp"));
        let raw = |result: libc::c_int| match result {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        // SAFETY: the calls have valid arguments; what they would do if they were let concerns this
        // process, which has nothing to lose, and one that does not exist in its namespace.
        unsafe {
            tell("signal all others", raw(libc::kill(-1, libc::SIGTERM)));
            tell("become root", raw(libc::setuid(0)));
            let flags = libc::MS_REMOUNT | libc::MS_BIND;
            let (root, none) = (c"/".as_ptr(), std::ptr::null());
            tell(
                "remount",
                raw(libc::mount(none, root, none, flags, none.cast())),
            );
            tell(
                "rename the host",
                raw(libc::sethostname(c"mine".as_ptr(), 4)),
            );
        }
        let to = std::net::TcpStream::connect("127.0.0.1:22");
        tell("connect", to);
        println!("\n> number {}", std::process::id());
        return;
    }
    let name = "from_inside_there_is_nothing_to_get_hold_of";
    let inmate = Inmate::start(name, Layers::all()).expect("jailed");
    let expected = [
        "read /proc: entity not found",
        "read the libraries: entity not found",
        "read what is above the root: entity not found",
        "make a file: read-only filesystem or storage medium",
        "make a directory: read-only filesystem or storage medium",
        "signal all others: no such process",
        "become root: invalid input parameter",
        "remount: permission denied",
        "rename the host: permission denied",
        "connect: network unreachable",
        "number 1",
    ];
    let said = inmate.finish();
    // The numbers of some errors have no words of their own.
    for (said, expected) in said.iter().zip(expected) {
        assert!(
            said == expected || said.contains("uncategorized"),
            "{said}, not {expected}"
        );
    }
    assert_eq!(said.len(), expected.len(), "{said:?}");
}

#[test]
fn the_sockets_of_a_directory_can_be_connected_to_and_nothing_else_is_seen_or_changed() {
    const TEST: &str =
        "the_sockets_of_a_directory_can_be_connected_to_and_nothing_else_is_seen_or_changed";
    if is_inside() {
        let at = |name: &str| Path::new(SHOWN).join(name);
        tell("connect", UnixStream::connect(at("80.sock")));
        tell("list another", fs::read_dir(at("private")));
        tell("make a file", File::create(at("file")));
        tell("remove the socket", fs::remove_file(at("80.sock")));
        tell(
            "write to a file of its owner",
            File::options().append(true).open(at("owned")),
        );
        tell("make a file beside it", File::create("/file"));
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let socket = UnixListener::bind(directory.path().join("80.sock")).expect("bound");
    fs::write(directory.path().join("owned"), "").expect("written");
    // Somebody else's.
    let private = directory.path().join("private");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&private)
        .expect("made");
    if gives_own_user() {
        std::os::unix::fs::chown(&private, Some(4321), Some(4321)).expect("given away");
    }
    let inmate = Inmate::start_seeing(TEST, Layers::all(), Some(directory.path()));
    let said = inmate.expect("jailed").finish();
    socket.set_nonblocking(true).expect("set");
    socket.accept().expect("it has connected");
    assert_eq!(said[0], "connect: done");
    assert_eq!(said[1], "list another: permission denied");
    for said in &said[2..] {
        assert!(said.contains("read-only"), "{said}");
    }
    assert_eq!(said.len(), 6, "{said:?}");
}

#[test]
fn a_layer_that_is_done_without_is_missing_and_no_other() {
    const TEST: &str = "a_layer_that_is_done_without_is_missing_and_no_other";
    if is_inside() {
        return;
    }
    let weak: Layers = [Layer::Pid, Layer::Uts].into_iter().collect();
    let inmate = Inmate::start(TEST, Layers::all().without(weak)).expect("jailed");
    assert!(!inmate.is_apart("pid") && !inmate.is_apart("uts"));
    for namespace in ["user", "mnt", "net", "ipc", "cgroup"] {
        assert!(inmate.is_apart(namespace), "{namespace}");
    }
    assert_eq!(inmate.status("CapBnd"), "0000000000000000");
    inmate.finish();
}

#[test]
fn without_a_user_namespace_it_has_a_user_of_its_own_and_no_privileges() {
    const TEST: &str = "without_a_user_namespace_it_has_a_user_of_its_own_and_no_privileges";
    if is_inside() {
        return;
    }
    let layers = Layers::all().without([Layer::User].into_iter().collect());
    let inmate = match Inmate::start(TEST, layers) {
        Ok(inmate) => inmate,
        // Only root can do without.
        Err(JailError::Namespaces { .. }) if !gives_own_user() => return,
        Err(error) => panic!("{error}"),
    };
    let user = 0x7000_0000 + inmate.jailed.pid.as_raw_nonzero().get();
    assert_eq!(inmate.status("Uid"), format!("{user} {user} {user} {user}"));
    assert_eq!(inmate.status("Gid"), format!("{user} {user} {user} {user}"));
    assert_eq!(inmate.status("Groups"), "");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(inmate.status(set), "0000000000000000", "{set}");
    }
    inmate.finish();
}

#[test]
fn users_are_given_only_where_all_of_them_can_be() {
    assert!(spawn::has_all("         0          0 4294967295"));
    assert!(!spawn::has_all("0 1000 1"));
    assert!(!spawn::has_all("0 100000 65536"));
    assert!(!spawn::has_all("0 0 1879048193"));
    assert!(!spawn::has_all(""));
}

#[test]
fn a_program_that_is_none_is_told_and_leaves_no_process() {
    let file = tempfile::tempfile().expect("a file");
    let arguments = [CString::new("none").unwrap()];
    let error = spawn(&Launch {
        program: file.as_fd(),
        arguments: &arguments,
        descriptors: &[],
        layers: Layers::all(),
        limits: &[],
        shown: None,
    });
    let error = error.expect_err("nothing to start");
    assert!(
        matches!(
            error,
            JailError::Step {
                step: Step::Program,
                ..
            }
        ),
        "{error}"
    );
    // This thread's own: tests beside it have children, too.
    let children = fs::read_to_string("/proc/thread-self/children").expect("read");
    assert_eq!(children, "");
}

#[test]
fn a_jailed_process_can_be_killed_from_outside() {
    const TEST: &str = "a_jailed_process_can_be_killed_from_outside";
    if is_inside() {
        return;
    }
    let inmate = Inmate::start(TEST, Layers::all()).expect("jailed");
    rustix::process::pidfd_send_signal(&inmate.jailed.pidfd, Signal::KILL).expect("sent");
    let ended = inmate.jailed.wait().expect("nobody else waits");
    assert_eq!(ended.status.signal(), Some(libc::SIGKILL));
}
