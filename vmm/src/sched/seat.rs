//! A sliver's seat in its node's ledger: taken at the start, looked after while it runs, and taken
//! anew when the file is replaced under it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fair::Claim;
use super::governor::{Governor, processors};
use super::ledger::{Ledger, LedgerError, LedgerEvent};
use crate::devices::uplink::UplinkSeat;
use crate::net::uplink::{Kbit, Membership};
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
    pub(crate) fn keep(&mut self, governor: &Governor, uplink: Option<&UplinkSeat>) {
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
            take(governor, uplink, None);
        }
        match Ledger::join(&self.path, &self.name, processors(), governor.own_claim()) {
            Ok((ledger, event)) => {
                tell(event);
                if let Some(uplink) = uplink {
                    claim_again(&ledger, uplink.membership());
                }
                take(governor, uplink, Some(ledger));
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

/// Shares the node with the slivers of a ledger from now on, or with nobody.
pub(crate) fn take(governor: &Governor, uplink: Option<&UplinkSeat>, ledger: Option<Ledger>) {
    governor.join(ledger);
    if let Some(uplink) = uplink {
        uplink.join(governor.ledger());
    }
}

/// Says in another ledger what is claimed of the uplink. What was guaranteed may be another's there.
fn claim_again(ledger: &Ledger, mut membership: Membership) {
    if let Err(error) = ledger.set_net(&membership) {
        say(&format!(
            "{error}; nothing is guaranteed to it until its limits are set again"
        ));
        membership.claim.min = Kbit(0);
        // Without a guarantee there is nothing to refuse. A ledger that stays locked is told of
        // already.
        let _ = ledger.set_net(&membership);
    }
}

/// Joins the ledger, and the uplink there. `None`, and it is said why, if there can be none; an error
/// if the node cannot honour the claims.
pub(crate) fn join(
    path: &Path,
    name: &str,
    claim: Claim,
    uplink: Option<&Membership>,
) -> Result<Option<Ledger>, LedgerError> {
    let joined = Ledger::join(path, name, processors(), claim);
    let joined = joined.and_then(|(ledger, event)| {
        uplink.map_or(Ok(()), |membership| ledger.set_net(membership))?;
        Ok((ledger, event))
    });
    match joined {
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
