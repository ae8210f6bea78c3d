//! The card's side of its sliver's [`Gate`]: who watches each frame, if anybody does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::Header;
use crate::devices::uplink::UplinkSeat;
use crate::nanos::Nanos;
use crate::net::gate::{Admitted, Gate, Held, Judged, Segments};

/// Where one card's frames pass the gate of its sliver.
#[derive(Debug, Clone)]
pub struct Door {
    /// The gate.
    pub gate: Arc<Mutex<Gate>>,
    /// Index of the card.
    pub card: usize,
    /// The sliver's seat on its node's uplink, if it has one.
    pub uplink: Option<Arc<UplinkSeat>>,
}

impl Door {
    /// Each frame leaves it sound: a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No frame of the card waits any more.
    pub(super) fn stop(&self) {
        self.lock().stop_waiting();
    }
}

/// The gate during one batch.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    gate: Option<MutexGuard<'a, Gate>>,
    card: usize,
    now: Nanos,
}

impl<'a> Watch<'a> {
    pub(super) fn new(door: Option<&'a Door>, now: Nanos) -> Self {
        let mut gate = door.map(Door::lock);
        let uplink = door.and_then(|door| door.uplink.as_ref());
        if let (Some(gate), Some(uplink)) = (&mut gate, uplink) {
            uplink.look(gate, now);
        }
        Self {
            gate,
            card: door.map_or(0, |door| door.card),
            now,
        }
    }

    /// Whether somebody watches.
    pub(super) fn is_there(&self) -> bool {
        self.gate.is_some()
    }

    /// Judges a frame of `bytes` bytes that the guest wants to send and that begins with `head`,
    /// which is what will be sent. `None` drops it.
    pub(super) fn judge(
        &mut self,
        head: &mut [u8],
        bytes: usize,
        header: &Header,
    ) -> Option<Option<Admitted>> {
        let Some(gate) = &mut self.gate else {
            return Some(None);
        };
        match gate.judge(self.card, head, bytes, segments(header), self.now) {
            Judged::Pass(admitted) => Some(Some(admitted)),
            Judged::Drop => None,
        }
    }

    /// Whether the rate allows a frame now. Once it does, it is charged.
    pub(super) fn admit(&mut self, watched: &mut Option<(Admitted, bool)>) -> Result<(), Held> {
        if let (Some(gate), Some((admitted, charged @ false))) = (&mut self.gate, watched) {
            gate.admit(admitted, self.now)?;
            *charged = true;
        }
        Ok(())
    }

    /// A frame was sent.
    pub(super) fn sent(&mut self, admitted: &Admitted, head: &[u8]) {
        if let Some(gate) = &mut self.gate {
            gate.sent(admitted, head, self.now);
        }
    }

    /// Whether a frame may be taken from the tap; if not, when.
    pub(super) fn may_receive(&mut self) -> Result<(), Nanos> {
        match &mut self.gate {
            Some(gate) => gate.may_receive(self.now),
            None => Ok(()),
        }
    }

    /// Whether a frame of `bytes` bytes that came and begins with `head` is handed to the guest.
    pub(super) fn received(&mut self, head: &mut [u8], bytes: usize, header: &Header) -> bool {
        match &mut self.gate {
            Some(gate) => gate.received(self.card, head, bytes, segments(header), self.now),
            None => true,
        }
    }

    /// Whether the gate has something to tell the guest.
    pub(super) fn has_reply(&self) -> bool {
        self.gate
            .as_ref()
            .is_some_and(|gate| gate.has_reply(self.card))
    }

    /// A frame that tells the guest something.
    pub(super) fn take_reply(&mut self) -> Option<Vec<u8>> {
        self.gate.as_mut()?.take_reply(self.card)
    }
}

fn segments(header: &Header) -> Segments {
    Segments {
        size: header.segment(),
        checksum: header.checksum(),
    }
}
