//! What slices have sent on a day: who makes a sliver anew does not get another allowance.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::{Store, StoreError, signed, unsigned};

/// What a slice has sent on a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Used {
    /// Bytes that count against the allowance.
    pub bytes: u64,
    /// Bytes to and from exempt prefixes.
    pub exempt_bytes: u64,
}

impl Used {
    /// What came on top of an earlier amount.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            exempt_bytes: self.exempt_bytes.saturating_sub(earlier.exempt_bytes),
        }
    }
}

impl Store {
    /// Adds to what a slice has sent on a day (UTC, counted since 1970).
    pub fn add_usage(&mut self, slice: &str, day: u64, more: Used) -> Result<(), StoreError> {
        if more == Used::default() {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO usage (slice, day, bytes, exempt_bytes) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (slice, day) DO UPDATE SET
                 bytes = bytes + excluded.bytes, exempt_bytes = exempt_bytes + excluded.exempt_bytes",
                params![
                    slice,
                    signed(day),
                    signed(more.bytes),
                    signed(more.exempt_bytes)
                ],
            )
        })?;
        Ok(())
    }

    /// What a slice has sent on a day.
    pub fn usage(&self, slice: &str, day: u64) -> Result<Used, StoreError> {
        let found = self
            .connection
            .query_row(
                "SELECT bytes, exempt_bytes FROM usage WHERE slice = ?1 AND day = ?2",
                params![slice, signed(day)],
                |row| {
                    Ok(Used {
                        bytes: unsigned(row.get(0)?),
                        exempt_bytes: unsigned(row.get(1)?),
                    })
                },
            )
            .optional();
        self.checked(found).map(Option::unwrap_or_default)
    }
}
