//! One sliver from its spec to its exit record.
//!
//! [`run`] checks everything first. Then this thread opens the sliver's directory while another
//! creates its VM and becomes vCPU 0; this one goes on as the control thread. Whatever happens,
//! there is a record of how it ended.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::boot::image::{Image, ImageError};
use crate::boot::slice::layout::{Layout, TooSmall};
use crate::boot::slice::load::{self, LoadError};
use crate::control::bell::Bell;
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
use crate::kvm::memory::{GuestRam, MapError};
use crate::kvm::vcpu::{Vcpu, install_kick_handler};
use crate::kvm::vm::{self, KvmError, Vm};
use crate::machine::{EndGuard, Machine, Parts};
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
    #[error("{}: {problem}", image.display())]
    TooSmall { image: PathBuf, problem: TooSmall },
    #[error("{}: {problem}", image.display())]
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
        mut tie,
        core,
        console,
    } = resources;
    let record = match start(spec, run_dir, tie.is_some(), console, watch) {
        Ok(started) => {
            let Started {
                machine,
                endpoint,
                signals,
                vcpu0,
            } = started;
            let server = Server::new(
                Arc::clone(&machine),
                spec.clone(),
                watch.started(),
                endpoint,
                tie,
                signals,
            );
            let (endpoint, returned_tie) = server.serve();
            tie = returned_tie;
            let milestones = vcpu0.join().unwrap_or_default();
            let record = make_record(spec, &machine, core.as_ref(), &watch, milestones);
            put_away(endpoint, tie.is_some(), &record);
            record
        }
        Err(error) => ExitRecord::of_error(spec.name(), spec.slice(), error.to_string()),
    };
    if let Some(tie) = &tie {
        // Who is gone does not want to know.
        let _ = write_frame(tie, &Notice::Ended(Box::new(record.clone())));
    }
    record
}

fn put_away(endpoint: Endpoint, tied: bool, record: &ExitRecord) {
    if tied {
        endpoint.remove();
    } else if let Err(error) = endpoint.close_with_record(record) {
        eprintln!("slicevmm: {error}");
    }
}

/// A sliver whose vCPU 0 is on its way into the guest.
struct Started {
    machine: Arc<Machine>,
    endpoint: Endpoint,
    signals: Signals,
    vcpu0: JoinHandle<Milestones>,
}

/// When the steps of the start were done, in microseconds, and the rate of the counter.
#[derive(Debug, Clone, Copy, Default)]
struct Milestones {
    vm: u64,
    load: u64,
    tsc_khz: u32,
}

fn start(
    spec: &SliverSpec,
    run_dir: PathBuf,
    foreground: bool,
    console: File,
    watch: Stopwatch,
) -> Result<Started, StartError> {
    let image = Image::open(spec.image())?;
    let layout =
        Layout::new(image.native(), spec.memory_bytes(), spec.vcpus()).map_err(|problem| {
            StartError::TooSmall {
                image: spec.image().to_owned(),
                problem,
            }
        })?;
    check_host_memory(spec)?;
    let signals = Signals::take_over(foreground).map_err(StartError::system("block signals"))?;
    install_kick_handler().map_err(StartError::system("install a signal handler"))?;

    let (to_main, from_vcpu0) = channel();
    let (go, wait_for_go) = channel();
    let plan = Plan {
        spec: spec.clone(),
        image,
        layout,
        console,
    };
    let vcpu0 = thread::Builder::new()
        .name("vcpu0".to_owned())
        .spawn(move || run_vcpu0(plan, &watch, &to_main, &wait_for_go))
        .map_err(StartError::system("start a thread"))?;
    let endpoint = Endpoint::open(&run_dir, spec.name());
    if endpoint.is_ok() {
        let _ = go.send(());
    }
    drop(go);
    let machine = from_vcpu0.recv().unwrap_or_else(|_| {
        Err(StartError::system("create the VM")(io::Error::other(
            "its thread panicked",
        )))
    });
    match (machine, endpoint) {
        (Ok(machine), Ok(endpoint)) => Ok(Started {
            machine,
            endpoint,
            signals,
            vcpu0,
        }),
        (Err(error), Ok(endpoint)) => {
            let _ = vcpu0.join();
            endpoint.remove();
            Err(error)
        }
        (_, Err(error)) => {
            let _ = vcpu0.join();
            Err(error.into())
        }
    }
}

/// What vCPU 0's thread needs to make the machine.
struct Plan {
    spec: SliverSpec,
    image: Image,
    layout: Layout,
    console: File,
}

/// Makes the machine and, unless the other half of the start failed, runs it.
fn run_vcpu0(
    plan: Plan,
    watch: &Stopwatch,
    to_main: &Sender<Result<Arc<Machine>, StartError>>,
    go: &Receiver<()>,
) -> Milestones {
    let mut milestones = Milestones::default();
    match make_machine(plan, watch, &mut milestones) {
        Ok((machine, vcpu)) => {
            let _ = to_main.send(Ok(Arc::clone(&machine)));
            if go.recv().is_ok() {
                let _guard = EndGuard::new(&machine);
                machine.run(vcpu);
            }
        }
        Err(error) => drop(to_main.send(Err(error))),
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
    let mut vm = Vm::new(
        &kvm,
        (ram, layout.ram().start),
        (system, layout.system_base()),
    )?;
    let mut processor = Processor::host();
    let entry = load::prepare_vcpu(0, &image, &layout, vm.ram())
        .map_err(StartError::system("write the vCPU block"))?;
    let vcpu = Vcpu::first(&vm, &mut processor, &entry)?;
    let tsc_khz = vcpu.tsc_khz()?;
    milestones.vm = watch.elapsed_us();
    milestones.tsc_khz = tsc_khz;
    load::load_segments(&image, vm.ram()).map_err(|problem| StartError::Load {
        image: spec.image().to_owned(),
        problem,
    })?;
    load::write_info(
        vm.system_mut(),
        &spec,
        &image,
        &layout,
        &processor,
        &devices,
    );
    let bell = Bell::new().map_err(StartError::system("create an eventfd"))?;
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
        eprintln!("slicevmm: cannot write the core: {error}");
    }
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
        memory_kib: memory_use(machine),
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

/// What the process holds; what the kernel does not tell counts as nothing.
fn memory_use(machine: &Machine) -> MemoryUse {
    let touched = machine.vm().ram().touched().unwrap_or(0) >> 10;
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let pss = rollup
        .lines()
        .find_map(|line| {
            line.strip_prefix("Pss:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0u64);
    MemoryUse {
        guest_touched: touched,
        monitor_pss: pss.saturating_sub(touched),
    }
}
