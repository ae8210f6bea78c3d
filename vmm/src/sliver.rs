//! One sliver from its spec to its exit record.
//!
//! [`run`] checks everything first. Then this thread opens the sliver's directory while another
//! creates its VM and becomes vCPU 0; this one goes on as the control thread. Whatever happens,
//! there is a record of how it ended.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};

use crate::boot::image::{Image, ImageError};
use crate::boot::slice::layout::{Layout, TooSmall};
use crate::boot::slice::load::{self, LoadError};
use crate::control::bell::Bell;
use crate::control::endings::{Endings, timespec};
use crate::control::endpoint::{Endpoint, EndpointError};
use crate::control::proto::{Notice, write_frame};
use crate::control::server::Server;
use crate::core;
use crate::devices::bus::Bus;
use crate::devices::output::Output;
use crate::devices::virtio::console::Console;
use crate::exit::{
    CpuTime, EXIT_RECORD_VERSION, Exit, ExitKind, ExitRecord, MemoryUse, Registers, Timing,
};
use crate::kvm::cpuid::Processor;
use crate::kvm::kick::install_kick_handler;
use crate::kvm::memory::{GuestRam, MapError};
use crate::kvm::vcpu::Vcpu;
use crate::kvm::vm::{self, KvmError, Memory, Vm};
use crate::machine::{EndGuard, Machine, Parts};
use crate::resident;
use crate::say::{say, shown_path};
use crate::sched::account::process_ns;
use crate::signals::Signals;
use crate::spec::SliverSpec;
use crate::stopwatch::Stopwatch;

/// What a monitor is given besides the spec.
#[derive(Debug)]
pub struct Resources {
    /// Directory of all slivers.
    pub run_dir: PathBuf,
    /// The other end is held by whoever runs this sliver in the foreground.
    pub tie: Option<UnixStream>,
    /// Where to leave a core if the sliver faults.
    pub core: Option<File>,
    /// Where the guest's console goes.
    pub console: File,
}

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
    #[error("{asked_mib} MiB of memory are asked for, this machine has {total_mib} MiB")]
    MoreMemoryThanHost { asked_mib: u64, total_mib: u64 },
    #[error("{asked} vCPUs are asked for, KVM on this machine allows {allowed}")]
    TooManyVcpus { asked: usize, allowed: usize },
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error(transparent)]
    Memory(#[from] MapError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

impl StartError {
    fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Runs a sliver to its end.
pub fn run(spec: &SliverSpec, resources: Resources, watch: Stopwatch) -> ExitRecord {
    let Resources {
        run_dir,
        tie,
        core,
        console,
    } = resources;
    let tied = tie.is_some();
    let signals = match Signals::take_over(tied) {
        Ok(signals) => signals,
        Err(source) => {
            let message = StartError::system("block signals")(source).to_string();
            return ExitRecord::of_error(spec.name(), spec.slice(), message);
        }
    };
    let endings = Endings::new(signals, tie, spec.time_limit(), watch.started());
    let (record, endings) = match start(spec, &run_dir, &endings, console, watch) {
        Ok(started) => {
            let (machine, vcpu0) = (started.machine, started.vcpu0);
            let server = Server::new(
                Arc::clone(&machine),
                spec.clone(),
                watch.started(),
                started.endpoint,
                endings,
            );
            let (endpoint, endings) = server.serve();
            let milestones = vcpu0.join().unwrap_or_default();
            let record = make_record(spec, &machine, core.as_ref(), &watch, milestones);
            put_away(endpoint, tied, &record);
            (record, endings)
        }
        Err(exit) => {
            let record = ExitRecord::not_started(spec.name(), spec.slice(), exit);
            if !tied && let Ok(endpoint) = Endpoint::open(&run_dir, spec.name()) {
                put_away(endpoint, tied, &record);
            }
            (record, endings)
        }
    };
    if let Some(tie) = endings.tie() {
        // Who is gone does not want to know.
        let _ = write_frame(tie, &Notice::Ended(Box::new(record.clone())));
    }
    record
}

fn put_away(endpoint: Endpoint, tied: bool, record: &ExitRecord) {
    if tied {
        endpoint.remove();
    } else if let Err(error) = endpoint.close_with_record(record) {
        say(&error.to_string());
    }
}

/// A sliver whose vCPU 0 is on its way into the guest.
struct Started {
    machine: Arc<Machine>,
    endpoint: Endpoint,
    vcpu0: JoinHandle<Milestones>,
}

/// When the steps of the start were done, in microseconds, and the rate of the counter.
#[derive(Debug, Clone, Copy, Default)]
struct Milestones {
    vm: u64,
    load: u64,
    tsc_khz: u32,
}

/// Starts a sliver, or says how it ended before it began.
fn start(
    spec: &SliverSpec,
    run_dir: &Path,
    endings: &Endings,
    console: File,
    watch: Stopwatch,
) -> Result<Started, Exit> {
    let (vcpu0, birth) = begin(spec, console, watch).map_err(failed)?;
    let endpoint = Endpoint::open(run_dir, spec.name());
    if endpoint.is_ok() {
        let _ = birth.go.send(());
    } else {
        birth.cancel.store(true, Ordering::Relaxed);
    }
    let machine = birth.wait(endings);
    if machine.is_err() {
        birth.cancel.store(true, Ordering::Relaxed);
    }
    drop(birth);
    let exit = match (machine, endpoint) {
        (Ok(machine), Ok(endpoint)) => {
            return Ok(Started {
                machine,
                endpoint,
                vcpu0,
            });
        }
        (Err(exit), Ok(endpoint)) => {
            endpoint.remove();
            exit
        }
        (_, Err(error)) => failed(error.into()),
    };
    let _ = vcpu0.join();
    Err(exit)
}

fn failed(error: StartError) -> Exit {
    Exit::error(error.to_string())
}

/// This thread's side of a machine that is being made on another.
struct Birth {
    made: Receiver<Result<Arc<Machine>, StartError>>,
    bell: Arc<Bell>,
    go: Sender<()>,
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
    console: File,
    watch: Stopwatch,
) -> Result<(JoinHandle<Milestones>, Birth), StartError> {
    let image = Image::open(spec.image())?;
    let layout =
        Layout::new(image.native(), spec.memory_bytes(), spec.vcpus()).map_err(|problem| {
            StartError::TooSmall {
                image: spec.image().to_owned(),
                problem,
            }
        })?;
    check_host_memory(spec)?;
    install_kick_handler().map_err(StartError::system("install a signal handler"))?;
    let bell = Arc::new(Bell::new().map_err(StartError::system("create an eventfd"))?);
    let cancel = Arc::new(AtomicBool::new(false));
    let (to_main, made) = channel();
    let (go, wait_for_go) = channel();
    let plan = Plan {
        spec: spec.clone(),
        image,
        layout,
        console,
        bell: Arc::clone(&bell),
        cancel: Arc::clone(&cancel),
    };
    let vcpu0 = thread::Builder::new()
        .name("vcpu0".to_owned())
        .spawn(move || run_vcpu0(plan, &watch, &to_main, &wait_for_go))
        .map_err(StartError::system("start a thread"))?;
    let birth = Birth {
        made,
        bell,
        go,
        cancel,
    };
    Ok((vcpu0, birth))
}

/// What vCPU 0's thread needs to make the machine.
struct Plan {
    spec: SliverSpec,
    image: Image,
    layout: Layout,
    console: File,
    bell: Arc<Bell>,
    cancel: Arc<AtomicBool>,
}

/// Makes the machine and, unless the other half of the start failed, runs it.
fn run_vcpu0(
    plan: Plan,
    watch: &Stopwatch,
    to_main: &Sender<Result<Arc<Machine>, StartError>>,
    go: &Receiver<()>,
) -> Milestones {
    let mut milestones = Milestones::default();
    let bell = Arc::clone(&plan.bell);
    let made = make_machine(plan, watch, &mut milestones);
    let (told, mine) = match made {
        Ok((machine, vcpu)) => (Ok(Arc::clone(&machine)), Some((machine, vcpu))),
        Err(error) => (Err(error), None),
    };
    let _ = to_main.send(told);
    bell.ring();
    if let Some((machine, vcpu)) = mine
        && go.recv().is_ok()
    {
        let _guard = EndGuard::new(&machine);
        machine.run(vcpu);
    }
    milestones
}

fn make_machine(
    plan: Plan,
    watch: &Stopwatch,
    milestones: &mut Milestones,
) -> Result<(Arc<Machine>, Vcpu), StartError> {
    let Plan {
        spec,
        image,
        layout,
        console,
        bell,
        cancel,
    } = plan;
    let kvm = vm::open()?;
    let allowed = kvm.get_max_vcpus();
    if spec.vcpus() > allowed {
        return Err(StartError::TooManyVcpus {
            asked: spec.vcpus(),
            allowed,
        });
    }
    let bus = Bus::new(vec![Console::new(Output::new(console))]);
    let devices = bus.entries();
    let ram = GuestRam::new(
        layout.ram(),
        layout.large_pages(),
        load::writable_from(&image),
    )?;
    let system = load::system_area(&image, &layout, devices.len())?;
    let memory = Memory { ram, system };
    let vm = Vm::new(&kvm, memory, layout.ram().start, layout.system_base())?;
    let mut processor = Processor::host();
    let entry = load::prepare_vcpu(0, &image, &layout, vm.ram())
        .map_err(StartError::system("write the vCPU block"))?;
    let vcpu = Vcpu::first(&vm, &mut processor, &entry)?;
    let tsc_khz = vcpu.tsc_khz()?;
    milestones.vm = watch.elapsed_us();
    milestones.tsc_khz = tsc_khz;
    load::load_segments(&image, vm.ram(), || !cancel.load(Ordering::Relaxed)).map_err(
        |problem| StartError::Load {
            image: spec.image().to_owned(),
            problem,
        },
    )?;
    load::write_info(vm.system(), &spec, &image, &layout, &processor, &devices);
    let start_paused = spec.start_paused();
    let machine = Machine::new(Parts {
        vm,
        image,
        layout,
        processor,
        bus,
        bell,
        tsc_khz,
        start_paused,
    });
    milestones.load = watch.elapsed_us();
    Ok((Arc::new(machine), vcpu))
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

fn make_record(
    spec: &SliverSpec,
    machine: &Machine,
    core: Option<&File>,
    watch: &Stopwatch,
    milestones: Milestones,
) -> ExitRecord {
    let exit = machine
        .lifecycle
        .end_reason()
        .unwrap_or_else(|| Exit::error("it did not end"));
    if exit.kind == ExitKind::Fault
        && let Some(file) = core
        && let Err(error) = core::write(machine, &registers(machine, &exit), file)
    {
        say(&format!("cannot write the core: {error}"));
        // Half a core would pass for a whole one.
        let _ = file.set_len(0);
    }
    let memory = resident::usage(machine.vm().ram().host_range());
    let guest_us = machine.guest_ns() / 1000;
    let first_instruction = match machine.first_instruction_tsc() {
        0 => 0,
        tsc => watch.us_at(tsc, milestones.tsc_khz),
    };
    ExitRecord {
        version: EXIT_RECORD_VERSION,
        name: spec.name().to_owned(),
        slice: spec.slice().to_owned(),
        exit,
        timing_us: Timing {
            vm: milestones.vm,
            spawn: watch.before_us(),
            load: milestones.load,
            first_instruction,
            total: watch.elapsed_us(),
        },
        memory_kib: MemoryUse {
            guest_touched: memory.guest_kib,
            monitor_pss: memory.own_kib,
        },
        cpu_us: CpuTime {
            guest: guest_us,
            monitor: (process_ns() / 1000).saturating_sub(guest_us),
        },
        ignored_accesses: machine.bus().ignored(),
    }
}

/// The last registers of each vCPU that ran, the faulted one's first.
fn registers(machine: &Machine, exit: &Exit) -> Vec<(usize, Registers)> {
    let mut all: Vec<_> = machine
        .lifecycle
        .started()
        .into_iter()
        .filter_map(|index| Some((index, *machine.slots[index].last_registers.get()?)))
        .collect();
    if let Some(fault) = &exit.detail.fault {
        all.retain(|(index, _)| *index != fault.vcpu);
        all.insert(0, (fault.vcpu, fault.registers));
    }
    all
}
