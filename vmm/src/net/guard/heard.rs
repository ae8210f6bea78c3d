//! Who was heard of lately without having been asked. An ICMP error to one of them is an answer:
//! strangers that knock at closed ports cannot use up what the sliver may contact.

use std::net::IpAddr;

use crate::net::hash::{Secrets, bits, halves};

/// Addresses that are kept; a newer one may take an older one's place.
const SLOTS: usize = 512;

#[derive(Debug)]
pub(super) struct Heard {
    slots: Box<[Option<IpAddr>]>,
    secrets: Secrets,
}

impl Heard {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self {
            slots: vec![None; SLOTS].into(),
            secrets,
        }
    }

    fn slot(&self, address: IpAddr) -> usize {
        self.secrets.two(halves(bits(address))) as usize % SLOTS
    }

    pub(super) fn note(&mut self, address: IpAddr) {
        let slot = self.slot(address);
        self.slots[slot] = Some(address);
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.slots[self.slot(address)] == Some(address)
    }
}
