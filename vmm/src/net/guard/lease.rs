//! What a DHCP server grants (RFC 2131, 2132), as far as its answer's first bytes tell.

use std::net::Ipv4Addr;

use crate::net::packet::{Datagram, Transport};
use crate::net::prefix::Prefix;

const UDP_BYTES: usize = 8;
/// Where the options begin, behind the cookie.
const OPTIONS_AT: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// A server's answer.
const REPLY: u8 = 2;
/// The message that grants.
const ACK: [u8; 1] = [5];

const PAD: u8 = 0;
const MASK: u8 = 1;
const ROUTERS: u8 = 3;
const MESSAGE: u8 = 53;
const END: u8 = 255;

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// Hardware address of who has it.
    pub(super) mac: [u8; 6],
    pub(super) address: Ipv4Addr,
    pub(super) subnet: Option<Prefix>,
    pub(super) gateway: Option<Ipv4Addr>,
}

impl Lease {
    /// Reads the answer of a server.
    pub(super) fn read(datagram: &Datagram, head: &[u8]) -> Option<Self> {
        let Transport::Udp {
            source: 67,
            destination: 68,
        } = datagram.transport
        else {
            return None;
        };
        let message = head.get(datagram.transport_at + UDP_BYTES..)?;
        let options = message.get(OPTIONS_AT..)?;
        let grants = message[0] == REPLY
            && message[OPTIONS_AT - 4..OPTIONS_AT] == COOKIE
            && option(options, MESSAGE)? == ACK;
        let address = address(&message[16..])?;
        if !grants || address.is_unspecified() || address.is_broadcast() || address.is_multicast() {
            return None;
        }
        let mask = option(options, MASK).and_then(self::address);
        let gateway = option(options, ROUTERS).and_then(self::address);
        Some(Self {
            mac: *message[28..].first_chunk()?,
            address,
            subnet: mask.and_then(|mask| subnet(address, mask)),
            gateway: gateway.filter(|gateway| *gateway != address),
        })
    }
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes))
}

/// A mask with gaps is none, and so is one that makes neighbours of half the world.
fn subnet(address: Ipv4Addr, mask: Ipv4Addr) -> Option<Prefix> {
    let bits = mask.to_bits().leading_ones();
    let is_mask = mask.to_bits().count_ones() == bits && bits >= 8;
    is_mask.then(|| Prefix::holding(address.into(), bits as u8))
}

/// The value of an option, if it lies within the bytes.
fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (&code, rest) = options.split_first()?;
        match code {
            PAD => options = rest,
            END => return None,
            _ => {
                let (&len, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(len.into())?;
                if code == wanted {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}
