//! Records of flows, stored as they come and found by address, port and time.

mod find;

use rusqlite::{Row, Transaction, params, params_from_iter};
use serde::Serialize;
use vmm::control::proto::{FlowEnd, FlowRecord, Opened};

pub use find::{Source, Wanted};

use super::{
    Identity, Store, StoreError, identify, identity, number_of_slice, read_address, signed,
    stored_address, unsigned,
};

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

impl Store {
    /// Stores records of a sliver's flows: all of them, or none if there is an error.
    pub fn add_flows(&mut self, who: &Identity, flows: &[FlowRecord]) -> Result<(), StoreError> {
        if flows.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let sliver = identify(transaction, who)?;
            let slice = number_of_slice(transaction, &who.slice)?;
            insert(transaction, sliver, slice, flows)
        })
    }

    /// Finds flows, the latest first.
    pub fn flows(&self, wanted: &Wanted) -> Result<Vec<StoredFlow>, StoreError> {
        let found = find::query(&self.connection, wanted).and_then(|query| match query {
            None => Ok(Vec::new()),
            Some((sql, values)) => {
                let mut statement = self.connection.prepare(&sql)?;
                let rows = statement.query_map(params_from_iter(values), read)?;
                rows.collect()
            }
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

fn insert(
    transaction: &Transaction,
    sliver: i64,
    slice: i64,
    flows: &[FlowRecord],
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare(
        "INSERT INTO flow (sliver, first_ms, last_ms, protocol, inside, inside_port, outside_port,
                           remote, remote_port, opened, tx_packets, tx_bytes, rx_packets, rx_bytes,
                           ending, slice)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
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
            slice,
        ])?;
    }
    Ok(())
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
