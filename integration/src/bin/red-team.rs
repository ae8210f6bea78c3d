//! What somebody could try who has taken over a monitor. It is put in the place of the real one, takes
//! everything over as that does, and then makes the one attempt that the arguments of its guest name
//! instead of running a guest. It says on the console what came of it.
#![allow(
    unsafe_code,
    reason = "makes the system calls that nothing offers who means well"
)]

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::ExitCode;

use vmm::given::{Given, Hello, Role};
use vmm::inherited;
use vmm::launch::TIE;
use vmm::sliver::Sliver;
use vmm::spec::SliverSpec;

/// More than any monitor needs of anything that is counted.
const MANY: usize = 2000;

fn main() -> ExitCode {
    let tie = UnixStream::from(inherited::take(TIE).expect("the tie is there"));
    let (mut given, hello) = Given::receive(&tie).expect("handed in");
    let spec = read_spec(&mut given);
    let mut console = copy(&mut given, Role::Console);
    let numbers = Numbers::of(&mut given, &hello);
    let _sliver = Sliver::take_over(given, &hello, tie).expect("taken over");
    let attempt = spec.args().first().expect("an attempt is named").clone();
    let told = match numbers.attempt(&attempt) {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("blocked: {error}"),
    };
    writeln!(console, "{told}").expect("told");
    ExitCode::SUCCESS
}

fn read_spec(given: &mut Given) -> SliverSpec {
    let spec = given.file(Role::Spec).expect("handed in");
    let mut text = vec![0; spec.metadata().expect("a file").len() as usize];
    spec.read_exact_at(&mut text, 0).expect("read");
    given.add(Role::Spec, spec);
    SliverSpec::parse(&text).expect("a spec")
}

fn copy(given: &mut Given, role: Role) -> File {
    let file = given.file(role).expect("handed in");
    let copy = file.try_clone().expect("copied");
    given.add(role, file);
    copy
}

/// What was handed in, by number, as somebody finds it who looks at all that is open.
struct Numbers {
    lock: RawFd,
    disk: Option<RawFd>,
    reader: Option<RawFd>,
    tie: RawFd,
    pid: u32,
}

impl Numbers {
    fn of(given: &mut Given, hello: &Hello) -> Self {
        let mut number = |role| {
            let taken = given.take(role)?;
            let number = taken.as_raw_fd();
            given.add(role, taken);
            Some(number)
        };
        Self {
            lock: number(Role::Lock).expect("handed in"),
            disk: number(Role::Disk(0)),
            reader: number(Role::LedgerReader),
            tie: TIE,
            pid: hello.pid,
        }
    }

    #[allow(clippy::too_many_lines, reason = "a table")]
    fn attempt(&self, name: &str) -> io::Result<()> {
        match name {
            "open a file of the host" => File::open("/etc/passwd").map(drop),
            "open what is above the root" => File::open("/../../../etc/passwd").map(drop),
            "open a directory of the host by the lock" => self.open_by(self.lock, c"../../.."),
            "open itself" => File::open("/proc/self/mem").map(drop),
            "open KVM again" => File::open("/dev/kvm").map(drop),
            "list the root" => fs::read_dir("/").map(drop),
            "make a file" => File::create("/file").map(drop),
            "make a directory" => fs::create_dir("/directory"),
            "make a device" => {
                let device = libc::makedev(1, 1);
                // SAFETY: a path that ends, and numbers.
                done(unsafe { libc::mknod(c"/memory".as_ptr(), libc::S_IFCHR | 0o600, device) })
            }
            "mount" => mount(c"none", c"/", c"tmpfs", 0),
            "make the root writable" => {
                mount(c"none", c"/", c"none", libc::MS_REMOUNT | libc::MS_BIND)
            }
            // SAFETY: a path that ends.
            "change the root" => done(unsafe { libc::chroot(c"/".as_ptr()) }),
            "make a user namespace" => unshare(libc::CLONE_NEWUSER),
            "make a mount namespace" => unshare(libc::CLONE_NEWNS),
            "make a network namespace" => unshare(libc::CLONE_NEWNET),
            "make a process namespace" => unshare(libc::CLONE_NEWPID),
            // SAFETY: numbers.
            "become root" => done(unsafe { libc::setuid(0) }),
            // SAFETY: numbers.
            "become its user's group again" => done(unsafe { libc::setgid(0) }),
            // SAFETY: a number and a signal.
            "signal all others" => done(unsafe { libc::kill(-1, libc::SIGTERM) }),
            "signal who started it" => {
                // SAFETY: its parent has number 0 here, which means its own group; and no signal.
                done(unsafe { libc::kill(libc::getppid(), 0) }).and_then(|()| group_has_others())
            }
            "signal any process by its number" => any(|pid| {
                // SAFETY: a number and no signal.
                done(unsafe { libc::kill(pid, 0) })
            }),
            "trace any process" => any(|pid| {
                let none = std::ptr::null_mut::<libc::c_void>();
                // SAFETY: attaching takes no addresses.
                done(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) } as i32)
            }),
            "read the memory of any process" => any(read_memory),
            "be traced by nobody's leave" => {
                // SAFETY: a number; being dumpable makes its own files its user's again.
                done(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } as i32)
                    .and_then(|()| File::open(format!("/proc/{}/mem", self.pid)).map(drop))
            }
            "reach a service of the host" => TcpStream::connect("127.0.0.1:22").map(drop),
            "reach the network" => UdpSocket::bind("0.0.0.0:0")
                .and_then(|socket| socket.connect("192.0.2.1:53"))
                .map(drop),
            "send packets of any kind" => {
                // SAFETY: numbers.
                done(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) })
            }
            "connect to an abstract socket of the host" => {
                SocketAddr::from_abstract_name("slicevisor-red-team")
                    .and_then(|address| UnixStream::connect_addr(&address))
                    .map(drop)
            }
            "connect to a socket of the host by its path" => {
                UnixStream::connect("/run/dbus/system_bus_socket").map(drop)
            }
            "rename the host" => {
                // SAFETY: a name and its length.
                done(unsafe { libc::sethostname(c"mine".as_ptr(), 4) })
            }
            "set the clock" => {
                let then = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                // SAFETY: the structure outlives the call.
                done(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const then) })
            }
            "have a processor to itself" => {
                let first = libc::sched_param { sched_priority: 1 };
                // SAFETY: the structure outlives the call.
                done(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) })
            }
            "load a module" => {
                // SAFETY: the kernel reads nothing before it has looked at privileges.
                done(unsafe { libc::syscall(libc::SYS_init_module, 0, 0, c"".as_ptr()) } as i32)
            }
            "write into the ledger" => self.write_ledger(),
            "map the ledger to write" => self.map_ledger(),
            "make a disk larger" => self.grow_disk(),
            "take all descriptors" => fill(|| {
                // SAFETY: a number; the copy stays open, which is the point.
                done(unsafe { libc::dup(self.tie) })
            }),
            "take all processes" => fill(|| {
                // SAFETY: the new process, a copy of one thread, only waits.
                match unsafe { libc::fork() } {
                    0 => loop {
                        // SAFETY: takes nothing.
                        unsafe { libc::pause() };
                    },
                    pid => done(pid),
                }
            }),
            "take all memory" => fill(|| {
                const PIECE: usize = 1 << 30;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                let (none, all) = (std::ptr::null_mut(), libc::PROT_READ | libc::PROT_WRITE);
                // SAFETY: new memory, which nobody uses.
                let at = unsafe { libc::mmap(none, PIECE, all, flags, -1, 0) };
                done(if at == libc::MAP_FAILED { -1 } else { 0 })
            }),
            "take more of any limit" => {
                let more = libc::rlimit {
                    rlim_cur: libc::RLIM_INFINITY,
                    rlim_max: libc::RLIM_INFINITY,
                };
                // SAFETY: the structure outlives the call.
                done(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const more) })
            }
            other => panic!("what is {other}?"),
        }
    }

    fn open_by(&self, directory: RawFd, path: &CStr) -> io::Result<()> {
        // SAFETY: a path that ends.
        done(unsafe { libc::openat(directory, path.as_ptr(), libc::O_RDONLY) })
    }

    fn write_ledger(&self) -> io::Result<()> {
        let reader = self.reader.expect("it has a ledger");
        // SAFETY: the bytes outlive the call.
        let written = unsafe { libc::pwrite(reader, [0u8; 8].as_ptr().cast(), 8, 4096) };
        done(written as i32)
    }

    fn map_ledger(&self) -> io::Result<()> {
        let reader = self.reader.expect("it has a ledger");
        let (none, all) = (std::ptr::null_mut(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping, which nobody uses.
        let at = unsafe { libc::mmap(none, 8192, all, libc::MAP_SHARED, reader, 0) };
        done(if at == libc::MAP_FAILED { -1 } else { 0 })
    }

    fn grow_disk(&self) -> io::Result<()> {
        let disk = self.disk.expect("it has a disk");
        // What passes the limit is also told by a signal, which ends who does not expect it.
        // SAFETY: ignores a signal.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        // SAFETY: numbers.
        done(unsafe { libc::ftruncate(disk, 1 << 40) })
    }
}

/// What a system call that gives a negative number for a failure has come to.
fn done(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn mount(from: &CStr, to: &CStr, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    let none = std::ptr::null();
    // SAFETY: paths that end, and no data.
    done(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, none) })
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: changes only what belongs to this process.
    done(unsafe { libc::unshare(flags) })
}

/// Its process group is that of number 0, its own: whether somebody else is in it.
fn group_has_others() -> io::Result<()> {
    // SAFETY: numbers.
    match unsafe { libc::getpgid(0) } == unsafe { libc::getpid() } {
        true => Err(io::Error::other("it is alone in its group")),
        false => Ok(()),
    }
}

/// Tries something with every number that a process beside this one could have.
fn any(attempt: impl Fn(libc::pid_t) -> io::Result<()>) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for number in 2..1 << 16 {
        match attempt(number) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn read_memory(pid: libc::pid_t) -> io::Result<()> {
    let mut byte = 0u8;
    let here = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let there = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(0x40_0000),
        iov_len: 1,
    };
    // SAFETY: one byte is written to `byte`, if at all.
    let read = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
    done(read as i32)
}

/// Takes something again and again; an error once no more is to be had.
fn fill(mut take: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    (0..MANY).try_for_each(|_| take())
}
