//! How flows are found: by the index that has to look at the fewest records, which is counted before.
//!
//! Every index is in the order of time within its key, so that the latest are found without looking
//! at the others. Only a prefix has many keys, and its records must be sorted; one that is so wide
//! that this would take long has so many that the latest of all are a short way to them.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use vmm::net::prefix::Prefix;

use super::super::{signed, stored_address, stored_range};

/// No record is of more time than this: flows are cut each minute, and a monitor that has a lot to
/// tell of may be late.
const LONGEST_MS: u64 = 600_000;

/// Records beyond which it does not matter how many more there are.
const MANY: i64 = 20_000;

/// So many entries of an index alone are looked at in the time of one record.
const ENTRIES_A_RECORD: i64 = 3;

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

/// Something that must be so.
#[derive(Debug, Clone)]
struct Condition {
    sql: &'static str,
    values: Vec<Value>,
    /// The index that leads there.
    index: Option<&'static str>,
}

/// The query for what is wanted, and its values; `None` if there can be no such flow.
pub(super) fn query(
    connection: &Connection,
    wanted: &Wanted,
) -> rusqlite::Result<Option<(String, Vec<Value>)>> {
    let Some(keys) = keys(connection, wanted)? else {
        return Ok(None);
    };
    let times = times(wanted);
    let spread = spread(wanted);
    let is_pure = keys.is_empty() && wanted.until_ms.is_none();
    let mut ways = Vec::new();
    for key in keys.iter().filter(|key| key.index.is_some()) {
        let conditions: Vec<_> = [key].into_iter().chain(&times).collect();
        ways.push((count(connection, key.index, &conditions, MANY)?, key.index));
    }
    if !times.is_empty() && keys.iter().all(|key| key.index.is_none()) {
        let conditions: Vec<_> = times.iter().collect();
        ways.push((count(connection, BY_TIME, &conditions, MANY)?, BY_TIME));
    }
    if let Some(prefix) = &spread {
        let ease = if is_pure { ENTRIES_A_RECORD } else { 1 };
        // What does not count does not bound how many entries are looked at.
        let entries = count(connection, prefix.index, &[prefix], MANY * ease)?;
        ways.push((entries / ease, prefix.index));
    }
    let way = ways.into_iter().min_by_key(|(records, _)| *records);
    let way = match way {
        Some((MANY.., BY_REMOTE)) if spread.is_some() => BY_TIME,
        Some((_, index)) => index,
        None => BY_TIME,
    };
    let others = Condition {
        sql: "f.first_ms <= ?",
        values: wanted
            .until_ms
            .map(signed)
            .map(Value::Integer)
            .into_iter()
            .collect(),
        index: None,
    };
    let others = Some(others).filter(|others| !others.values.is_empty());
    let all: Vec<_> = { keys.iter().chain(&times).chain(&spread).chain(&others) }.collect();
    let (sql, values) = written(&all);
    let from = match spread.is_some() && is_pure && way == BY_REMOTE {
        // Only what is shown is read: which that is stands in the index.
        true => format!(
            "(SELECT f.id FROM flow f {} WHERE {sql} ORDER BY f.last_ms DESC LIMIT {}) i
             CROSS JOIN flow f ON f.id = i.id CROSS JOIN sliver s ON s.id = f.sliver",
            indexed(way),
            signed(wanted.most as u64)
        ),
        // In this order: whose they are is looked up when they are found.
        false => format!(
            "flow f {} CROSS JOIN sliver s ON s.id = f.sliver WHERE {sql}",
            indexed(way)
        ),
    };
    let sql = format!(
        "SELECT s.node, s.name, s.slice, s.owner, s.contact, s.public, f.first_ms, f.last_ms,
                f.protocol, f.inside, f.inside_port, f.outside_port, f.remote, f.remote_port,
                f.opened, f.tx_packets, f.tx_bytes, f.rx_packets, f.rx_bytes, f.ending
         FROM {from} ORDER BY f.last_ms DESC LIMIT {}",
        signed(wanted.most as u64)
    );
    Ok(Some((sql, values)))
}

const BY_TIME: Option<&str> = Some("flow_by_time");
const BY_REMOTE: Option<&str> = Some("flow_by_remote");

/// What has one value, without time; `None` if nothing has it.
fn keys(connection: &Connection, wanted: &Wanted) -> rusqlite::Result<Option<Vec<Condition>>> {
    let mut keys = Vec::new();
    let mut add = |sql, values, index| keys.push(Condition { sql, values, index });
    if let Some(prefix) = &wanted.remote {
        let (first, last) = stored_range(prefix);
        if first == last {
            add("f.remote = ?", vec![first.into()], BY_REMOTE);
        }
    }
    if let Some(port) = wanted.source_port {
        let sql = "coalesce(f.outside_port, f.inside_port) = ?";
        let port = Value::Integer(port.into());
        add(sql, vec![port], Some("flow_by_port"));
    }
    match &wanted.source {
        Some(Source::Node(node)) => {
            if !exists(connection, "SELECT 1 FROM sliver WHERE node = ?1", node)? {
                return Ok(None);
            }
            add("s.node = ?", vec![node.clone().into()], None);
        }
        Some(Source::Address(address)) => {
            let own = stored_address(*address).into();
            let public = address.to_string();
            // Where the public address is not known, any may be it.
            let unknown = "SELECT 1 FROM sliver WHERE public IN (?1, '')";
            if exists(connection, unknown, &public)? {
                let sql = "(f.inside = ? OR s.public = ? OR \
                           (s.public = '' AND f.outside_port IS NOT NULL))";
                add(sql, vec![own, public.into()], None);
            } else {
                add("f.inside = ?", vec![own], Some("flow_by_inside"));
            }
        }
        None => {}
    }
    if let Some(slice) = &wanted.slice {
        let number = connection
            .prepare("SELECT id FROM slice WHERE name = ?1")?
            .query_row([slice], |row| row.get(0))
            .optional()?;
        let Some(number) = number else {
            return Ok(None);
        };
        let number = Value::Integer(number);
        add("f.slice = ?", vec![number], Some("flow_by_slice"));
    }
    if let Some(port) = wanted.remote_port {
        let port = Value::Integer(port.into());
        add("f.remote_port = ?", vec![port], Some("flow_by_remote_port"));
    }
    Ok(Some(keys))
}

/// The other's addresses, if they are many.
fn spread(wanted: &Wanted) -> Option<Condition> {
    let (first, last) = stored_range(wanted.remote.as_ref()?);
    let len = Value::Integer(first.len() as i64);
    (first != last).then(|| Condition {
        sql: "f.remote BETWEEN ? AND ? AND length(f.remote) = ?",
        values: vec![first.into(), last.into(), len],
        index: BY_REMOTE,
    })
}

/// What is in the order of every index.
fn times(wanted: &Wanted) -> Vec<Condition> {
    let condition = |sql, moment| Condition {
        sql,
        values: vec![Value::Integer(signed(moment))],
        index: BY_TIME,
    };
    let from = wanted.from_ms.map(|from| condition("f.last_ms >= ?", from));
    let until = wanted.until_ms.map(|until| {
        let last = until.saturating_add(LONGEST_MS);
        condition("f.last_ms <= ?", last)
    });
    from.into_iter().chain(until).collect()
}

fn exists(connection: &Connection, sql: &str, value: &str) -> rusqlite::Result<bool> {
    connection.prepare(sql)?.exists([value])
}

/// How many entries of an index meet conditions, at most `most`.
fn count(
    connection: &Connection,
    index: Option<&str>,
    conditions: &[&Condition],
    most: i64,
) -> rusqlite::Result<i64> {
    let (sql, values) = written(conditions);
    let index = indexed(index);
    let sql =
        format!("SELECT count(*) FROM (SELECT 1 FROM flow f {index} WHERE {sql} LIMIT {most})");
    let mut statement = connection.prepare(&sql)?;
    statement.query_row(params_from_iter(values), |row| row.get(0))
}

fn written(conditions: &[&Condition]) -> (String, Vec<Value>) {
    let sql = conditions.iter().map(|condition| condition.sql);
    let sql: Vec<_> = ["TRUE"].into_iter().chain(sql).collect();
    let values = conditions
        .iter()
        .flat_map(|condition| condition.values.clone());
    (sql.join(" AND "), values.collect())
}

fn indexed(index: Option<&str>) -> String {
    index.map_or(String::new(), |index| format!("INDEXED BY {index}"))
}
