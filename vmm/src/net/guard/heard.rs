//! Who was heard of lately without having been asked. An ICMP error to one of them is an answer:
//! strangers that knock at closed ports cannot use up what the sliver may contact.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// Addresses that are kept; a newer one may take an older one's place.
const SLOTS: usize = 512;

#[derive(Debug)]
pub(super) struct Heard {
    slots: Box<[Option<IpAddr>]>,
    hasher: RandomState,
}

impl Heard {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![None; SLOTS].into(),
            hasher: RandomState::new(),
        }
    }

    fn slot(&self, address: IpAddr) -> usize {
        self.hasher.hash_one(address) as usize % SLOTS
    }

    pub(super) fn note(&mut self, address: IpAddr) {
        let slot = self.slot(address);
        self.slots[slot] = Some(address);
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.slots[self.slot(address)] == Some(address)
    }
}
