//! Neighbour discovery (RFC 4861), as far as it tells who is where on the link.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::bytes::{byte, chunk};
use super::{Discovery, Flaw};

/// The types: solicitations of routers and neighbours, and advertisements of neighbours.
const ROUTER: u8 = 133;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Options that tell hardware addresses: of the source, and of the target.
const LINK: [u8; 2] = [1, 2];

/// Reads a message of this type that lies at `place`.
pub(super) fn read(head: &[u8], place: Range<usize>, kind: u8) -> Result<Option<Discovery>, Flaw> {
    let options_at = match kind {
        ROUTER => 8,
        SOLICITATION | ADVERTISEMENT => 24,
        _ => return Ok(None),
    };
    if place.len() < options_at {
        return Err(Flaw::Length);
    }
    let target = match kind {
        ROUTER => Ipv6Addr::UNSPECIFIED,
        _ => Ipv6Addr::from(*chunk::<16>(head, place.start + 8)?),
    };
    let sender: &[u8; 6] = chunk(head, 6)?;
    let (mut at, mut names_another) = (place.start + options_at, false);
    while at < place.end {
        let (option, bytes) = (byte(head, at)?, usize::from(byte(head, at + 1)?) * 8);
        if bytes == 0 || at + bytes > place.end {
            return Err(Flaw::Length);
        }
        if LINK.contains(&option) {
            names_another |= bytes != 8 || chunk::<6>(head, at + 2)? != sender;
        }
        at += bytes;
    }
    Ok(Some(Discovery {
        target,
        names_another,
    }))
}
