//! Records of flows, stored as they come and found by address, port and time.

use std::net::IpAddr;

use rusqlite::types::Value;
use rusqlite::{Row, Transaction, params, params_from_iter};
use serde::Serialize;
use vmm::control::proto::{FlowEnd, FlowRecord, Opened};
use vmm::net::prefix::Prefix;

use super::{
    Identity, Store, StoreError, identify, identity, read_address, signed, stored_address,
    stored_range, unsigned,
};

/// No record is of more time than this: flows are cut each minute, and a monitor that has a lot to
/// tell of may be late.
const LONGEST_MS: u64 = 600_000;

/// A stored record, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredFlow {
    /// Whose sliver it was.
    #[serde(flatten)]
    pub who: Identity,
    /// The flow.
    #[serde(flatten)]
    pub flow: FlowRecord,
}

/// Where a flow came from, as the outside saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A node, by its name.
    Node(String),
    /// An address: the sliver's own, or the public one that it speaks from.
    Address(IpAddr),
}

/// What is looked for. All that is named must be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The other's address.
    pub remote: Option<Prefix>,
    /// Where it came from.
    pub source: Option<Source>,
    /// The sliver's port as the outside saw it.
    pub source_port: Option<u16>,
    /// The other's port.
    pub remote_port: Option<u16>,
    /// From when, in milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Until when.
    pub until_ms: Option<u64>,
    /// Of this slice.
    pub slice: Option<String>,
    /// At most so many, the latest first.
    pub most: usize,
}

impl Store {
    /// Stores records of a sliver's flows: all of them, or none if there is an error.
    pub fn add_flows(&mut self, who: &Identity, flows: &[FlowRecord]) -> Result<(), StoreError> {
        if flows.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let sliver = identify(transaction, who)?;
            insert(transaction, sliver, flows)
        })
    }

    /// Finds flows, the latest first.
    pub fn flows(&self, wanted: &Wanted) -> Result<Vec<StoredFlow>, StoreError> {
        let (conditions, values) = conditions(wanted);
        let sql = format!(
            "SELECT s.node, s.name, s.slice, s.owner, s.contact, s.public, f.first_ms, f.last_ms,
                    f.protocol, f.inside, f.inside_port, f.outside_port, f.remote, f.remote_port,
                    f.opened, f.tx_packets, f.tx_bytes, f.rx_packets, f.rx_bytes, f.ending
             FROM flow f JOIN sliver s ON s.id = f.sliver
             WHERE {conditions} ORDER BY f.last_ms DESC LIMIT {}",
            signed(wanted.most as u64)
        );
        let found = self.connection.prepare(&sql).and_then(|mut statement| {
            let rows = statement.query_map(params_from_iter(values), read)?;
            rows.collect()
        });
        self.checked(found)
    }

    /// How many records there are.
    pub fn count_flows(&self) -> Result<u64, StoreError> {
        let count = "SELECT count(*) FROM flow";
        self.checked(self.connection.query_row(count, [], |row| row.get(0)))
            .map(unsigned)
    }
}

fn insert(transaction: &Transaction, sliver: i64, flows: &[FlowRecord]) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare(
        "INSERT INTO flow (sliver, first_ms, last_ms, protocol, inside, inside_port, outside_port,
                           remote, remote_port, opened, tx_packets, tx_bytes, rx_packets, rx_bytes,
                           ending)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    for flow in flows {
        statement.execute(params![
            sliver,
            signed(flow.first_ms),
            signed(flow.last_ms),
            flow.protocol,
            stored_address(flow.inside),
            flow.inside_port,
            flow.outside_port,
            stored_address(flow.remote),
            flow.remote_port,
            opened_number(flow.opened),
            signed(flow.tx_packets),
            signed(flow.tx_bytes),
            signed(flow.rx_packets),
            signed(flow.rx_bytes),
            end_number(flow.end),
        ])?;
    }
    Ok(())
}

fn conditions(wanted: &Wanted) -> (String, Vec<Value>) {
    let mut all = vec!["TRUE".to_owned()];
    let mut values = Vec::new();
    let mut add = |condition: &str, new: Vec<Value>| {
        all.push(condition.to_owned());
        values.extend(new);
    };
    if let Some(prefix) = &wanted.remote {
        let (first, last) = stored_range(prefix);
        if first == last {
            add("f.remote = ?", vec![first.into()]);
        } else {
            let len = Value::Integer(first.len() as i64);
            add(
                "f.remote BETWEEN ? AND ? AND length(f.remote) = ?",
                vec![first.into(), last.into(), len],
            );
        }
    }
    match &wanted.source {
        Some(Source::Node(node)) => add("s.node = ?", vec![node.clone().into()]),
        Some(Source::Address(address)) => add(
            // Where the public address is not known, any may be it.
            "(f.inside = ? OR s.public = ? OR (s.public = '' AND f.outside_port IS NOT NULL))",
            vec![stored_address(*address).into(), address.to_string().into()],
        ),
        None => {}
    }
    if let Some(port) = wanted.source_port {
        add(
            "coalesce(f.outside_port, f.inside_port) = ?",
            vec![Value::Integer(port.into())],
        );
    }
    if let Some(port) = wanted.remote_port {
        add("f.remote_port = ?", vec![Value::Integer(port.into())]);
    }
    if let Some(from) = wanted.from_ms {
        add("f.last_ms >= ?", vec![Value::Integer(signed(from))]);
    }
    if let Some(until) = wanted.until_ms {
        add(
            "f.first_ms <= ? AND f.last_ms <= ?",
            vec![
                Value::Integer(signed(until)),
                Value::Integer(signed(until.saturating_add(LONGEST_MS))),
            ],
        );
    }
    if let Some(slice) = &wanted.slice {
        add("s.slice = ?", vec![slice.clone().into()]);
    }
    (all.join(" AND "), values)
}

fn read(row: &Row) -> rusqlite::Result<StoredFlow> {
    let address = |at: usize| {
        let bytes: Vec<u8> = row.get(at)?;
        read_address(&bytes).ok_or(rusqlite::Error::IntegralValueOutOfRange(at, 0))
    };
    let number = |at: usize| row.get(at).map(unsigned);
    Ok(StoredFlow {
        who: identity(row, 0)?,
        flow: FlowRecord {
            first_ms: number(6)?,
            last_ms: number(7)?,
            protocol: row.get(8)?,
            inside: address(9)?,
            inside_port: row.get(10)?,
            outside_port: row.get(11)?,
            remote: address(12)?,
            remote_port: row.get(13)?,
            opened: opened(row.get(14)?),
            tx_packets: number(15)?,
            tx_bytes: number(16)?,
            rx_packets: number(17)?,
            rx_bytes: number(18)?,
            end: end(row.get(19)?),
        },
    })
}

fn opened_number(opened: Opened) -> i64 {
    match opened {
        Opened::Out => 0,
        Opened::In => 1,
    }
}

fn opened(number: i64) -> Opened {
    if number == 0 { Opened::Out } else { Opened::In }
}

const ENDS: [FlowEnd; 5] = [
    FlowEnd::Idle,
    FlowEnd::Closed,
    FlowEnd::Cut,
    FlowEnd::Evicted,
    FlowEnd::Stopped,
];

fn end_number(end: FlowEnd) -> i64 {
    ENDS.iter()
        .position(|one| *one == end)
        .map_or(0, |at| at as i64)
}

fn end(number: i64) -> FlowEnd {
    let known = usize::try_from(number).ok().and_then(|at| ENDS.get(at));
    known.copied().unwrap_or(FlowEnd::Idle)
}
