//! `limits`, and the flags that tell what a sliver is granted: the same for a new one and for one
//! that runs.

use clap::{Args, Subcommand};

use super::{StatusArgs, examples};

/// Where the help tells of quotas of processor time.
pub(super) const PROCESSORS: &str = "Processor time";

/// Where it tells of limits of traffic.
pub(super) const NETWORK: &str = "Network";

/// Where it tells of limits of disks.
const DISKS: &str = "Disks";

/// Arguments of `limits`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::LIMITS, arg_required_else_help = true)]
pub struct LimitsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LimitsCommand,
}

/// What `limits` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum LimitsCommand {
    /// Tell the limits of a sliver
    #[command(after_help = examples::LIMITS)]
    Get(StatusArgs),
    /// Change some of them, at once; all that are named or none
    Set(Box<LimitsSetArgs>),
}

/// Arguments of `limits set`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::LIMITS)]
pub struct LimitsSetArgs {
    /// Name of the sliver
    pub name: String,
    /// What it is granted from now on.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Print the limits that are then in force as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a sliver is granted.
#[derive(Debug, Clone, Default, Args)]
pub struct LimitArgs {
    /// Of the processors.
    #[command(flatten)]
    pub cpu: CpuArgs,
    /// Of the network.
    #[command(flatten)]
    pub net: NetArgs,
    /// Of the disks.
    #[command(flatten)]
    pub disk: DiskArgs,
}

/// Quotas of processor time.
#[derive(Debug, Clone, Default, Args)]
pub struct CpuArgs {
    /// Never more than this much of one processor, such as 50 or 150 (two vCPUs); none: no cap
    #[arg(long, value_name = "PERCENT|none", allow_hyphen_values = true, help_heading = PROCESSORS)]
    pub cpu_cap: Option<String>,
    /// Never less, if it wants that: percent of all of this host's processors [default: 0]
    #[arg(long, value_name = "PERCENT", allow_hyphen_values = true, help_heading = PROCESSORS)]
    pub cpu_pct: Option<String>,
    /// Its weight in what nobody has reserved, 1 to 10000 [default: 1]
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = PROCESSORS)]
    pub cpu_share: Option<String>,
    /// What it may save up under its cap for later, in ms of processor time [default: 0]
    #[arg(long, value_name = "MS", allow_hyphen_values = true, help_heading = PROCESSORS)]
    pub cpu_burst: Option<String>,
    /// How often the budget under its cap is renewed, in ms, 1 to 100 [default: 10]
    #[arg(long, value_name = "MS", allow_hyphen_values = true, help_heading = PROCESSORS)]
    pub cpu_period: Option<String>,
}

/// Limits of traffic, under PlanetLab's names.
#[derive(Debug, Clone, Default, Args)]
pub struct NetArgs {
    /// It never sends more than this: 10mbit, 512kbit, 1gbit, a bare number of kbit/s, or none
    #[arg(long, value_name = "RATE|none", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_max_rate: Option<String>,
    /// Never less, if it wants that and shares an uplink [default: 0]
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_min_rate: Option<String>,
    /// Its weight in what is left of the uplink, 1 to 10000 [default: 1]
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_share: Option<String>,
    /// What may follow without a pause: 64K, a bare number of KiB, or none for the usual [default: 2
    /// ms at the rate, at least 32K]
    #[arg(long, value_name = "SIZE|none", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_burst: Option<String>,
    /// What it may send in a day (UTC): 10G, a bare number of KiB, or none
    #[arg(long, visible_alias = "net-allowance", value_name = "SIZE|none", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_max_kbyte: Option<String>,
    /// From there on, what is left of the day's allowance is spread over what is left of the day
    /// [default, and none: nine tenths of it]
    #[arg(long, value_name = "SIZE|none", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_thresh_kbyte: Option<String>,
    /// Where traffic goes that has limits of its own, the --net-exempt-*: prefixes, or none
    #[arg(long, value_name = "PREFIX,...|none", value_delimiter = ',', help_heading = NETWORK)]
    pub net_exempt: Vec<String>,
    /// As --net-max-rate, of exempt traffic
    #[arg(long, value_name = "RATE|none", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_exempt_max_rate: Option<String>,
    /// As --net-min-rate, of exempt traffic
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_exempt_min_rate: Option<String>,
    /// As --net-max-kbyte, of exempt traffic
    #[arg(long, visible_alias = "net-exempt-allowance", value_name = "SIZE|none", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_exempt_max_kbyte: Option<String>,
    /// As --net-thresh-kbyte, of exempt traffic
    #[arg(long, value_name = "SIZE|none", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_exempt_thresh_kbyte: Option<String>,
    /// It is never handed more than this; what comes faster, the host drops
    #[arg(long, value_name = "RATE|none", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_rx_max_rate: Option<String>,
    /// As --net-burst, of what it is handed
    #[arg(long, value_name = "SIZE|none", allow_hyphen_values = true, help_heading = NETWORK)]
    pub net_rx_burst: Option<String>,
}

/// Limits of all disks of a sliver together.
#[derive(Debug, Clone, Default, Args)]
pub struct DiskArgs {
    /// They never read and write more than this in a second: 50M, a bare number of KiB, or none
    #[arg(long, value_name = "SIZE|none", allow_hyphen_values = true, help_heading = DISKS)]
    pub disk_rate: Option<String>,
    /// Never more requests in a second, or none
    #[arg(long, value_name = "N|none", allow_hyphen_values = true, help_heading = DISKS)]
    pub disk_iops: Option<String>,
}
