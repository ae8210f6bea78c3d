//! A sliver's seat in its node's ledger: looked after while the sliver runs, and asked for anew when
//! the file is replaced under it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::fair::Claim;
use super::governor::{Governor, processors};
use super::ledger::{Ledger, Member, TakenSlot};
use crate::control::proto::{read_frame, write_frame};
use crate::devices::uplink::UplinkSeat;
use crate::given::receive_with;
use crate::net::uplink::Membership;
use crate::say::{say, shown_path};

/// How often the seat is looked after.
const EVERY: Duration = Duration::from_secs(1);

/// How long a ledger that could not be had is not tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How long to wait for another slot.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the keeper, who starts slivers and sees the file system, for another slot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) claim: Claim,
    pub(crate) uplink: Option<Membership>,
}

/// The keeper's answer. If there is a slot, its reader and its writer come before it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) slot: Option<usize>,
    /// What was claimed there of the uplink.
    pub(crate) uplink: Option<Membership>,
    /// What there is to tell.
    pub(crate) told: Vec<String>,
}

/// A seat to look after.
#[derive(Debug)]
pub(crate) struct Seat {
    keeper: UnixStream,
    path: PathBuf,
    pid: u32,
    name: String,
    look_at: Instant,
}

impl Seat {
    /// The seat of the sliver `name`, process `pid`, in the ledger that is at `path` for the keeper.
    pub(crate) fn new(keeper: UnixStream, path: PathBuf, pid: u32, name: &str) -> io::Result<Self> {
        keeper.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            keeper,
            path,
            pid,
            name: name.to_owned(),
            look_at: Instant::now() + EVERY,
        })
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
        let ask = Ask {
            claim: governor.own_claim(),
            uplink: uplink.map(UplinkSeat::membership),
        };
        match self.ask(&ask) {
            Ok((ledger, told)) => {
                // Otherwise it has been told already that there is none.
                if had || ledger.is_some() {
                    told.iter().for_each(|line| say(line));
                }
                match ledger {
                    Some(ledger) => take(governor, uplink, Some(ledger)),
                    None => self.look_at = Instant::now() + AGAIN_AFTER,
                }
            }
            Err(error) => {
                self.look_at = Instant::now() + AGAIN_AFTER;
                if had {
                    say(&format!(
                        "cannot get another place in ledger {}: {error}; it runs without a ledger",
                        shown_path(&self.path)
                    ));
                }
            }
        }
    }

    fn ask(&self, ask: &Ask) -> io::Result<(Option<Ledger>, Vec<String>)> {
        write_frame(&self.keeper, ask)?;
        let files = receive_with(&self.keeper)?;
        let answer: Option<Answer> = read_frame(&self.keeper)?;
        let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
        let Some(slot) = answer.slot else {
            return Ok((None, answer.told));
        };
        let [reader, writer] =
            <[OwnedFd; 2]>::try_from(files).map_err(|_| io::ErrorKind::InvalidData)?;
        let taken = TakenSlot {
            reader: reader.into(),
            writer: writer.into(),
            slot,
        };
        let member = Member {
            pid: self.pid,
            name: &self.name,
            claim: ask.claim,
            uplink: answer.uplink.as_ref(),
        };
        let ledger = Ledger::adopt(taken, &self.path, &member, processors());
        Ok((Some(ledger.map_err(io::Error::other)?), answer.told))
    }
}

/// Shares the node with the slivers of a ledger from now on, or with nobody.
pub(crate) fn take(governor: &Governor, uplink: Option<&UplinkSeat>, ledger: Option<Ledger>) {
    governor.join(ledger);
    if let Some(uplink) = uplink {
        uplink.join(governor.ledger());
    }
}
