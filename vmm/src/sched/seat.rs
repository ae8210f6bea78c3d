//! A sliver's seat in its node's ledger: taken at the start, looked after while it runs, and taken
//! anew when the file is replaced under it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fair::Claim;
use super::governor::{Governor, processors};
use super::ledger::{Ledger, LedgerError};
use crate::say::say;

/// How often the seat is looked after.
const EVERY: Duration = Duration::from_secs(1);

/// A seat to look after.
#[derive(Debug)]
pub(crate) struct Seat {
    path: PathBuf,
    name: String,
    looked: Instant,
    /// Whether it was told that there is no ledger.
    told: bool,
}

impl Seat {
    /// The seat of the sliver `name` in the ledger at `path`.
    pub(crate) fn new(path: PathBuf, name: &str) -> Self {
        Self {
            path,
            name: name.to_owned(),
            looked: Instant::now(),
            told: false,
        }
    }

    /// Sees to it that the sliver is in the ledger that others use, now and then.
    pub(crate) fn keep(&mut self, governor: &Governor) {
        if self.looked.elapsed() < EVERY {
            return;
        }
        self.looked = Instant::now();
        match governor.ledger() {
            Some(ledger) if ledger.is_current() => return,
            Some(_) => governor.join(None),
            // What could not be had at the start is not tried for ever.
            None if self.told => return,
            None => {}
        }
        match join(&self.path, &self.name, governor.own_claim()) {
            Ok(Some(ledger)) => governor.join(Some(ledger)),
            Ok(None) => self.told = true,
            Err(error) => {
                say(&error.to_string());
                self.told = true;
            }
        }
    }
}

/// Joins the ledger. `None`, and it is said why, if there can be none; an error if the node cannot
/// honour the claim.
pub(crate) fn join(path: &Path, name: &str, claim: Claim) -> Result<Option<Ledger>, LedgerError> {
    match Ledger::join(path, name, processors(), claim) {
        Ok((ledger, event)) => {
            if let Some(event) = event {
                say(&event.to_string());
            }
            Ok(Some(ledger))
        }
        Err(error) if error.is_refusal() => Err(error),
        Err(error) => {
            say(&format!("{error}; it runs without a ledger"));
            Ok(None)
        }
    }
}
