//! Starting a sliver: everything that its spec names is opened here, by whoever may, and handed to a
//! monitor that is in its jail before it hears what it is for.
//!
//! The one who launches is `slicectl`, a test, or the node. What cannot be had is told before there is
//! a process.

mod keeper;
mod limits;
mod process;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::time::{ClockId, clock_gettime};

pub use self::process::Launched;

use self::limits::limits;
use self::process::Left;
use crate::boot::image::open_file;
use crate::boot::legacy::open_initrd;
use crate::control::endpoint::Endpoint;
use crate::devices::output::own_description;
use crate::devices::outside::Opened;
use crate::devices::uplink::membership_of;
use crate::devices::virtio::vsock::GuestSocket;
use crate::exit::ExitRecord;
use crate::given::{Given, Hello, Role};
use crate::jail::{self, JailError, Jailed, Layer, Layers, Step};
use crate::kvm::vm::open_device;
use crate::say::{say, shown_path};
use crate::sched::fair::Claim;
use crate::sched::governor::processors;
use crate::sched::ledger::{Ledger, LedgerError, Member, TakenSlot};
use crate::spec::{SliverSpec, SpecError, VsockSpec};
use crate::start::StartError;

/// Where the monitor finds the tie.
pub const TIE: i32 = 3;

/// A sliver to be launched.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The monitor, `slicevmm`.
    pub program: &'a Path,
    /// The spec, as JSON.
    pub spec: &'a str,
    /// The directory of all slivers.
    pub run_dir: &'a Path,
    /// The ledger through which it shares the processors.
    pub ledger: Option<&'a Path>,
    /// Where to write a core of the guest, should it fault.
    pub core: Option<BorrowedFd<'a>>,
    /// Taps made for the sliver, each with the index of its card in the spec.
    pub taps: Vec<(usize, BorrowedFd<'a>)>,
    /// Where the guest's console goes.
    pub console: BorrowedFd<'a>,
    /// Where its input comes from, if the spec wants any.
    pub input: Option<BorrowedFd<'a>>,
    /// Where the monitor's own messages go.
    pub errors: BorrowedFd<'a>,
    /// Whether the sliver ends with who launches it. Otherwise it leaves its exit record in its
    /// directory.
    pub tied: bool,
    /// The layers of its jail.
    pub layers: Layers,
}

/// A sliver could not be launched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum LaunchError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot open the monitor {}: {source}", shown_path(path))]
    Program { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error(
        "this host does not provide the layer {} of the jail ({}); to do without it, say \
         --allow-weak-jail={}", .0.layer, .0.source, .0.layer
    )]
    Layer(jail::Missing),
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

impl LaunchError {
    fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Launches a sliver. A ledger that cannot be had is told on standard error and done without; a claim
/// that the node cannot keep is an error.
pub fn launch(launch: Launch<'_>) -> Result<Launched, LaunchError> {
    let (run_dir, tied) = (launch.run_dir.to_owned(), launch.tied);
    let spec = SliverSpec::parse(launch.spec.as_bytes())?;
    launch_as(launch, &spec).inspect_err(|error| {
        if !tied {
            leave_record(&run_dir, &spec, error);
        }
    })
}

/// Leaves the record of a sliver that could not be launched.
fn leave_record(run_dir: &Path, spec: &SliverSpec, error: &LaunchError) {
    let Ok(endpoint) = Endpoint::open(run_dir, spec.name()) else {
        return;
    };
    let record = ExitRecord::of_error(spec.name(), spec.slice(), error.to_string());
    let left = serde_json::to_vec_pretty(&record)
        .map_err(io::Error::other)
        .and_then(|text| {
            endpoint
                .make_record()
                .map_err(io::Error::other)?
                .write_all(&text)
        });
    if let Err(error) = left {
        say(&format!("cannot write the exit record: {error}"));
    }
    let (listener, lock, leftover) = endpoint.into_parts();
    drop((listener, lock));
    leftover.clear();
}

fn launch_as(launch: Launch<'_>, spec: &SliverSpec) -> Result<Launched, LaunchError> {
    let began = monotonic();
    let program = open_program(launch.program)?;
    let mut given = Given::default();
    let vsock = open_all(&launch, spec, &mut given)?;
    let endpoint = Endpoint::open(launch.run_dir, spec.name()).map_err(StartError::from)?;
    let control = endpoint.socket().display().to_string();
    if !launch.tied {
        given.add(
            Role::Record,
            endpoint.make_record().map_err(StartError::from)?,
        );
    }
    let (listener, lock, leftover) = endpoint.into_parts();
    given.add(Role::Control, listener);
    given.add(Role::Lock, lock);
    // Until there is a process, what is left is cleared away here.
    let mut left = Left {
        directory: leftover,
        vsock,
    };
    let spawned = spawn(&launch, spec, &program);
    let (jailed, tie) = spawned.inspect_err(|_| left.let_go(&mut given))?;
    let mut launched = Launched::new(jailed, tie, left)?;
    let hello = Hello {
        roles: Vec::new(),
        pid: launched.pid(),
        tied: launch.tied,
        began,
        control,
        ledger: launch.ledger.map(Path::to_owned).unwrap_or_default(),
        slot: 0,
        without: Layers::all().without(launch.layers),
        vsock: match (spec.vsock(), launch.layers.has(Layer::Mount)) {
            (Some(_), true) => PathBuf::from(jail::SHOWN),
            (Some(vsock), false) => vsock.dir().to_owned(),
            (None, _) => PathBuf::new(),
        },
    };
    equip(&mut launched, spec, given, hello)?;
    Ok(launched)
}

/// Hands over what was opened, and what can only be had for a process that is there.
fn equip(
    launched: &mut Launched,
    spec: &SliverSpec,
    mut given: Given,
    mut hello: Hello,
) -> Result<(), LaunchError> {
    given.add(Role::Process, open_process(hello.pid)?);
    if !hello.ledger.as_os_str().is_empty() {
        let membership = membership_of(spec);
        let member = Member {
            pid: hello.pid,
            name: spec.name(),
            claim: Claim::of(spec.cpu(), spec.vcpus(), processors()),
            uplink: membership.as_ref(),
        };
        if let Some(taken) = join(&hello.ledger, &member).map_err(StartError::from)? {
            hello.slot = taken.slot;
            given.add(Role::LedgerReader, taken.reader);
            given.add(Role::LedgerWriter, taken.writer);
        }
        let far = keeper::start(&hello.ledger, &member);
        given.add(
            Role::Keeper,
            far.map_err(LaunchError::system("start a thread"))?,
        );
    }
    hello.roles = given.roles();
    launched.hand_over(given, &hello)
}

/// Opens what a spec names, and what else a monitor uses. The vsock's listening socket is also kept.
fn open_all(
    launch: &Launch<'_>,
    spec: &SliverSpec,
    given: &mut Given,
) -> Result<Option<GuestSocket>, LaunchError> {
    given.add(
        Role::Image,
        open_file(spec.image()).map_err(StartError::from)?,
    );
    let initrd = open_initrd(spec).map_err(|problem| StartError::Kernel {
        image: spec.image().to_owned(),
        problem,
    })?;
    given.add_some(Role::Initrd, initrd);
    let copy = |fd: BorrowedFd<'_>| {
        let copied = fd.try_clone_to_owned();
        copied.map_err(LaunchError::system("copy a descriptor"))
    };
    let mut taps = BTreeMap::new();
    for (card, tap) in &launch.taps {
        taps.insert(*card, copy(*tap)?);
    }
    let opened = Opened::open(spec, taps).map_err(StartError::from)?;
    for (disk, file) in opened.disks.into_iter().enumerate() {
        given.add(Role::Disk(disk), file);
    }
    for (card, (tap, figures)) in opened.cards.into_iter().enumerate() {
        given.add(Role::Tap(card), tap);
        given.add_some(Role::Figures(card), figures);
    }
    given.add_some(Role::Uplink, opened.uplink);
    if let Some(vsock) = &opened.vsock {
        given.add(Role::Vsock, copy(vsock.as_fd())?);
    }
    given.add(Role::Kvm, open_device().map_err(StartError::from)?);
    let console = match own_description(launch.console) {
        Some(own) => own.into(),
        None => copy(launch.console)?,
    };
    given.add(Role::Console, console);
    if let Some(input) = launch.input {
        given.add(Role::Input, copy(input)?);
    }
    if let Some(core) = launch.core {
        given.add(Role::Core, copy(core)?);
    }
    let text = in_memory(launch.spec).map_err(LaunchError::system("hand over the spec"))?;
    given.add(Role::Spec, text);
    Ok(opened.vsock)
}

fn in_memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("slice-spec", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn open_program(path: &Path) -> Result<OwnedFd, LaunchError> {
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        LaunchError::Program {
            path: path.to_owned(),
            source: errno.into(),
        }
    })
}

fn open_process(pid: u32) -> Result<OwnedFd, LaunchError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(format!("/proc/{pid}"), flags, Mode::empty())
        .map_err(|errno| LaunchError::system("look at the monitor's process")(errno.into()))
}

/// Starts the monitor in its jail, and keeps one end of its tie.
fn spawn(
    launch: &Launch<'_>,
    spec: &SliverSpec,
    program: &OwnedFd,
) -> Result<(Jailed, UnixStream), LaunchError> {
    let (tie, far) = UnixStream::pair().map_err(LaunchError::system("make a pair of sockets"))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(LaunchError::system("open /dev/null"))?;
    // Says whose process it is to who looks at processes.
    let place = launch
        .run_dir
        .join(spec.name())
        .into_os_string()
        .into_encoded_bytes();
    let arguments = [b"slicevmm".to_vec(), b"--directory".to_vec(), place];
    let arguments = arguments
        .map(CString::new)
        .into_iter()
        .collect::<Result<Vec<_>, _>>();
    let arguments =
        arguments.map_err(|error| LaunchError::system("name the sliver")(error.into()))?;
    if launch.layers.has(Layer::Landlock)
        && let Some(missing) = jail::missing([Layer::Landlock].into_iter().collect()).pop()
    {
        return Err(LaunchError::Layer(missing));
    }
    let jailed = jail::spawn(&jail::Launch {
        program: program.as_fd(),
        arguments: &arguments,
        descriptors: &[null.as_fd(), null.as_fd(), launch.errors, far.as_fd()],
        layers: launch.layers,
        limits: &limits(launch, spec),
        shown: spec.vsock().map(VsockSpec::dir),
    });
    // Which of the namespaces it was, the kernel does not say.
    let jailed = jailed.map_err(|error| refused(error, launch.layers))?;
    Ok((jailed, tie))
}

/// Names the layer that a host does not provide, if that is what it was.
fn refused(error: JailError, layers: Layers) -> LaunchError {
    let layer = |layer, source| LaunchError::Layer(jail::Missing { layer, source });
    match error {
        // Which of them it was, the kernel does not say.
        JailError::Namespaces { .. } => match jail::missing(layers).pop() {
            Some(missing) => LaunchError::Layer(missing),
            None => error.into(),
        },
        JailError::Users { source } => layer(Layer::User, source),
        // Above all a host that runs from its initial file system, which has no other below it.
        JailError::Step {
            step: Step::Root,
            source,
        } => layer(Layer::Mount, source),
        error => error.into(),
    }
}

/// Takes a slot in the ledger. `None`, and it is said why, if there can be none; an error if the node
/// cannot honour the claims.
fn join(path: &Path, member: &Member<'_>) -> Result<Option<TakenSlot>, LedgerError> {
    match Ledger::take(path, member, processors()) {
        Ok((taken, event)) => {
            if let Some(event) = event {
                say(&event.to_string());
            }
            Ok(Some(taken))
        }
        Err(error) if error.is_refusal() => Err(error),
        Err(error) => {
            say(&format!("{error}; it runs without a ledger"));
            Ok(None)
        }
    }
}

fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
