//! A sliver's seat on its node's uplink. What the pure [`Uplink`] works with is fetched here, from the
//! ledger and from the host's counter; what comes of it is put in force, and told to the others.
//!
//! Looked at by whoever moves frames, and so paid for by the sliver.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::nanos::Nanos;
use crate::net::gate::Gate;
use crate::net::uplink::{Kbit, Membership, NetRival, OwnTraffic, Uplink};
use crate::sched::ledger::{Ledger, LedgerError};
use crate::spec::{NetLimits, SliverSpec, UplinkSpec};

/// How often it is looked at while the sliver sends.
const LOOK_EVERY: Nanos = Nanos::from_millis(20);

/// The seat.
#[derive(Debug)]
pub struct UplinkSeat {
    spec: UplinkSpec,
    slice: String,
    /// The host's counter of bytes that the interface has sent.
    carried: File,
    look_at: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    membership: Membership,
    ledger: Option<Arc<Ledger>>,
    uplink: Uplink,
    /// How often frames had waited at the last look.
    waits: u64,
    /// Kept for its memory.
    rivals: Vec<NetRival>,
}

/// The uplink that a spec names is not there.
#[derive(Debug, thiserror::Error)]
#[error("uplink.interface: cannot read what {interface} has sent: {source}")]
pub struct NoUplink {
    interface: String,
    source: io::Error,
}

/// The place on an uplink that a spec asks for, if it asks for one.
pub(crate) fn membership_of(spec: &SliverSpec) -> Option<Membership> {
    let uplink = spec.uplink().filter(|_| !spec.nets().is_empty())?;
    Some(Membership::of(uplink, spec.slice(), spec.net_limits()))
}

/// Opens what the host counts of the uplink that a spec asks for, if it asks for one.
pub fn open_counter(spec: &SliverSpec) -> Result<Option<File>, NoUplink> {
    let Some(uplink) = spec.uplink().filter(|_| membership_of(spec).is_some()) else {
        return Ok(None);
    };
    let interface = uplink.interface();
    let counter = format!("/sys/class/net/{interface}/statistics/tx_bytes");
    let opened = File::open(counter).map_err(|source| NoUplink {
        interface: interface.to_owned(),
        source,
    });
    opened.map(Some)
}

impl UplinkSeat {
    /// The seat that a spec asks for, in no ledger yet. `carried` is what [`open_counter`] opened.
    pub fn new(spec: &SliverSpec, carried: Option<File>) -> Option<Self> {
        let (uplink, membership) = (spec.uplink()?, membership_of(spec)?);
        let carried = carried?;
        let state = State {
            membership,
            ledger: None,
            uplink: Uplink::new(membership.rate),
            waits: 0,
            rivals: Vec::new(),
        };
        Some(Self {
            spec: uplink.clone(),
            slice: spec.slice().to_owned(),
            carried,
            look_at: AtomicU64::new(0),
            state: Mutex::new(state),
        })
    }

    /// Every change leaves the state sound: a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it claims.
    pub(crate) fn membership(&self) -> Membership {
        self.lock().membership
    }

    /// Shares the uplink with the slivers of this ledger, in which it has said its claim, from now
    /// on; or with the node alone.
    pub(crate) fn join(&self, ledger: Option<Arc<Ledger>>) {
        self.lock().ledger = ledger;
        self.look_soon();
    }

    /// Claims what these limits say, unless the uplink cannot keep that beside what others have.
    pub(crate) fn claim(&self, limits: &NetLimits) -> Result<(), LedgerError> {
        let membership = Membership::of(&self.spec, &self.slice, limits);
        let ledger = self.lock().ledger.clone();
        // Somebody may keep the ledger locked for a while: frames go on meanwhile.
        if let Some(ledger) = ledger {
            ledger.set_net(&membership)?;
        }
        self.lock().membership = membership;
        self.look_soon();
        Ok(())
    }

    fn look_soon(&self) {
        self.look_at.store(0, Ordering::Relaxed);
    }

    /// Gives the gate the sliver's part of the uplink, if it is time to.
    pub(crate) fn look(&self, gate: &mut Gate, now: Nanos) {
        if now.0 < self.look_at.load(Ordering::Relaxed) {
            return;
        }
        self.look_at.store((now + LOOK_EVERY).0, Ordering::Relaxed);
        let state = &mut *self.lock();
        state.rivals.clear();
        if let Some(ledger) = &state.ledger {
            ledger.net_rivals(now, &mut state.rivals);
        }
        let sending = gate.sending();
        let mut claim = state.membership.claim;
        if let Some(most) = sending.most_kbit {
            claim.max = claim.max.min(Kbit::saturating(most)).max(claim.min);
        }
        let own = OwnTraffic {
            claim,
            tx_bytes: sending.tx_bytes,
            waited: sending.waits_now || sending.waits != state.waits,
        };
        state.waits = sending.waits;
        let carried = self.carried();
        let part = state.uplink.look(&own, &state.rivals, carried, now);
        gate.set_uplink_rate(part.rate, now);
        if let Some(ledger) = &state.ledger {
            ledger.publish_net(now, part.demand, own.tx_bytes);
        }
    }

    /// Bytes that the host's interface has sent; `None` if it is gone.
    fn carried(&self) -> Option<u64> {
        let mut digits = [0; 24];
        let len = self.carried.read_at(&mut digits, 0).ok()?;
        str::from_utf8(&digits[..len]).ok()?.trim().parse().ok()
    }
}
