//! From a spec to a machine whose vCPU 0 is on its way into the guest.
//!
//! Everything that can be checked is checked first. Then a thread creates the VM and becomes vCPU 0.
//! Until it has, whatever can end a sliver can end its start.

mod legacy;
mod native;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use kvm_ioctls::Kvm;
use rustix::event::{PollFd, PollFlags, poll};

use crate::boot::image::{Image, ImageError, ImageKind};
use crate::boot::slice::layout::TooSmall;
use crate::boot::slice::load::LoadError;
use crate::control::bell::Bell;
use crate::control::endings::{Endings, timespec};
use crate::control::endpoint::EndpointError;
use crate::devices::assemble::{AssembleError, Assembly, assemble};
use crate::devices::outside::Outside;
use crate::exit::Exit;
use crate::kvm::kick::install_kick_handler;
use crate::kvm::mapping::MapError;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::vm::{self, KvmError};
use crate::machine::{EndGuard, Machine};
use crate::say::shown_path;
use crate::sched::governor::processors;
use crate::sched::ledger::{Ledger, LedgerError};
use crate::sched::seat;
use crate::spec::{KernelSpec, Mistake, SliverSpec};
use crate::stopwatch::Stopwatch;

/// A sliver could not be started.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum StartError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("{}: {problem}", shown_path(image))]
    TooSmall { image: PathBuf, problem: TooSmall },
    #[error("{}: {problem}", shown_path(image))]
    Load { image: PathBuf, problem: LoadError },
    #[error("{}: {problem}", shown_path(image))]
    Kernel {
        image: PathBuf,
        problem: crate::boot::legacy::LoadError,
    },
    #[error("{}: is a native image, and the spec has a kernel's settings for it", shown_path(.0))]
    NotAKernel(PathBuf),
    #[error("{asked_mib} MiB of memory are asked for, this machine has {total_mib} MiB")]
    MoreMemoryThanHost { asked_mib: u64, total_mib: u64 },
    #[error("{asked} vCPUs are asked for, KVM on this machine allows {allowed}")]
    TooManyVcpus { asked: usize, allowed: usize },
    #[error("{0}")]
    ReserveBeyondVcpus(Mistake),
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error(transparent)]
    Memory(#[from] MapError),
    #[error(transparent)]
    Device(#[from] AssembleError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

impl StartError {
    pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// A sliver whose vCPU 0 is on its way into the guest.
pub(crate) struct Started {
    pub(crate) machine: Arc<Machine>,
    pub(crate) vcpu0: JoinHandle<Milestones>,
}

/// When the steps of the start were done, in microseconds, and the rate of the counter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Milestones {
    pub(crate) vm: u64,
    pub(crate) load: u64,
    pub(crate) tsc_khz: u32,
}

/// Starts a sliver, or says how it ended before it began.
pub(crate) fn start(
    spec: &SliverSpec,
    supplies: Supplies,
    endings: &Endings,
    watch: Stopwatch,
) -> Result<Started, Exit> {
    let (vcpu0, birth) = begin(spec, supplies, watch).map_err(failed)?;
    let machine = birth.wait(endings);
    if machine.is_err() {
        birth.cancel.store(true, Ordering::Relaxed);
    }
    drop(birth);
    match machine {
        Ok(machine) => Ok(Started { machine, vcpu0 }),
        Err(exit) => {
            let _ = vcpu0.join();
            Err(exit)
        }
    }
}

/// Open descriptors of what a machine is made of.
#[derive(Debug)]
pub(crate) struct Supplies {
    /// KVM.
    pub(crate) kvm: File,
    /// The image.
    pub(crate) image: File,
    /// The initrd, if the spec names one.
    pub(crate) initrd: Option<File>,
    /// What the devices are connected to.
    pub(crate) outside: Outside,
    /// The sliver's place in its node's ledger.
    pub(crate) ledger: Option<Ledger>,
}

fn failed(error: StartError) -> Exit {
    Exit::error(error.to_string())
}

/// This thread's side of a machine that is being made on another.
struct Birth {
    made: Receiver<Result<Arc<Machine>, StartError>>,
    bell: Arc<Bell>,
    cancel: Arc<AtomicBool>,
}

impl Birth {
    /// Waits for the machine, or for an end that comes first.
    fn wait(&self, endings: &Endings) -> Result<Arc<Machine>, Exit> {
        loop {
            match self.made.try_recv() {
                Ok(result) => return result.map_err(failed),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err(Exit::error("the thread that creates the VM panicked"));
                }
            }
            if let Some(exit) = endings.due() {
                return Err(exit);
            }
            let mut fds = endings.poll_fds();
            fds.push(PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN));
            // Interrupted or not: the next turn looks at everything.
            let _ = poll(&mut fds, endings.time_left().map(timespec).as_ref());
            self.bell.silence();
        }
    }
}

/// Checks what can be checked, and sets a thread to making the machine.
fn begin(
    spec: &SliverSpec,
    supplies: Supplies,
    watch: Stopwatch,
) -> Result<(JoinHandle<Milestones>, Birth), StartError> {
    let Supplies {
        kvm,
        image,
        initrd,
        mut outside,
        ledger,
    } = supplies;
    let guest = Guest::plan(spec, image, initrd, &mut outside)?;
    let kvm = vm::open(kvm)?;
    check_host_memory(spec)?;
    if let Some(beyond) = spec.cpu().beyond_vcpus(spec.vcpus(), processors()) {
        return Err(StartError::ReserveBeyondVcpus(beyond));
    }
    let devices = assemble(spec, outside)?;
    install_kick_handler().map_err(StartError::system("install a signal handler"))?;
    let bell = Arc::new(Bell::new().map_err(StartError::system("create an eventfd"))?);
    let cancel = Arc::new(AtomicBool::new(false));
    let (to_main, made) = channel();
    let plan = Plan {
        spec: spec.clone(),
        devices,
        bell: Arc::clone(&bell),
        cancel: Arc::clone(&cancel),
        watch,
    };
    let vcpu0 = thread::Builder::new()
        .name("vcpu0".to_owned())
        .spawn(move || run_vcpu0(&kvm, guest, plan, ledger, &to_main))
        .map_err(StartError::system("start a thread"))?;
    let birth = Birth { made, bell, cancel };
    Ok((vcpu0, birth))
}

/// An image and where it goes.
enum Guest {
    Native(native::Guest),
    Legacy(legacy::Guest),
}

impl Guest {
    /// Checks the image, and that it fits.
    fn plan(
        spec: &SliverSpec,
        image: File,
        initrd: Option<File>,
        outside: &mut Outside,
    ) -> Result<Self, StartError> {
        let protocol = spec.kernel().map(KernelSpec::protocol);
        let (file, kind) = Image::new(spec.image(), image, protocol)?.into_parts();
        match kind {
            ImageKind::Native(_) if spec.kernel().is_some() => {
                Err(StartError::NotAKernel(spec.image().to_owned()))
            }
            ImageKind::Native(image) => native::plan(spec, file, image).map(Self::Native),
            ImageKind::Kernel(kernel) => {
                legacy::plan(spec, (file, initrd), *kernel, outside).map(Self::Legacy)
            }
        }
    }
}

/// What vCPU 0's thread needs to make the machine, beside the image.
struct Plan {
    spec: SliverSpec,
    devices: Assembly,
    bell: Arc<Bell>,
    cancel: Arc<AtomicBool>,
    watch: Stopwatch,
}

/// Makes the machine and runs it.
fn run_vcpu0(
    kvm: &Kvm,
    guest: Guest,
    plan: Plan,
    ledger: Option<Ledger>,
    to_main: &Sender<Result<Arc<Machine>, StartError>>,
) -> Milestones {
    let mut milestones = Milestones::default();
    let bell = Arc::clone(&plan.bell);
    let made = make_machine(kvm, guest, plan, &mut milestones);
    let (told, mine) = match made {
        Ok((machine, vcpu)) => {
            let machine = Arc::new(machine);
            // It is in the ledger before anybody can ask it anything.
            seat::take(machine.governor(), machine.uplink(), ledger);
            (Ok(Arc::clone(&machine)), Some((machine, vcpu)))
        }
        Err(error) => (Err(error), None),
    };
    let _ = to_main.send(told);
    bell.ring();
    if let Some((machine, vcpu)) = mine {
        let _guard = EndGuard::new(&machine);
        machine.run(vcpu);
    }
    milestones
}

fn make_machine(
    kvm: &Kvm,
    guest: Guest,
    plan: Plan,
    milestones: &mut Milestones,
) -> Result<(Machine, Vcpu), StartError> {
    let (asked, allowed) = (plan.spec.vcpus(), kvm.get_max_vcpus());
    if asked > allowed {
        return Err(StartError::TooManyVcpus { asked, allowed });
    }
    match guest {
        Guest::Native(guest) => native::make(kvm, guest, plan, milestones),
        Guest::Legacy(guest) => legacy::make(kvm, guest, plan, milestones),
    }
}

fn check_host_memory(spec: &SliverSpec) -> Result<(), StartError> {
    let info = rustix::system::sysinfo();
    let total = info.totalram.saturating_mul(u64::from(info.mem_unit));
    if spec.memory_bytes() > total {
        let (asked_mib, total_mib) = (spec.memory_bytes() >> 20, total >> 20);
        return Err(StartError::MoreMemoryThanHost {
            asked_mib,
            total_mib,
        });
    }
    Ok(())
}
