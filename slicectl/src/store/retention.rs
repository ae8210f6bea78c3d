//! What is kept, and for how long: the oldest goes first.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::{Store, StoreError, signed, unsigned};

/// Records that are removed at once: others want to write, too.
const AT_ONCE: i64 = 10_000;

/// Days for which usage is kept.
const USAGE_DAYS: u64 = 400;

const MS_A_DAY: u64 = 86_400_000;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For how long.
    pub age: Duration,
    /// In how many bytes of the file.
    pub bytes: u64,
}

impl Default for Retention {
    /// A complaint comes after days or weeks.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(90 * 86_400),
            bytes: 4 << 30,
        }
    }
}

impl Store {
    /// Removes what is too old, and the oldest of what is too much, a part at a time; whether there
    /// may be more to remove.
    pub fn rotate(&mut self, retention: &Retention, now_ms: u64) -> Result<bool, StoreError> {
        let age = u64::try_from(retention.age.as_millis()).unwrap_or(u64::MAX);
        let oldest = signed(now_ms.saturating_sub(age));
        let size = self.used_bytes();
        let is_too_large = self.checked(size)? > retention.bytes;
        self.write(|transaction| {
            let mut removed = transaction.execute(
                "DELETE FROM flow WHERE id IN
                 (SELECT id FROM flow WHERE last_ms < ?1 ORDER BY last_ms LIMIT ?2)",
                params![oldest, AT_ONCE],
            )?;
            removed += transaction.execute(
                "DELETE FROM event WHERE id IN
                 (SELECT id FROM event WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)",
                params![oldest, AT_ONCE],
            )?;
            if is_too_large {
                let oldest = |table: &str, time: &str| {
                    transaction.execute(
                        &format!(
                            "DELETE FROM {table} WHERE id IN
                             (SELECT id FROM {table} ORDER BY {time} LIMIT ?1)"
                        ),
                        [AT_ONCE],
                    )
                };
                // There are a thousand flows to an event; events go only when no flow is left.
                let flows = oldest("flow", "last_ms")?;
                removed += match flows {
                    0 => oldest("event", "at_ms")?,
                    flows => flows,
                };
            }
            let first_day = (now_ms / MS_A_DAY).saturating_sub(USAGE_DAYS);
            transaction.execute("DELETE FROM usage WHERE day < ?1", [signed(first_day)])?;
            transaction.execute("DELETE FROM block WHERE until_ms <= ?1", [signed(now_ms)])?;
            Ok(removed > 0)
        })
    }

    /// What the records take: pages that are free are used again.
    fn used_bytes(&self) -> rusqlite::Result<u64> {
        let number = |connection: &Connection, name: &str| {
            connection.pragma_query_value(None, name, |row| row.get(0).map(unsigned))
        };
        let pages = number(&self.connection, "page_count")?;
        let free = number(&self.connection, "freelist_count")?;
        let size = number(&self.connection, "page_size")?;
        Ok(pages.saturating_sub(free).saturating_mul(size))
    }
}
