//! `slicectl run`: an image, booted as a sliver in the foreground.
//!
//! All that can be wrong is found before anything is created. Then the monitor is started, tied
//! to this process, watched until it ends, and its record turned into an exit code and a story.

mod console;
mod core_file;
mod flags;
mod guard;
mod keyboard;
mod kind;
mod monitor;
mod plan;
pub(crate) mod terminal;
mod watch;
mod window;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use vmm::exit::{Exit, ExitKind, ExitRecord};
use vmm::jail::Layers;
use vmm::launch::{Launch, LaunchError};
use vmm::spec::{Protocol, SliverSpec};

use crate::audit::collector::{Collector, Settings as Collected};
use crate::audit::known::Known;
use crate::backstop::{Backstop, Fenced};
use crate::cli::RunArgs;
use crate::doctor::facts::Processor;
use crate::gdb;
use crate::images::{Places, Wanted};
use crate::network::{self, Network};
use crate::problem::{Failure, MONITOR, Problem, STOPPED, USAGE};
use crate::report::{self, say};
use crate::signals::EndSignals;
use crate::store::{Retention, Store};
use crate::text::shell_word;
use crate::units::format_duration;
use crate::{audit, backtrace, host, kvm, person, rundir};

#[cfg(test)]
pub(crate) use kind::tests::bzimage as bzimage_for_tests;

use console::{ConsoleFile, Writer};
use core_file::CoreFile;
use flags::Console;
use keyboard::Keyboard;
use kind::{Kind, Look};
use monitor::{ConsoleInput, ConsoleOutput};
use plan::{Plan, Surroundings};
use watch::{Cause, End, Watch};
use window::Window;

/// The status with which guest programs say that they panicked.
const PANICKED: u8 = 101;

/// Runs the command; the exit code.
pub fn run(args: &RunArgs) -> u8 {
    match Run::prepare(args).and_then(Run::go) {
        Ok(Outcome { record, overhead }) => {
            if args.json {
                print_record(&record, overhead);
            }
            record.exit.status
        }
        Err(failure) => {
            let failure = failure.or_stopped();
            failure.report();
            if args.json {
                print_failure(&failure);
            }
            failure.status
        }
    }
}

/// Prints what `--json` promises for a run that never came to be.
pub fn print_failure(failure: &Failure) {
    let mut exit = match failure.status {
        STOPPED => Exit::stopped(failure.summary()),
        _ => Exit::error(failure.summary()),
    };
    exit.status = failure.status;
    print_record(&ExitRecord::not_started("", "", exit), Duration::ZERO);
}

/// How a run went.
struct Outcome {
    record: ExitRecord,
    /// Processor time of what `slicectl` itself carried for the sliver.
    overhead: Duration,
}

/// A run that can begin.
#[derive(Debug)]
struct Run {
    plan: Plan,
    spec: SliverSpec,
    signals: EndSignals,
    monitor: PathBuf,
    root: PathBuf,
    ledger: Option<PathBuf>,
    core: Option<CoreFile>,
    gdb: Option<TcpListener>,
    network: Network,
    console: Option<Writer>,
    backstop: bool,
    weak: Layers,
    audit: Option<PathBuf>,
    known: Known,
    retention: Retention,
    ipfix: Option<String>,
    timing: bool,
    json: bool,
}

impl Run {
    /// Checks flags, host and image, builds what is not up to date, and claims what can be taken
    /// by others: all before the first trace of a sliver.
    fn prepare(args: &RunArgs) -> Result<Self, Failure> {
        let fatal = |problem: Problem| Failure::new(MONITOR, vec![problem]);
        let user = person::user_name();
        let around = Surroundings {
            kvm: kvm::probe(false),
            memory: host::memory(),
            processors: host::processors(),
            contact: person::contact(&user),
            user,
            number: std::process::id(),
            terminal: terminal::is_ours(),
            processor: Processor::of_host(),
        };
        let places = Places::here();
        let wanted = find(&places, args);
        // What there is to say about flags comes first, whether there is such an image or not.
        let look = match &wanted {
            Ok(wanted) => Look::at(wanted, args.boot.as_deref().and_then(Protocol::of_name)),
            Err(_) => Kind::Unknown.into(),
        };
        let plan = plan::check(args, &look, &around)?;
        let retention = audit::retention(&args.record)?;
        let root = rundir::root();
        rundir::check_socket_path(&root, &plan.name)
            .map_err(|problem| Failure::new(USAGE, vec![problem]))?;
        let signals = EndSignals::catch()
            .map_err(|error| fatal(Problem::new("signals", error.to_string())))?;
        let wanted = wanted.map_err(fatal)?;
        let monitor = places.monitor(!args.no_build).map_err(fatal)?;
        let image = places.image(&wanted, !args.no_build).map_err(fatal)?;
        let spec = plan.spec(&image, None, &Known::default())?;
        // After what may take long: gdb would give up on an address that nobody serves yet.
        let gdb = plan.gdb.map(listen).transpose().map_err(fatal)?;
        let network = set_up_network(&plan, &spec)?;
        rundir::prepare(&root).map_err(fatal)?;
        let audit = audit::path(args.record.audit.as_deref(), &root);
        let known = known(&spec, audit.as_deref())?;
        let spec = plan.spec(&image, network.public(), &known)?;
        rundir::sweep(&root);
        let core = plan.core.as_deref().map(CoreFile::create).transpose();
        let core = core.map_err(|error| {
            fatal(Problem::new(
                "--core",
                format!("the file cannot be made: {error}"),
            ))
        })?;
        let console = write_console(&plan.devices.console).map_err(fatal)?;
        Ok(Self {
            plan,
            spec,
            signals,
            monitor,
            ledger: ledger(args.ledger.as_deref(), &root),
            audit,
            known,
            retention,
            ipfix: args.record.ipfix.clone(),
            root,
            core,
            gdb,
            network,
            console,
            backstop: !args.no_backstop,
            weak: args.allow_weak_jail.iter().copied().collect(),
            timing: args.timing,
            json: args.json,
        })
    }

    /// Starts the sliver and waits for its end.
    fn go(mut self) -> Result<Outcome, Failure> {
        let lost = |error: std::io::Error| {
            let what = format!("the monitor {}", self.monitor.display());
            Failure::new(MONITOR, vec![Problem::new(what, error.to_string())])
        };
        let mut keyboard = self.take_keyboard()?;
        let console = self.console_output().open().map_err(lost)?;
        let input = self.console_input(keyboard.as_ref()).open().map_err(lost)?;
        let launched = vmm::launch::launch(Launch {
            program: &self.monitor,
            spec: &self.spec.to_json(),
            run_dir: &self.root,
            ledger: self.ledger.as_deref(),
            core: self.core.as_ref().map(AsFd::as_fd),
            taps: self.network.taps(),
            console: console.as_fd(),
            input: Some(input.as_fd()),
            errors: std::io::stderr().as_fd(),
            tied: true,
            layers: Layers::all().without(self.weak),
        });
        drop((console, input));
        let mut monitor = match launched {
            Ok(monitor) => {
                self.tell_weak_jail();
                monitor
            }
            Err(error) => {
                drop(keyboard);
                return Ok(self.refused(&error));
            }
        };
        if let Some(keyboard) = &mut keyboard {
            keyboard.let_go();
        }
        self.network.let_go_of_taps();
        self.network.begin();
        if let Some(console) = &mut self.console {
            console.let_go();
        }

        // Under a debugger time means nothing: the monitor counts the guest's own.
        let limit = self.plan.time_limit.filter(|_| self.gdb.is_none());
        let window = self.window();
        let pid = monitor.pid();
        let watch = Watch::new(&mut monitor, &self.signals, window.as_ref(), limit);
        let mut server = None;
        let mut backstop = None;
        let mut collector = None;
        let image = self.spec.image();
        let (end, traffic) = watch.until_end(|control| {
            backstop = self
                .backstop
                .then(|| Backstop::begin(self.fenced(pid, control)));
            collector = self.collected(control).map(Collector::begin);
            if let Some(listener) = &self.gdb {
                match gdb::serve(listener, control, image, self.spec.vcpus()) {
                    Ok(serving) => server = Some(serving),
                    Err(problem) => {
                        say(problem);
                        // It waits for a debugger that cannot come.
                        gdb::stop(control, "gdb cannot be served");
                    }
                }
            }
        });
        drop(keyboard);
        drop(backstop);
        let collected = collector.map(|collector: Collector| collector.finish(traffic));
        let by_monitor = matches!(end, End::Recorded(_));
        if !by_monitor {
            rundir::remove_leftover(&self.root, self.spec.name());
        }
        let record = self.record(end);
        if let Some(server) = server {
            server.finish(record.exit.status);
        }
        // What the monitor could not do, it has told itself.
        if !(by_monitor && record.exit.kind == ExitKind::Error)
            && let Some(line) = report::ending(&record)
        {
            say(line);
        }
        let overhead = self.tell(&record) + collected.unwrap_or_default();
        Ok(Outcome { record, overhead })
    }

    /// Puts on record that the monitor's jail lacks something.
    fn tell_weak_jail(&self) {
        if self.weak.is_empty() {
            return;
        }
        let name = self.spec.name();
        let detail = format!(
            "{name} runs without {} of its jail, as was allowed",
            self.weak
        );
        let noted = self
            .audit
            .as_deref()
            .map(|path| Store::create(path).and_then(|mut store| store.note("weak_jail", &detail)));
        match noted {
            Some(Err(error)) => say(format!("{detail}; and this is not on record: {error}")),
            _ => say(detail),
        }
    }

    /// The outcome of a sliver that could not be launched.
    fn refused(mut self, error: &LaunchError) -> Outcome {
        self.network.let_go_of_taps();
        if let Some(console) = &mut self.console {
            console.let_go();
        }
        let exit = Exit::error(error.to_string());
        let record = ExitRecord::not_started(self.spec.name(), self.spec.slice(), exit);
        if let Some(line) = report::ending(&record) {
            say(line);
        }
        let overhead = self.tell(&record);
        Outcome { record, overhead }
    }

    /// Takes the terminal, if the guest gets all of its keys.
    fn take_keyboard(&self) -> Result<Option<Keyboard>, Failure> {
        let keys = self.plan.devices.detach_keys.as_ref();
        let keyboard = keys.map(|keys| Keyboard::take(keys, self.spec.name()));
        keyboard.transpose().map_err(|error| {
            let problem = Problem::new("the terminal", format!("cannot be taken: {error}"));
            Failure::new(MONITOR, vec![problem.mend("--console none needs none")])
        })
    }

    fn console_input<'a>(&self, keyboard: Option<&'a Keyboard>) -> ConsoleInput<'a> {
        match (
            keyboard.and_then(Keyboard::pipe),
            &self.plan.devices.console,
        ) {
            (Some(pipe), _) => ConsoleInput::Pipe(pipe),
            (None, Console::Stdio) => ConsoleInput::Stdin,
            (None, _) => ConsoleInput::Nowhere,
        }
    }

    fn console_output(&self) -> ConsoleOutput<'_> {
        match (&self.plan.devices.console, &self.console) {
            (Console::Nowhere, _) => ConsoleOutput::Nowhere,
            (Console::File(_), Some(writer)) => writer
                .pipe()
                .map_or(ConsoleOutput::Nowhere, ConsoleOutput::Pipe),
            // The record has stdout for itself.
            _ if self.json => ConsoleOutput::Stderr,
            _ => ConsoleOutput::Stdout,
        }
    }

    fn fenced(&self, pid: u32, control: &Path) -> Fenced {
        Fenced {
            name: self.spec.name().to_owned(),
            pid,
            control: control.to_owned(),
            limits: *self.spec.cpu(),
            vcpus: self.spec.vcpus(),
        }
    }

    /// What is written down of a sliver that can speak with others.
    fn collected(&self, control: &Path) -> Option<Collected> {
        let audit = self.audit.clone()?;
        (!self.spec.nets().is_empty()).then(|| Collected {
            control: control.to_owned(),
            who: audit::identity(&self.spec),
            audit,
            retention: self.retention,
            ipfix: self.ipfix.clone(),
            strict: self.spec.guard().strict_audit(),
            known: self.known.clone(),
        })
    }

    /// The window that the console is shown in, if it is in one whose changes can be heard of.
    fn window(&self) -> Option<Window> {
        let window = match self.console_output() {
            ConsoleOutput::Stdout => Window::of(std::io::stdout().as_fd()),
            ConsoleOutput::Stderr => Window::of(std::io::stderr().as_fd()),
            ConsoleOutput::Pipe(_) | ConsoleOutput::Nowhere => return None,
        };
        window.ok().flatten()
    }

    /// The record of the end: the monitor's, or one made up for a monitor that left none.
    fn record(&self, end: End) -> ExitRecord {
        let exit = match end {
            End::Recorded(record) => return *record,
            End::Forced(Cause::TimeLimit(limit)) => Exit::timeout(format!(
                "the monitor did not act on the limit of {}",
                format_duration(limit)
            )),
            End::Forced(Cause::Signal(signal)) => {
                Exit::stopped(format!("by {}", crate::signals::signal_name(signal)))
            }
            End::Forced(Cause::LostTie) | End::Died(None) => {
                Exit::error("the monitor ended without a word")
            }
            End::Died(Some(status)) => Exit::error(format!(
                "the monitor ended without a record: {}",
                monitor::describe(status)
            )),
        };
        ExitRecord::not_started(self.spec.name(), self.spec.slice(), exit)
    }

    /// Says on stderr what there is to say beyond the line about the end, and ends what went on
    /// beside the monitor; the processor time of that.
    fn tell(self, record: &ExitRecord) -> Duration {
        let is_impatient = || self.signals.take().is_some();
        let console = self.console.map(|writer| writer.finish(is_impatient));
        let overhead = self.network.finish() + console.unwrap_or_default();
        let detail = &record.exit.detail;
        let fault = record.exit.kind == ExitKind::Fault;
        if fault || (record.exit.kind == ExitKind::Exited && record.exit.status == PANICKED) {
            let frames = backtrace::symbolise(self.spec.image(), &detail.backtrace);
            report::note(report::backtrace(&frames));
        }
        if let Some(core) = self.core.filter(|_| fault) {
            tell_core(
                core,
                self.plan.core.as_deref().unwrap_or(Path::new("")),
                self.spec.image(),
            );
        }
        if self.timing {
            report::note(report::timing(record, overhead));
        }
        overhead
    }
}

fn tell_core(core: CoreFile, path: &Path, image: &Path) {
    let what = format!("core {}", path.display());
    match core.keep() {
        Ok(Some(_)) => say(format!(
            "core written; open it with: gdb {} {}",
            shell_word(image),
            shell_word(path)
        )),
        Ok(None) => say(Problem::new(what, "the monitor has written none")),
        Err(error) => say(Problem::new(what, error.to_string())),
    }
}

/// Finds the file that is booted: what --kernel names is never an example.
fn find(places: &Places, args: &RunArgs) -> Result<Wanted, Problem> {
    let Some(kernel) = &args.kernel else {
        return places.find(plan::image(args));
    };
    std::fs::metadata(kernel)
        .and_then(|_| std::path::absolute(kernel))
        .map(Wanted::File)
        .map_err(|error| {
            let what = format!("--kernel {kernel}");
            Problem::new(what, format!("cannot be read: {error}"))
        })
}

/// The ledger that is meant.
fn ledger(text: Option<&str>, root: &Path) -> Option<PathBuf> {
    match text {
        None => rundir::ledger_path(root),
        Some("none") => None,
        Some(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.into())),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, Problem> {
    if !address.ip().is_loopback() {
        say(format!(
            "--gdb: {address} can be reached from other machines, and whoever connects controls \
             the sliver"
        ));
    }
    TcpListener::bind(address).map_err(|error| {
        Problem::new("--gdb", format!("cannot listen on {address}: {error}"))
            .mend("choose another port, or :0 for any")
    })
}

/// Claims the published ports and makes the taps.
fn set_up_network(plan: &Plan, spec: &SliverSpec) -> Result<Network, Failure> {
    let devices = &plan.devices;
    let (mut listening, mut problems) = (Vec::new(), Vec::new());
    for publish in &devices.publishes {
        match publish.listen() {
            Ok(one) => listening.push(one),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::new(MONITOR, problems));
    }
    let chosen = devices.publishes.iter().zip(&listening);
    let chosen = chosen.filter(|(publish, _)| publish.host == 0);
    let chosen: Vec<String> = chosen.map(|(_, at)| at.to_string()).collect();
    let wanted = network::Wanted {
        cards: devices.own_cards(spec),
        listening,
        target: devices.target(spec),
        nat: devices.nat(spec.name()),
    };
    let network =
        Network::set_up(wanted).map_err(|problem| Failure::new(MONITOR, vec![problem]))?;
    // Not before it is certain that the ports lead somewhere.
    chosen.iter().for_each(say);
    if let Some(public) = network.public() {
        let of = public
            .address
            .map_or(String::new(), |at| format!(" of {at}"));
        say(format!("ports {}{of} are the sliver's", public.ports));
    }
    Ok(network)
}

/// Begins to write a console's file, if it has one.
fn write_console(console: &Console) -> Result<Option<Writer>, Problem> {
    let Console::File(path) = console else {
        return Ok(None);
    };
    let writer = ConsoleFile::open(path).and_then(Writer::begin);
    writer.map(Some).map_err(|error| {
        let what = format!("--console {}", path.display());
        Problem::new(what, format!("cannot be written: {error}"))
    })
}

/// The record that `--json` prints: the monitor's, and what this process adds to it.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    record: &'a ExitRecord,
    node_overhead_us: u64,
}

fn print_record(record: &ExitRecord, overhead: Duration) {
    let printed = Printed {
        record,
        node_overhead_us: overhead.as_micros() as u64,
    };
    let printed = serde_json::to_string(&printed)
        .map_err(|error| Problem::new("the record", error.to_string()))
        .and_then(|json| report::print(format_args!("{json}\n")));
    if let Err(problem) = printed {
        say(problem);
    }
}

/// What the audit knows of a sliver's slice. What it cannot tell, the sliver begins without; but not
/// if nothing may pass that cannot be written down.
fn known(spec: &SliverSpec, audit: Option<&Path>) -> Result<Known, Failure> {
    if spec.nets().is_empty() {
        return Ok(Known::default());
    }
    let Some(audit) = audit else {
        if has_allowance(spec) {
            say("nobody knows what the slice has sent today: its allowance begins anew");
        }
        return Ok(Known::default());
    };
    match Known::of(spec, audit) {
        Ok(known) => Ok(known),
        Err(error) if spec.guard().strict_audit() => {
            Err(Failure::new(MONITOR, vec![Problem::from(error)]))
        }
        Err(error) => {
            say(Problem::from(error));
            say("no block holds until it can be read, and the slice's allowance begins anew");
            Ok(Known::default())
        }
    }
}

fn has_allowance(spec: &SliverSpec) -> bool {
    let limits = spec.net_limits();
    [limits.plain(), limits.exempt()]
        .iter()
        .any(|class| class.max_kbyte.is_some())
}
