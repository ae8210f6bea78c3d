//! `slicectl flows`: who was it? The answer to a complaint.

use std::net::{IpAddr, SocketAddr};

use vmm::control::proto::{FlowEnd, FlowRecord, Opened};

use crate::audit;
use crate::audit::time::{format_moment, parse_past};
use crate::cli::FlowsArgs;
use crate::problem::{FAILED, Failure, Problem, USAGE};
use crate::report::{print, print_json, say};
use crate::store::{Source, StoredFlow, WantedFlows, now_ms};
use crate::text::{columns, printable};
use crate::units::format_bytes;

/// How far clocks and memories of those who complain are off.
const ABOUT_MS: u64 = 5 * 60_000;

/// Runs the command; the exit code.
pub fn run(args: &FlowsArgs) -> Result<u8, Failure> {
    let wanted = wanted(args, now_ms())?;
    let store = audit::open(args.audit.audit.as_deref()).map_err(Problem::from)?;
    let found = store.flows(&wanted).map_err(Problem::from)?;
    if args.audit.json {
        print_json(&found)?;
    } else {
        print(told(&found))?;
        if found.is_empty() {
            say("no such flow is stored; one that lasts is stored once a minute");
        }
    }
    if !found.is_empty() && found.len() == wanted.most {
        say(format!(
            "these are the latest {}; --limit N shows more",
            wanted.most
        ));
    }
    Ok(if found.is_empty() { FAILED } else { 0 })
}

fn wanted(args: &FlowsArgs, now_ms: u64) -> Result<WantedFlows, Failure> {
    let mut problems = Vec::new();
    let mut wanted = WantedFlows {
        remote_port: args.port,
        slice: args.slice.clone(),
        most: args.limit.max(1),
        ..Default::default()
    };
    if let Some(text) = &args.dst {
        match text.parse() {
            Ok(prefix) => wanted.remote = Some(prefix),
            Err(error) => problems.push(Problem::new("--dst", format!("{text:?} {error}"))),
        }
    }
    if let Some(text) = &args.src {
        match source(text) {
            Ok((from, port)) => (wanted.source, wanted.source_port) = (from, port),
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(text) = &args.at {
        match parse_past(text, now_ms) {
            Ok(at) => {
                wanted.from_ms = Some(at.saturating_sub(ABOUT_MS));
                wanted.until_ms = Some(at.saturating_add(ABOUT_MS));
            }
            Err(why) => problems.push(Problem::new("--at", why)),
        }
    }
    if let Some(text) = &args.since {
        match parse_past(text, now_ms) {
            Ok(since) => wanted.from_ms = Some(since),
            Err(why) => problems.push(Problem::new("--since", why)),
        }
    }
    match problems.is_empty() {
        true => Ok(wanted),
        false => Err(Failure::new(USAGE, problems)),
    }
}

/// `NODE`, `ADDR`, or one of these and a port; a port alone is `:PORT`.
fn source(text: &str) -> Result<(Option<Source>, Option<u16>), Problem> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Some(Source::Address(address.ip())), Some(address.port())));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok((Some(Source::Address(address)), None));
    }
    let (node, port) = match text.rsplit_once(':') {
        Some((node, port)) => (node, Some(port)),
        None => (text, None),
    };
    let port = port.map(|port| {
        port.parse().map_err(|_| {
            let why = format!("{port:?} is no port");
            Problem::new("--src", why).mend("write NODE:PORT, ADDRESS:PORT or [ADDRESS]:PORT")
        })
    });
    let node = (!node.is_empty()).then(|| Source::Node(node.to_owned()));
    Ok((node, port.transpose()?))
}

/// All flows, below the slice that each is of.
fn told(found: &[StoredFlow]) -> String {
    let mut left: Vec<&StoredFlow> = found.iter().collect();
    let mut out = String::new();
    while let Some(first) = left.first().copied() {
        let key = |flow: &StoredFlow| {
            let who = &flow.who;
            (who.slice.clone(), who.owner.clone(), who.contact.clone())
        };
        let of = key(first);
        let (these, others) = left.into_iter().partition(|flow| key(flow) == of);
        left = others;
        let these: Vec<&StoredFlow> = these;
        let (slice, owner, contact) = of;
        out.push_str(&format!(
            "slice {}, owner {}, contact {} ({} flows)\n",
            printable(&slice),
            printable(&owner),
            printable(&contact),
            these.len()
        ));
        out.push_str(&columns(&rows(&these)));
        out.push('\n');
    }
    out.pop();
    out
}

fn rows(flows: &[&StoredFlow]) -> Vec<Vec<String>> {
    let head = [
        "FIRST (UTC)",
        "LAST",
        "SLIVER",
        "PROTOCOL",
        "INSIDE",
        "SEEN AS",
        "",
        "REMOTE",
        "SENT",
        "RECEIVED",
        "END",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(flows.iter().map(|StoredFlow { who, flow }| {
        let last = format_moment(flow.last_ms);
        vec![
            format_moment(flow.first_ms),
            last.split(' ').next_back().unwrap_or(&last).to_owned(),
            printable(&who.name),
            protocol(flow.protocol),
            endpoint(flow, flow.inside, flow.inside_port),
            seen_as(&who.public, flow),
            match flow.opened {
                Opened::Out => "->".to_owned(),
                Opened::In => "<-".to_owned(),
            },
            endpoint(flow, flow.remote, flow.remote_port),
            format!("{} / {}", flow.tx_packets, format_bytes(flow.tx_bytes)),
            format!("{} / {}", flow.rx_packets, format_bytes(flow.rx_bytes)),
            end(flow.end).to_owned(),
        ]
    }));
    rows
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        other => other.to_string(),
    }
}

fn has_ports(flow: &FlowRecord) -> bool {
    matches!(flow.protocol, 6 | 17)
}

fn endpoint(flow: &FlowRecord, address: IpAddr, port: u16) -> String {
    match has_ports(flow) {
        true => SocketAddr::new(address, port).to_string(),
        false => address.to_string(),
    }
}

fn seen_as(public: &str, flow: &FlowRecord) -> String {
    match flow.outside_port {
        Some(port) => format!("{}:{port}", printable(public)),
        None => "the same".to_owned(),
    }
}

fn end(end: FlowEnd) -> &'static str {
    match end {
        FlowEnd::Idle => "idle",
        FlowEnd::Closed => "closed",
        FlowEnd::Cut => "goes on",
        FlowEnd::Evicted => "evicted",
        FlowEnd::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{flow, who};

    #[test]
    fn a_source_is_a_node_an_address_or_a_port() {
        let address = |text: &str| Some(Source::Address(text.parse().expect("an address")));
        let node = Some(Source::Node("node-1".to_owned()));
        for (text, expected) in [
            ("node-1", (node.clone(), None)),
            ("node-1:20017", (node, Some(20_017))),
            (":20017", (None, Some(20_017))),
            ("192.0.2.1", (address("192.0.2.1"), None)),
            ("192.0.2.1:7", (address("192.0.2.1"), Some(7))),
            ("2001:db8::1", (address("2001:db8::1"), None)),
            ("[2001:db8::1]:7", (address("2001:db8::1"), Some(7))),
        ] {
            assert_eq!(source(text), Ok(expected), "{text}");
        }
        assert!(source("node-1:70000").is_err());
    }

    #[test]
    fn the_slice_and_its_contact_come_before_its_flows_and_cannot_move_the_cursor() {
        let mut other = who("site_b");
        other.contact = "b\x1b[2J".to_owned();
        let found: Vec<StoredFlow> = [who("site_a"), other, who("site_a")]
            .into_iter()
            .map(|who| StoredFlow {
                who,
                flow: flow("192.0.2.7", 1_000_000),
            })
            .collect();
        let told = told(&found);
        assert!(
            told.starts_with("slice site_a, owner Ada, contact ada@example.org (2 flows)\n"),
            "{told}"
        );
        assert!(told.contains("\n\nslice site_b"));
        assert!(told.contains("10.0.0.2:5000") && told.contains("198.51.100.1:20007"));
        assert!(!told.contains('\x1b'));
    }
}
