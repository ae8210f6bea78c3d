//! What can be asked of the audit, and blocks.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::examples::audit as examples;

/// Where the help of `run` tells of the audit.
const AUDIT: &str = "Audit";

/// Arguments of `flows`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::FLOWS)]
pub struct FlowsArgs {
    /// The address that was spoken with, or a prefix of such
    #[arg(long, value_name = "ADDR[/BITS]")]
    pub dst: Option<String>,
    /// Where it came from: a node's name or an address and, after a colon, the port that was seen
    #[arg(long, value_name = "NODE|ADDR[:PORT]")]
    pub src: Option<String>,
    /// The port that was spoken with
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// About this time (UTC), 5 minutes more or less: 14:03, 2026-11-23T14:03, @SECONDS
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    pub at: Option<String>,
    /// Since this time, or for so long: 14:03, 1h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Of this slice only
    #[arg(long)]
    pub slice: Option<String>,
    /// How many at most, the latest first
    #[arg(long, value_name = "N", default_value = "1000")]
    pub limit: usize,
    /// Where to look.
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// Arguments of all that speaks with the audit.
#[derive(Debug, Clone, Default, Args)]
pub struct AuditArgs {
    /// The audit [default: that of the run directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub audit: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `block`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::BLOCK, arg_required_else_help = true)]
pub struct BlockArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: BlockCommand,
}

/// What `block` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum BlockCommand {
    /// Let nothing be sent to a prefix any more
    Add(BlockAddArgs),
    /// Take a block away
    Rm(BlockRmArgs),
    /// List the blocks
    #[command(after_help = examples::BLOCK)]
    Ls(AuditArgs),
}

/// Arguments of `block add`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::BLOCK)]
pub struct BlockAddArgs {
    /// An address, or a prefix such as 192.0.2.0/24
    pub prefix: String,
    /// Only for the slivers of this slice
    #[arg(long)]
    pub slice: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Until when (UTC), or for how long: 18:00, 2026-12-01, 2d [default: for ever]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Where it is kept.
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// Arguments of `block rm`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::BLOCK)]
pub struct BlockRmArgs {
    /// The prefix, as it was blocked
    pub prefix: String,
    /// The slice that it was blocked for
    #[arg(long)]
    pub slice: Option<String>,
    /// Where it is kept.
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// Arguments of `events`.
#[derive(Debug, Clone, Args)]
#[command(after_help = examples::EVENTS)]
pub struct EventsArgs {
    /// Only those of this sliver
    pub name: Option<String>,
    /// Only those of this slice
    #[arg(long)]
    pub slice: Option<String>,
    /// Only those of this kind
    #[arg(long)]
    pub kind: Option<String>,
    /// Since this time (UTC), or for so long: 14:03, 1h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Go on with what happens from now on
    #[arg(long, short)]
    pub follow: bool,
    /// How many at most, the latest
    #[arg(long, value_name = "N", default_value = "100")]
    pub limit: usize,
    /// Where to look.
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// What becomes of a sliver's records.
#[derive(Debug, Clone, Default, Args)]
pub struct RecordArgs {
    /// Where flows and events are stored [default: the run directory's audit]
    #[arg(long, value_name = "FILE|none", value_hint = ValueHint::FilePath, help_heading = AUDIT)]
    pub audit: Option<String>,
    /// For how long they are kept [default: 90d]
    #[arg(long, value_name = "TIME", help_heading = AUDIT)]
    pub audit_keep: Option<String>,
    /// How large the audit may become before the oldest goes [default: 4G]
    #[arg(long, value_name = "SIZE", help_heading = AUDIT)]
    pub audit_size: Option<String>,
    /// Let nothing pass that cannot be written down, instead of counting it
    #[arg(long, help_heading = AUDIT)]
    pub strict_audit: bool,
    /// What its guard does: enforce, report or off; or a file with all that a spec's guard can say
    #[arg(long, value_name = "MODE|FILE", value_hint = ValueHint::FilePath, help_heading = AUDIT)]
    pub guard: Option<String>,
    /// Send records of flows to this collector, too (IPFIX over UDP)
    #[arg(long, value_name = "HOST:PORT", help_heading = AUDIT)]
    pub ipfix: Option<String>,
}
