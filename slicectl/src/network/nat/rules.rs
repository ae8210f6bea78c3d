//! Rules of the kernel's packet filter, made with the program `nft`: texts, and running it.
//!
//! The rules do what a masquerade forgets, too: what connection tracking calls invalid is not
//! translated and would leave with an address that is nobody's.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use vmm::net::ports::PortRange;

use super::link::{PREFIX, UPLINK, link_name};
use crate::problem::Problem;

/// The program, and where it is if PATH does not tell.
const PROGRAMS: [&str; 2] = ["nft", "/usr/sbin/nft"];

/// What the host's tables are called, before the range and the number of the link.
const TABLE: &str = "slicevisor";

/// Name of the host's table for a link. No two links ever have the same number.
pub(super) fn table_name(ports: PortRange, link: u32) -> String {
    format!("{TABLE}_{}_{}_if{link}", ports.first(), ports.last())
}

/// The number of the link that a table of that name is for.
fn link_of(table: &str) -> Option<u32> {
    let rest = table.strip_prefix(TABLE)?.strip_prefix('_')?;
    rest.rsplit_once("_if")?.1.parse().ok()
}

/// The table of a sliver's namespace, in which `taps` lead out.
pub(super) fn inside(ports: PortRange, taps: &[String]) -> String {
    let taps: Vec<String> = taps.iter().map(|tap| format!("\"{tap}\"")).collect();
    let taps = taps.join(", ");
    format!(
        "table ip {TABLE} {{
    chain out {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname \"{UPLINK}\" meta l4proto {{ tcp, udp }} masquerade to :{ports}
        oifname \"{UPLINK}\" masquerade
    }}
    chain through {{
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        iifname {{ {taps} }} oifname \"{UPLINK}\" accept
        iifname \"{UPLINK}\" ct state established,related accept
    }}
    chain here {{
        type filter hook input priority filter; policy accept;
        iifname \"{UPLINK}\" ct state established,related accept
        iifname \"{UPLINK}\" drop
    }}
}}
"
    )
}

/// The host's table for a link: what comes from it goes out with the host's address, and neither to
/// the host nor to other slivers; what goes to it is an answer. Who sends is told of a refusal before
/// the table of who would receive drops it.
pub(super) fn outside(table: &str, ports: PortRange) -> String {
    let link = link_name(ports);
    format!(
        "table ip {table} {{
    chain out {{
        type nat hook postrouting priority srcnat; policy accept;
        iifname \"{link}\" meta l4proto {{ tcp, udp }} masquerade to :{ports}
        iifname \"{link}\" masquerade
    }}
    chain from {{
        type filter hook forward priority filter - 1; policy accept;
        iifname \"{link}\" ct state invalid drop
        iifname \"{link}\" oifname \"{PREFIX}*\" reject with icmp type admin-prohibited
    }}
    chain to {{
        type filter hook forward priority filter; policy accept;
        oifname \"{link}\" ct state established,related accept
        oifname \"{link}\" drop
    }}
    chain here {{
        type filter hook input priority filter; policy accept;
        iifname \"{link}\" ct state established,related accept
        iifname \"{link}\" reject with icmp type admin-prohibited
    }}
}}
"
    )
}

/// Whether the program is there.
pub(super) fn program_is_there() -> bool {
    run(&["--version"], "").is_ok_and(|output| output.status.success())
}

/// What to say if it is not.
pub(super) fn no_program() -> Problem {
    Problem::new("--net nat", "the program nft is not there, or does not run")
        .mend("install it: sudo apt install nftables, or what your distribution calls the package")
}

/// Adds rules, all or none, to the calling thread's namespace.
pub(super) fn load(rules: &str) -> Result<(), Problem> {
    let output = run(&["-f", "-"], rules).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => no_program(),
        _ => Problem::new("--net nat", format!("nft cannot be run: {error}")),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let first = told.lines().find(|line| !line.trim().is_empty());
    let why = format!(
        "the packet filter refuses its rules: {}",
        first.unwrap_or("nft does not say why")
    );
    Err(Problem::new("--net nat", why)
        .mend("it takes Linux with nf_tables and masquerade; as root, nft list ruleset tells"))
}

/// Removes a table.
pub(super) fn remove(table: &str) -> io::Result<()> {
    run(&["delete", "table", "ip", table], "").map(drop)
}

/// Removes the tables of links that are gone.
pub(super) fn sweep(exists: impl Fn(u32) -> bool) {
    let Ok(listed) = run(&["list", "tables", "ip"], "") else {
        return;
    };
    for table in abandoned(&String::from_utf8_lossy(&listed.stdout), exists) {
        // Nobody is harmed by what stays, and nobody else will have its name.
        let _ = remove(&table);
    }
}

/// The tables in a listing whose links are gone. A table is made after its link: one whose link is
/// not there will never be needed.
fn abandoned(listing: &str, exists: impl Fn(u32) -> bool) -> Vec<String> {
    let tables = listing
        .lines()
        .filter_map(|line| line.strip_prefix("table ip "));
    let gone = tables.filter(|table| link_of(table).is_some_and(|link| !exists(link)));
    gone.map(str::to_owned).collect()
}

fn run(arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for program in PROGRAMS {
        result = run_one(program, arguments, input);
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    result
}

fn run_one(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // What it does not read, it finds wrong: its own words say more.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_tables_of_links_that_are_gone_are_swept() {
        let listing = "table ip filter\ntable ip slicevisor_17000_17999_if7\n\
                       table ip slicevisor_18000_18999_if9\ntable ip slicevisor\n\
                       table ip slicevisor_x_ify\ntable ip6 slicevisor_19000_19999_if8\n";
        let gone = abandoned(listing, |link| link == 7);
        assert_eq!(gone, ["slicevisor_18000_18999_if9"]);
    }

    #[test]
    fn a_table_s_name_tells_its_link() {
        let ports = PortRange::new(17_000, 17_999).unwrap();
        assert_eq!(link_of(&table_name(ports, 4711)), Some(4711));
    }
}
