//! One sliver from what its monitor is given to its exit record.
//!
//! [`Sliver::run`] starts it, goes on as its control thread, and puts it away. Whatever happens, there
//! is a record of how it ended.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::control::endings::Endings;
use crate::control::post::Post;
use crate::control::proto::tell_ended;
use crate::control::server::Server;
use crate::control::traffic;
use crate::core;
use crate::devices::outside::Outside;
use crate::devices::uplink::membership_of;
use crate::exit::{EXIT_RECORD_VERSION, Exit, ExitKind, ExitRecord, MemoryUse, Registers, Timing};
use crate::given::{Given, GivenError, Hello, Role};
use crate::jail::{LandlockError, Layer, forbid_everything};
use crate::machine::Machine;
use crate::resident::MemoryMaps;
use crate::say::say;
use crate::sched::fair::Claim;
use crate::sched::governor::processors;
use crate::sched::ledger::{Ledger, LedgerError, Member, TakenSlot};
use crate::sched::seat::Seat;
use crate::signals::Signals;
use crate::spec::{MAX_SPEC_BYTES, SliverSpec, SpecError};
use crate::start::{Milestones, StartError, Started, Supplies, start};
use crate::stopwatch::Stopwatch;

/// A sliver could not be taken over from who starts it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum TakeOverError {
    #[error(transparent)]
    Given(#[from] GivenError),
    #[error("cannot read the spec: {0}")]
    Spec(io::Error),
    #[error(transparent)]
    BadSpec(#[from] SpecError),
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Landlock(#[from] LandlockError),
}

/// Everything that a sliver is made of.
#[derive(Debug)]
pub struct Sliver {
    spec: SliverSpec,
    tie: UnixStream,
    tied: bool,
    core: Option<File>,
    maps: MemoryMaps,
    supplies: Supplies,
    seat: Option<Seat>,
    post: Post,
}

impl Sliver {
    /// Takes over what was handed in for it. The tie is who starts it, and, if it is to end with
    /// them, who runs it.
    pub fn take_over(
        mut given: Given,
        hello: &Hello,
        tie: UnixStream,
    ) -> Result<Self, TakeOverError> {
        let system = |what| move |source| TakeOverError::System { what, source };
        let spec = read_spec(given.file(Role::Spec)?)?;
        let post = Post::take(&mut given, hello)?;
        let process = given.file(Role::Process)?;
        let maps =
            MemoryMaps::open(process).map_err(system("look at the memory of this process"))?;
        let ledger = take_ledger(&mut given, hello, &spec)?;
        let keeper = given.take(Role::Keeper).map(|keeper| {
            let (ledger, name) = (hello.ledger.clone(), spec.name());
            Seat::new(keeper.into(), ledger, hello.pid, name).map_err(system("keep in touch"))
        });
        let card = |card| {
            Some((
                given.take(Role::Tap(card))?,
                given.take(Role::Figures(card)),
            ))
        };
        let cards = (0..spec.nets().len()).map_while(card);
        let cards: Vec<_> = cards
            .map(|(tap, figures)| (tap, figures.map(File::from)))
            .collect();
        let disks = (0..spec.disks().len()).map(|disk| given.file(Role::Disk(disk)));
        let disks = disks.collect::<Result<_, _>>()?;
        let vsock = given.take(Role::Vsock);
        let outside = Outside {
            console: given.file(Role::Console)?,
            input: given.take(Role::Input).map(File::from),
            disks,
            cards,
            uplink: given.take(Role::Uplink).map(File::from),
            vsock: vsock.map(|listener| (listener, hello.vsock.clone())),
        };
        if !hello.without.has(Layer::Landlock) {
            forbid_everything()?;
        }
        // Nobody but root may look into it, not even who shares its user.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|errno| system("close this process to others")(errno.into()))?;
        Ok(Self {
            tie,
            tied: hello.tied,
            core: given.take(Role::Core).map(File::from),
            maps,
            supplies: Supplies {
                kvm: given.file(Role::Kvm)?,
                image: given.file(Role::Image)?,
                initrd: given.take(Role::Initrd).map(File::from),
                outside,
                ledger,
            },
            seat: keeper.transpose()?,
            post,
            spec,
        })
    }

    /// Runs it to its end.
    pub fn run(self, watch: Stopwatch) -> ExitRecord {
        let Self {
            spec,
            tie,
            tied,
            core,
            maps,
            supplies,
            seat,
            post,
        } = self;
        let tie = tied.then_some(tie);
        let signals = match Signals::take_over(tied) {
            Ok(signals) => signals,
            Err(source) => {
                let message = StartError::system("block signals")(source).to_string();
                let record = ExitRecord::of_error(spec.name(), spec.slice(), message);
                leave(&post, &record);
                tell_ended(tie.as_ref(), &record);
                return record;
            }
        };
        let endings = Endings::new(signals, tie, spec.time_limit(), watch.started());
        let (record, endings) = match start(&spec, supplies, &endings, watch) {
            Ok(Started { machine, vcpu0 }) => {
                let server = Server::new(
                    Arc::clone(&machine),
                    spec.clone(),
                    watch.started(),
                    (post, endings),
                    seat,
                );
                let (post, endings) = server.serve();
                let milestones = vcpu0.join().unwrap_or_default();
                let last = Last {
                    core: core.as_ref(),
                    maps: &maps,
                    milestones,
                };
                let record = make_record(&spec, &machine, &last, &watch);
                leave(&post, &record);
                if let Some(gate) = machine.gate() {
                    traffic::tell_last(gate, endings.tie());
                }
                (record, endings)
            }
            Err(exit) => {
                let record = ExitRecord::not_started(spec.name(), spec.slice(), exit);
                leave(&post, &record);
                (record, endings)
            }
        };
        tell_ended(endings.tie(), &record);
        record
    }
}

fn read_spec(file: File) -> Result<SliverSpec, TakeOverError> {
    let mut text = Vec::new();
    file.take(MAX_SPEC_BYTES as u64 + 1)
        .read_to_end(&mut text)
        .map_err(TakeOverError::Spec)?;
    Ok(SliverSpec::parse(&text)?)
}

/// Moves into the slot that was taken for this sliver.
fn take_ledger(
    given: &mut Given,
    hello: &Hello,
    spec: &SliverSpec,
) -> Result<Option<Ledger>, TakeOverError> {
    let files = (
        given.take(Role::LedgerReader),
        given.take(Role::LedgerWriter),
    );
    let (Some(reader), Some(writer)) = files else {
        return Ok(None);
    };
    let taken = TakenSlot {
        reader: reader.into(),
        writer: writer.into(),
        slot: hello.slot,
    };
    let uplink = membership_of(spec);
    let member = Member {
        pid: hello.pid,
        name: spec.name(),
        claim: Claim::of(spec.cpu(), spec.vcpus(), processors()),
        uplink: uplink.as_ref(),
    };
    let ledger = Ledger::adopt(taken, &hello.ledger, &member, processors())?;
    Ok(Some(ledger))
}

fn leave(post: &Post, record: &ExitRecord) {
    if let Err(error) = post.leave_record(record) {
        say(&format!("cannot write the exit record: {error}"));
    }
}

/// What a record is made of, beside the machine.
struct Last<'a> {
    core: Option<&'a File>,
    maps: &'a MemoryMaps,
    milestones: Milestones,
}

fn make_record(
    spec: &SliverSpec,
    machine: &Machine,
    last: &Last<'_>,
    watch: &Stopwatch,
) -> ExitRecord {
    let Last {
        core,
        maps,
        milestones,
    } = last;
    let exit = machine
        .lifecycle
        .end_reason()
        .unwrap_or_else(|| Exit::error("it did not end"));
    if exit.kind == ExitKind::Fault
        && let Some(file) = core
        && let Err(error) = core::write(machine, &registers(machine, &exit), maps.pagemap(), file)
    {
        say(&format!("cannot write the core: {error}"));
        // Half a core would pass for a whole one.
        let _ = file.set_len(0);
    }
    let memory = maps.usage(machine.vm().ram().host_range());
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
