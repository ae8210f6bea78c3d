//! What happened: to slivers, and to the audit itself.

use rusqlite::params;
use serde::Serialize;
use vmm::control::proto::EventRecord;

use super::{Identity, Store, StoreError, identify, now_ms, signed, unsigned};

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredEvent {
    /// Its number in this audit.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it is.
    pub kind: String,
    /// About what.
    pub detail: String,
    /// How often.
    pub count: u64,
    /// The sliver that it happened to, if to one.
    pub sliver: Option<String>,
    /// The sliver's slice.
    pub slice: Option<String>,
}

/// What is looked for. All that is named must be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// After the event with this number.
    pub after: u64,
    /// From when, in milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Of this slice.
    pub slice: Option<String>,
    /// Of this sliver.
    pub sliver: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// At most so many, the latest.
    pub most: usize,
}

impl Store {
    /// Stores events of a sliver: all of them, or none if there is an error.
    pub fn add_events(&mut self, who: &Identity, events: &[EventRecord]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let sliver = identify(transaction, who)?;
            for event in events {
                transaction
                    .prepare(
                        "INSERT INTO event (sliver, at_ms, kind, detail, count)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![
                        sliver,
                        signed(event.at_ms),
                        event.kind,
                        event.detail,
                        signed(event.count)
                    ])?;
            }
            Ok(())
        })
    }

    /// Stores that something has happened now that is no single sliver's.
    pub fn note(&mut self, kind: &str, detail: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO event (sliver, at_ms, kind, detail, count)
                 VALUES (NULL, ?1, ?2, ?3, 1)",
                params![signed(now_ms()), kind, detail],
            )
        })?;
        Ok(())
    }

    /// Finds the latest events, the oldest of them first.
    pub fn events(&self, wanted: &Wanted) -> Result<Vec<StoredEvent>, StoreError> {
        let found = self
            .connection
            .prepare(
                "SELECT e.id, e.at_ms, e.kind, e.detail, e.count, s.name, s.slice
                 FROM event e LEFT JOIN sliver s ON s.id = e.sliver
                 WHERE e.id > ?1 AND e.at_ms >= ?2 AND (?3 IS NULL OR s.slice = ?3)
                       AND (?4 IS NULL OR s.name = ?4) AND (?5 IS NULL OR e.kind = ?5)
                 ORDER BY e.id DESC LIMIT ?6",
            )
            .and_then(|mut statement| {
                let values = params![
                    signed(wanted.after),
                    signed(wanted.from_ms.unwrap_or(0)),
                    wanted.slice,
                    wanted.sliver,
                    wanted.kind,
                    signed(wanted.most as u64)
                ];
                let rows = statement.query_map(values, |row| {
                    Ok(StoredEvent {
                        id: unsigned(row.get(0)?),
                        at_ms: unsigned(row.get(1)?),
                        kind: row.get(2)?,
                        detail: row.get(3)?,
                        count: unsigned(row.get(4)?),
                        sliver: row.get(5)?,
                        slice: row.get(6)?,
                    })
                })?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            });
        let mut events = self.checked(found)?;
        events.reverse();
        Ok(events)
    }
}
