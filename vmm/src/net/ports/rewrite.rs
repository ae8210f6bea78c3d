//! Writes a port, or the identifier of an ICMP question, into a packet and mends its checksums by
//! the difference (RFC 1624): the rest of the packet need not be there.

use std::net::Ipv4Addr;

use crate::net::packet::protocol::{ICMP, TCP, UDP};

/// The shortest IPv4 header.
const IPV4_BYTES: usize = 20;

/// Bytes of an ICMP header, behind which an error quotes the packet it is about.
const ICMP_BYTES: usize = 8;

/// Which port of a packet is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// Whether somebody has left the checksum to be finished by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Whole,
    /// Only the sum over the pseudo-header, in which there are no ports.
    Partial,
}

/// A port in a packet, and the checksum over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    port: usize,
    checksum: usize,
    /// All zeros mean that there is no checksum.
    optional: bool,
}

impl Place {
    /// That of the transport header of `protocol` at `at`; for ICMP, of a question or its answer.
    pub(super) fn of(protocol: u8, at: usize, end: End) -> Option<Self> {
        let port = match end {
            End::Source => at,
            End::Destination => at + 2,
        };
        Some(match protocol {
            TCP => Self {
                port,
                checksum: at + 16,
                optional: false,
            },
            UDP => Self {
                port,
                checksum: at + 6,
                optional: true,
            },
            ICMP => Self {
                port: at + 4,
                checksum: at + 2,
                optional: false,
            },
            _ => return None,
        })
    }

    /// Writes a port.
    pub(super) fn write(self, bytes: &mut [u8], port: u16, checksum: Checksum) {
        if let (Some(before), Checksum::Whole) = (word(bytes, self.port), checksum) {
            self.mend(bytes, before, port);
        }
        set(bytes, self.port, port);
    }

    fn mend(self, bytes: &mut [u8], before: u16, after: u16) {
        let Some(sum) = word(bytes, self.checksum) else {
            return;
        };
        if self.optional && sum == 0 {
            return;
        }
        let sum = match mended(sum, before, after) {
            0 if self.optional => u16::MAX,
            sum => sum,
        };
        set(bytes, self.checksum, sum);
    }
}

/// The packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quoted {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    /// The ports; for an ICMP question or answer twice the identifier.
    pub(super) ports: (u16, u16),
    transport: usize,
    /// The checksum of the error itself.
    outer: usize,
}

impl Quoted {
    /// Reads the quotation of the error at `error` in a packet whose bytes end at the latest with
    /// `bytes`. Quotations without ports are none.
    pub(super) fn read(bytes: &[u8], error: usize) -> Option<Self> {
        let ip = error + ICMP_BYTES;
        let header = bytes.get(ip..ip + IPV4_BYTES)?;
        let length = usize::from(header[0] & 0x0f) * 4;
        let is_first = word(header, 6)? & 0x1fff == 0;
        if header[0] >> 4 != 4 || length < IPV4_BYTES || !is_first {
            return None;
        }
        let address = |at: usize| -> Option<Ipv4Addr> {
            let octets: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
            Some(octets.into())
        };
        let transport = ip + length;
        let protocol = header[9];
        let ports = match protocol {
            TCP | UDP => (word(bytes, transport)?, word(bytes, transport + 2)?),
            ICMP => {
                let kind = *bytes.get(transport)?;
                if !is_question(kind) && !is_answer(kind) {
                    return None;
                }
                let id = word(bytes, transport + 4)?;
                (id, id)
            }
            _ => return None,
        };
        Some(Self {
            source: address(12)?,
            destination: address(16)?,
            protocol,
            ports,
            transport,
            outer: error + 2,
        })
    }

    /// Writes a port into the quotation. Its own checksum, if that is quoted, is mended as well, and
    /// both changes are in the error's.
    pub(super) fn write(self, bytes: &mut [u8], end: End, port: u16, checksum: Checksum) {
        let Some(place) = Place::of(self.protocol, self.transport, end) else {
            return;
        };
        let before = [word(bytes, place.port), word(bytes, place.checksum)];
        place.write(bytes, port, Checksum::Whole);
        let after = [word(bytes, place.port), word(bytes, place.checksum)];
        if checksum == Checksum::Partial {
            return;
        }
        for (before, after) in before.into_iter().zip(after) {
            if let (Some(before), Some(after), Some(sum)) = (before, after, word(bytes, self.outer))
            {
                set(bytes, self.outer, mended(sum, before, after));
            }
        }
    }
}

/// Whether an ICMP message is about a packet, which it quotes (RFC 792).
pub(super) fn is_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// Whether an ICMP message has an identifier and wants an answer: echo, time stamp, information and
/// address mask.
pub(super) fn is_question(kind: u8) -> bool {
    matches!(kind, 8 | 13 | 15 | 17)
}

/// Whether an ICMP message is an answer to one of those.
pub(super) fn is_answer(kind: u8) -> bool {
    matches!(kind, 0 | 14 | 16 | 18)
}

/// A checksum over data of which one word has changed (RFC 1624, equation 3).
fn mended(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let word: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(word))
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(word) = bytes.get_mut(at..at + 2) {
        word.copy_from_slice(&value.to_be_bytes());
    }
}
