//! Prefixes that nobody, or no sliver of one slice, may send to.

use rusqlite::params;
use serde::Serialize;
use vmm::net::prefix::Prefix;

use super::{Store, StoreError, signed, unsigned};

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Block {
    /// What nothing goes to.
    pub prefix: Prefix,
    /// Whose slivers it holds for; `None` for all.
    pub slice: Option<String>,
    /// Why.
    pub reason: String,
    /// Who has put it up.
    pub by: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Until when; `None` for ever.
    pub until_ms: Option<u64>,
}

impl Store {
    /// Puts a block up, in place of the one of the same prefix and slice.
    pub fn add_block(&mut self, block: &Block) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO block (prefix, slice, reason, by, since_ms, until_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    block.prefix.to_string(),
                    block.slice.as_deref().unwrap_or(""),
                    block.reason,
                    block.by,
                    signed(block.since_ms),
                    block.until_ms.map(signed)
                ],
            )
        })?;
        Ok(())
    }

    /// Takes the block of exactly this prefix and slice away; whether there was one.
    pub fn remove_block(
        &mut self,
        prefix: Prefix,
        slice: Option<&str>,
    ) -> Result<bool, StoreError> {
        let removed = self.write(|transaction| {
            transaction.execute(
                "DELETE FROM block WHERE prefix = ?1 AND slice = ?2",
                params![prefix.to_string(), slice.unwrap_or("")],
            )
        })?;
        Ok(removed > 0)
    }

    /// The blocks that hold at a moment, in the order in which they were put up.
    pub fn blocks(&self, now_ms: u64) -> Result<Vec<Block>, StoreError> {
        let found = self
            .connection
            .prepare(
                "SELECT prefix, slice, reason, by, since_ms, until_ms FROM block
                 WHERE until_ms IS NULL OR until_ms > ?1 ORDER BY id",
            )
            .and_then(|mut statement| {
                let rows = statement.query_map([signed(now_ms)], |row| {
                    let prefix: String = row.get(0)?;
                    let prefix = prefix.parse().map_err(|error| {
                        let kind = rusqlite::types::Type::Text;
                        rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error))
                    })?;
                    let slice: String = row.get(1)?;
                    Ok(Block {
                        prefix,
                        slice: Some(slice).filter(|slice| !slice.is_empty()),
                        reason: row.get(2)?,
                        by: row.get(3)?,
                        since_ms: unsigned(row.get(4)?),
                        until_ms: row.get::<_, Option<i64>>(5)?.map(unsigned),
                    })
                })?;
                rows.collect()
            });
        self.checked(found)
    }

    /// What the slivers of a slice may not send to at a moment, sorted, each prefix once.
    pub fn blocked(&self, slice: &str, now_ms: u64) -> Result<Vec<Prefix>, StoreError> {
        let blocks = self.blocks(now_ms)?.into_iter();
        let holding = blocks.filter(|block| block.slice.as_deref().is_none_or(|one| one == slice));
        let mut prefixes: Vec<Prefix> = holding.map(|block| block.prefix).collect();
        prefixes.sort();
        prefixes.dedup();
        Ok(prefixes)
    }
}
