//! A sliver's seat in its node's ledger: taken at the start, looked after while it runs, and taken
//! anew when the file is replaced under it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fair::Claim;
use super::governor::{Governor, processors};
use super::ledger::{Ledger, LedgerError, LedgerEvent};
use crate::say::say;

/// How often the seat is looked after.
const EVERY: Duration = Duration::from_secs(1);

/// How long a ledger that could not be had is not tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A seat to look after.
#[derive(Debug)]
pub(crate) struct Seat {
    path: PathBuf,
    name: String,
    look_at: Instant,
}

impl Seat {
    /// The seat of the sliver `name` in the ledger at `path`.
    pub(crate) fn new(path: PathBuf, name: &str) -> Self {
        Self {
            path,
            name: name.to_owned(),
            look_at: Instant::now() + EVERY,
        }
    }

    /// Sees to it that the sliver is in the ledger that others use, now and then.
    pub(crate) fn keep(&mut self, governor: &Governor) {
        if Instant::now() < self.look_at {
            return;
        }
        self.look_at = Instant::now() + EVERY;
        let had = match governor.ledger() {
            Some(ledger) if ledger.is_current() => return,
            Some(_) => true,
            None => false,
        };
        if had {
            governor.join(None);
        }
        match Ledger::join(&self.path, &self.name, processors(), governor.own_claim()) {
            Ok((ledger, event)) => {
                tell(event);
                governor.join(Some(ledger));
            }
            Err(error) => {
                self.look_at = Instant::now() + AGAIN_AFTER;
                // Otherwise it has been told already.
                if had {
                    say(&format!("{error}; it runs without a ledger"));
                }
            }
        }
    }
}

/// Joins the ledger. `None`, and it is said why, if there can be none; an error if the node cannot
/// honour the claim.
pub(crate) fn join(path: &Path, name: &str, claim: Claim) -> Result<Option<Ledger>, LedgerError> {
    match Ledger::join(path, name, processors(), claim) {
        Ok((ledger, event)) => {
            tell(event);
            Ok(Some(ledger))
        }
        Err(error) if error.is_refusal() => Err(error),
        Err(error) => {
            say(&format!("{error}; it runs without a ledger"));
            Ok(None)
        }
    }
}

fn tell(event: Option<LedgerEvent>) {
    if let Some(event) = event {
        say(&event.to_string());
    }
}
