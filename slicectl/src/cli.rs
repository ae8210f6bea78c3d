//! The command line: what can be written, and the help that says so.
//!
//! Values that need more than a look (sizes, names, addresses) stay text here: the commands check
//! them and report all that is wrong at once, not only the first.

mod audit;
mod examples;
mod limits;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use limits::{NETWORK, PROCESSORS};
use vmm::jail::Layer;

pub use audit::{
    AuditArgs, BlockAddArgs, BlockArgs, BlockCommand, BlockRmArgs, EventsArgs, FlowsArgs,
    RecordArgs,
};
pub use limits::{CpuArgs, DiskArgs, LimitArgs, LimitsArgs, LimitsCommand, LimitsSetArgs, NetArgs};

/// Where the help of `run` tells what native images do not know.
const KERNELS: &str = "Kernels";

/// Where the help of `run` tells of the monitor's jail.
const JAIL: &str = "Jail";

/// Boots, steers and inspects slivers: virtual machines of a slice, on this host.
#[derive(Debug, Parser)]
#[command(name = "slicectl", version, propagate_version = true, after_help = examples::TOP)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot an image as a sliver in the foreground and end with its exit status
    Run(Box<RunArgs>),
    /// Build a cargo package as a native image and print the image's path
    Build(BuildArgs),
    /// Tell what an image file is, and every reason why it would be refused
    Inspect(InspectArgs),
    /// Check this host: is everything there that slivers need?
    #[command(after_help = examples::DOCTOR)]
    Doctor(JsonArgs),
    /// List the slivers that run on this host
    #[command(after_help = examples::PS)]
    Ps(JsonArgs),
    /// Tell how a sliver does
    Status(StatusArgs),
    /// Stop all vCPUs of a sliver until it is resumed
    Pause(NameArgs),
    /// Let a paused sliver go on
    Resume(NameArgs),
    /// End a sliver and wait until it is gone
    Stop(StopArgs),
    /// Ask a sliver's guest to give memory back to this host
    Balloon(BalloonArgs),
    /// Tell or change what a running sliver is granted: processors, network, disks
    Limits(Box<LimitsArgs>),
    /// Run a sliver that sends a load which can be had again: web, bulk or voip
    Traffic(TrafficArgs),
    /// Show what the slivers of this host use, again and again
    Top(TopArgs),
    /// Tell who spoke with an address: the slice, its owner and the flows
    Flows(FlowsArgs),
    /// Let nobody send to an address any more, from now on
    Block(BlockArgs),
    /// Tell what happened: drops, caps that were reached, blocks, long probes
    Events(EventsArgs),
    /// Copy a sliver's packets into a file that tcpdump and Wireshark read
    Capture(CaptureArgs),
    /// List the ledger's entries, and find those that do not tell the truth
    Ledger(LedgerArgs),
    /// Try the CPU scheduler with slivers that are only imagined
    Simulate(SimulateArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands into a directory
    Man(ManArgs),
    /// Find the functions at addresses of an image (in a process of its own: see `backtrace`)
    #[command(name = crate::backtrace::COMMAND, hide = true)]
    Symbolise(SymboliseArgs),
}

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::RUN, after_long_help = examples::RUN_LONG)]
pub struct RunArgs {
    /// An image file or the name of an example; with --kernel, the first disk
    #[arg(required_unless_present = "kernel")]
    pub image: Option<String>,
    /// Name of the sliver, unique on this host [default: image name and a number]
    #[arg(long)]
    pub name: Option<String>,
    /// Slice it belongs to, SITE_NAME [default: local_IMAGE]
    #[arg(long)]
    pub slice: Option<String>,
    /// Who answers for it [default: you]
    #[arg(long)]
    pub owner: Option<String>,
    /// How to reach the owner [default: you at this host]
    #[arg(long)]
    pub contact: Option<String>,
    /// Memory, such as 64M or 1G [default: 64M, 256M for a kernel]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub mem: Option<String>,
    /// Number of virtual processors
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        allow_hyphen_values = true
    )]
    pub vcpus: String,
    /// Arguments for the guest, split as a shell would; those after -- follow them
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// End it after this time (exit code 124), such as 10s, 500ms or 2m
    #[arg(long = "for", value_name = "TIME", allow_hyphen_values = true)]
    pub time_limit: Option<String>,
    /// Give it a network card: tap[=NAME] or nat and, after commas, addr=CIDR, gw=IP, mac=MAC,
    /// mtu=N, dns=IP, dhcp, offloads=on|off, and for nat ports=FIRST-LAST
    #[arg(long, value_name = "tap[=NAME]|nat,...", allow_hyphen_values = true)]
    pub net: Vec<String>,
    /// Let a port of this host lead to a port of the sliver
    #[arg(
        help = "Let a port of this host lead to a port of the sliver: [IP:]HOST:GUEST[/tcp|/udp]",
        long,
        short = 'p',
        value_name = "HOST:GUEST",
        allow_hyphen_values = true
    )]
    pub publish: Vec<String>,
    /// Give it a disk: a file or block device and, after commas, ro, direct, serial=TEXT
    #[arg(long, value_name = "PATH[,ro]...")]
    pub disk: Vec<String>,
    /// Connect the sliver's vsock ports with unix sockets in this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub vsock_dir: Option<String>,
    /// Where its console goes: a file, stdio (with input) or none [default: stdout; for a kernel
    /// stdio if that is a terminal]
    #[arg(long, value_name = "FILE|stdio|none", value_hint = ValueHint::FilePath)]
    pub console: Option<String>,
    /// Take this terminal's keys for the guest until these come [default for a kernel: ctrl-]]
    #[arg(
        help = "Give the guest every key of this terminal until these come, or none [default for a \
                kernel: ctrl-]]",
        long,
        value_name = "KEYS"
    )]
    pub detach_keys: Option<String>,
    /// Take this much memory from the guest at the start, such as 32M
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub balloon: Option<String>,
    /// Boot this kernel; IMAGE is its first disk then
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = KERNELS)]
    pub kernel: Option<String>,
    /// The kernel's initial RAM disk
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = KERNELS)]
    pub initrd: Option<String>,
    /// Add this to the kernel's command line; may be given again
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = KERNELS)]
    pub append: Vec<String>,
    /// How the kernel is entered: auto, linux or pvh
    #[arg(long, value_name = "PROTOCOL", help_heading = KERNELS)]
    pub boot: Option<String>,
    /// Make no ACPI tables: devices are told on the kernel's command line
    #[arg(long, help_heading = KERNELS)]
    pub no_acpi: bool,
    /// The kernel's console: serial or virtio [default: serial]
    #[arg(long, value_name = "CONSOLE", help_heading = KERNELS)]
    pub kernel_console: Option<String>,
    /// Let the holder of this key log in: a public key or a file of some (cloud-init)
    #[arg(long, value_name = "FILE|KEY", allow_hyphen_values = true, value_hint = ValueHint::FilePath, help_heading = KERNELS)]
    pub ssh_key: Vec<String>,
    /// The host's name [default: the sliver's] (cloud-init)
    #[arg(long, value_name = "NAME", help_heading = KERNELS)]
    pub hostname: Option<String>,
    /// What else the guest shall do at its first start (cloud-init)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = KERNELS)]
    pub user_data: Option<PathBuf>,
    /// Boot a kernel even if this host's KVM makes it crawl
    #[arg(long, help_heading = KERNELS)]
    pub slow: bool,
    /// What it is granted.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// The ledger through which slivers share the processors, a file in memory, or none [default:
    /// that of the run directory]
    #[arg(long, value_name = "FILE|none", value_hint = ValueHint::FilePath, help_heading = PROCESSORS)]
    pub ledger: Option<String>,
    /// Start it even where this host does not provide this layer of the monitor's jail; may be
    /// repeated. Whoever takes over the monitor gets that much further
    #[arg(long, value_name = "LAYER", help_heading = JAIL)]
    pub allow_weak_jail: Vec<Layer>,
    /// Put no control group around the monitor as a second fence
    #[arg(long, help_heading = PROCESSORS)]
    pub no_backstop: bool,
    /// Share this interface of the host, and what it carries, with other slivers and the host, such as
    /// eth0=100mbit; PlanetLab's limits hold then
    #[arg(long, value_name = "IF=RATE", help_heading = NETWORK)]
    pub uplink: Option<String>,
    /// What becomes of its records.
    #[command(flatten)]
    pub record: RecordArgs,
    /// Print where the time went, and what was used, to stderr
    #[arg(long)]
    pub timing: bool,
    /// Write an ELF core file there if the guest faults
    #[arg(long, value_name = "FILE")]
    pub core: Option<PathBuf>,
    /// Wait for gdb on this address, such as :1234, before the first instruction
    #[arg(long, value_name = "ADDR")]
    pub gdb: Option<String>,
    /// End stdout with a JSON record of the run; the guest's console goes to stderr
    #[arg(long)]
    pub json: bool,
    /// In a source tree: take the monitor and the image as they are, build nothing
    #[arg(long)]
    pub no_build: bool,
    /// Arguments for the guest
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// Arguments of `build`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::BUILD, after_long_help = examples::BUILD_LONG)]
pub struct BuildArgs {
    /// Directory of a cargo package, or the name of an example
    pub path: String,
    /// Build this example of the package
    #[arg(long, value_name = "NAME", conflicts_with = "bin")]
    pub example: Option<String>,
    /// Build this binary of the package
    #[arg(long, value_name = "NAME")]
    pub bin: Option<String>,
    /// Features of the package to switch on
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    pub features: Vec<String>,
}

/// Arguments of `inspect`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::INSPECT)]
pub struct InspectArgs {
    /// An image file, or the name of an example that was built
    pub image: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of commands that can only be told to print JSON.
#[derive(Debug, Clone, Args)]
pub struct JsonArgs {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::STEER)]
pub struct StatusArgs {
    /// Name of the sliver
    pub name: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of commands that take a sliver and nothing else.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::STEER)]
pub struct NameArgs {
    /// Name of the sliver
    pub name: String,
}

/// Arguments of `stop`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::STOP)]
pub struct StopArgs {
    /// Name of the sliver
    pub name: String,
    /// How long a legacy sliver may take to power off before it is ended; 0s: it is ended at once
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub grace: String,
}

/// Arguments of `balloon`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::BALLOON)]
pub struct BalloonArgs {
    /// Name of the sliver
    pub name: String,
    /// Memory that the guest is to be without, such as 32M, or 0M to give it all of its memory
    #[arg(allow_hyphen_values = true)]
    pub size: String,
}

/// Arguments of `traffic`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::TRAFFIC, after_long_help = examples::TRAFFIC_LONG)]
pub struct TrafficArgs {
    /// Name of the sliver that is made for it [default: traffic and a number]
    pub name: Option<String>,
    /// Where to send, such as 192.0.2.7:9000; an IPv6 address is written in brackets
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub to: SocketAddr,
    /// What the load looks like
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Profile::Web)]
    pub profile: Profile,
    /// Payload in the mean, in kbit/s of 1000 bit/s
    #[arg(long, value_name = "KBIT", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: u64,
    /// What chance is drawn from: the same sends the same pieces at the same moments
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// For how long, in seconds
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Print what came of it as JSON
    #[arg(long)]
    pub json: bool,
    /// Flags of `slicectl run` for the sliver, its network card above all
    #[arg(last = true, value_name = "RUN FLAGS")]
    pub run: Vec<String>,
}

/// Kinds of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Short TCP connections with many small and few large objects, and pauses
    Web,
    /// One TCP connection that never rests
    Bulk,
    /// UDP datagrams of 172 bytes, every 20 ms for each call
    Voip,
}

/// Arguments of `top`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::TOP_TABLE)]
pub struct TopArgs {
    /// Only these slivers
    pub names: Vec<String>,
    /// Show it once and end
    #[arg(long)]
    pub once: bool,
    /// Print JSON: one document, or without --once one in a line each time
    #[arg(long)]
    pub json: bool,
    /// What the lines are sorted by
    #[arg(long, value_name = "KEY", value_enum, default_value_t = SortKey::Cpu)]
    pub sort: SortKey,
    /// Over which time rates are taken, and how often it is shown
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub interval: String,
}

/// What the lines of `top` can be sorted by: names upwards, figures downwards.
#[allow(missing_docs, reason = "each is a column of the table")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    Name,
    Slice,
    State,
    Cpu,
    Cap,
    Reserve,
    Share,
    Throttled,
    Memory,
    Net,
    Disk,
    Uptime,
}

/// Arguments of `capture`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::CAPTURE)]
pub struct CaptureArgs {
    /// Name of the sliver
    pub name: String,
    /// The file to write, - for stdout
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub write: PathBuf,
    /// Bytes of each packet to copy at most
    #[arg(long, value_name = "N", default_value_t = vmm::net::capture::MAX_SNAPLEN,
        value_parser = clap::value_parser!(u32).range(14..=i64::from(vmm::net::capture::MAX_SNAPLEN)))]
    pub snaplen: u32,
    /// End after this time [default: with Ctrl-C, or when the sliver ends]
    #[arg(long = "for", value_name = "TIME")]
    pub time: Option<String>,
}

/// Arguments of `ledger`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::LEDGER)]
pub struct LedgerArgs {
    /// The ledger [default: that of the run directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ledger: Option<PathBuf>,
    /// For how long claims are compared with what the kernel counts
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub interval: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `simulate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::SIMULATE, after_long_help = examples::SIMULATE_LONG)]
pub struct SimulateArgs {
    /// A built-in workload or a JSON file [default: steady]
    pub workload: Option<String>,
    /// List the built-in workloads
    #[arg(long)]
    pub list: bool,
    /// About so many slivers in all, in the workload's proportion
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=crate::simulate::MOST_SLIVERS))]
    pub slivers: Option<u32>,
    /// Processors of the node
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub cpus: u32,
    /// How long, in simulated seconds
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// What chance is drawn from: the same gives the same
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// Period of all budgets in milliseconds, 1 to 100 [default: the workload's]
    #[arg(long, value_name = "MS")]
    pub period: Option<u32>,
    /// What it takes to get a vCPU out of its guest, in microseconds
    #[arg(long, value_name = "N", default_value = "45", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub kick_us: u32,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::COMPLETIONS)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::MAN)]
pub struct ManArgs {
    /// Write slicectl.1 and a page for each command there
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Arguments of the hidden command that looks symbols up.
#[derive(Debug, Clone, Args)]
pub struct SymboliseArgs {
    /// The image file
    pub image: PathBuf,
    /// Addresses, decimal
    pub addresses: Vec<u64>,
}
