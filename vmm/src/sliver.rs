//! One sliver from its spec to its exit record.
//!
//! [`run`] starts it, goes on as its control thread, and puts it away. Whatever happens, there is a
//! record of how it ended.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use crate::control::endings::Endings;
use crate::control::endpoint::Endpoint;
use crate::control::proto::tell_ended;
use crate::control::server::Server;
use crate::control::traffic;
use crate::core;
use crate::devices::assemble::Outside;
use crate::exit::{EXIT_RECORD_VERSION, Exit, ExitKind, ExitRecord, MemoryUse, Registers, Timing};
use crate::machine::Machine;
use crate::resident;
use crate::say::say;
use crate::sched::seat::Seat;
use crate::signals::Signals;
use crate::spec::SliverSpec;
use crate::start::{Milestones, Place, StartError, start};
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
    /// What its devices are connected to.
    pub outside: Outside,
    /// The ledger of this node's slivers, if they share one.
    pub ledger: Option<PathBuf>,
}

/// Runs a sliver to its end.
pub fn run(spec: &SliverSpec, resources: Resources, watch: Stopwatch) -> ExitRecord {
    let Resources {
        run_dir,
        tie,
        core,
        outside,
        ledger,
    } = resources;
    let tied = tie.is_some();
    let signals = match Signals::take_over(tied) {
        Ok(signals) => signals,
        Err(source) => {
            let message = StartError::system("block signals")(source).to_string();
            let record = ExitRecord::of_error(spec.name(), spec.slice(), message);
            tell_ended(tie.as_ref(), &record);
            return record;
        }
    };
    let endings = Endings::new(signals, tie, spec.time_limit(), watch.started());
    let place = Place {
        run_dir: &run_dir,
        ledger: ledger.as_deref(),
    };
    let (record, endings) = match start(spec, &place, &endings, outside, watch) {
        Ok(started) => {
            let (machine, vcpu0) = (started.machine, started.vcpu0);
            let seat = ledger.map(|path| Seat::new(path, spec.name()));
            let server = Server::new(
                Arc::clone(&machine),
                spec.clone(),
                watch.started(),
                (started.endpoint, endings),
                seat,
            );
            let (endpoint, endings) = server.serve();
            let milestones = vcpu0.join().unwrap_or_default();
            let record = make_record(spec, &machine, core.as_ref(), &watch, milestones);
            put_away(endpoint, tied, &record);
            if let Some(gate) = machine.gate() {
                traffic::tell_last(gate, endings.tie());
            }
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
    tell_ended(endings.tie(), &record);
    record
}

fn put_away(endpoint: Endpoint, tied: bool, record: &ExitRecord) {
    if tied {
        endpoint.remove();
    } else if let Err(error) = endpoint.close_with_record(record) {
        say(&error.to_string());
    }
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
        cpu_us: machine.cpu_time(),
        cpu: machine.cpu_status(),
        ignored_accesses: machine.ignored(),
        devices: machine.device_status(),
        exits: machine.exit_counts(),
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
