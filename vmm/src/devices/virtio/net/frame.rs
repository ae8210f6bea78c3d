//! Judges frames and the virtio headers before them (virtio 1.2, 5.1.6). Pure.
//!
//! A guest's frame is judged by a copy of its first bytes, and those very bytes are sent: what the
//! guest changes meanwhile changes nothing. Headers are made anew from the parts that mean
//! something; the rest never reaches the host.

#[cfg(test)]
mod tests;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_HDR_F_DATA_VALID,
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
};

pub use crate::net::tap::{HEADER_BYTES, TapOffloads};

/// Bytes of an Ethernet header, which is also the shortest frame.
pub const ETHERNET_BYTES: usize = 14;

/// First bytes of a chain that are judged, and sent from a copy.
pub const JUDGED_BYTES: usize = HEADER_BYTES + ETHERNET_BYTES;

/// The longest frame, one to be segmented (virtio 1.2, 5.1.6.3.1: 65562 bytes with the header).
pub const MAX_FRAME: u64 = 65_550;

/// The smallest segments that a frame may be cut into. Linux sends no smaller ones: the least MSS
/// it uses is 48, less 12 for timestamps (`tcp_min_snd_mss`). One frame of a hostile guest would
/// otherwise become 65,000 in the host.
pub const MIN_SEGMENT: u16 = 36;

/// Headers of a segment behind Ethernet's: IPv4 and TCP.
const LEAST_HEADERS: u16 = 40;

/// Bytes of a VLAN tag, which do not count to the MTU.
const VLAN_BYTES: u64 = 4;

/// The longest frame of a card with this MTU that is not to be segmented.
pub const fn longest_plain(mtu: u16) -> u64 {
    mtu as u64 + ETHERNET_BYTES as u64 + VLAN_BYTES
}

/// What a driver may leave to the device, given the features that it has accepted.
pub fn device_work(features: u64) -> TapOffloads {
    work(
        features,
        [
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_HOST_TSO6,
        ],
    )
}

/// What the device may leave to a driver that has accepted these features.
pub fn driver_work(features: u64) -> TapOffloads {
    work(
        features,
        [
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_GUEST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
        ],
    )
}

/// Segmentation needs checksums (virtio 1.2, 5.1.3.1).
fn work(features: u64, [checksum, tso4, tso6]: [u32; 3]) -> TapOffloads {
    let has = |bit: u32| features & 1 << bit != 0;
    TapOffloads {
        checksum: has(checksum),
        tso4: has(checksum) && has(tso4),
        tso6: has(checksum) && has(tso6),
    }
}

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Shorter than its headers.
    Short,
    /// Longer than the MTU, or than any frame.
    Oversized,
    /// A checksum that was not negotiated, or that lies outside the frame.
    Checksum,
    /// Segmentation that was not negotiated or makes no sense.
    Segmentation,
    /// Sent with the hardware address of another card.
    ForgedSource,
}

/// A virtio header; all numbers are little endian in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
    /// Chains that hold the frame.
    pub buffers: u16,
}

impl Header {
    /// Reads one.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            buffers: word(10),
        }
    }

    /// As it lies in memory.
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        (bytes[0], bytes[1]) = (self.flags, self.gso_type);
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.buffers,
        ];
        for (slot, word) in bytes[2..].as_chunks_mut().0.iter_mut().zip(words) {
            *slot = word.to_le_bytes();
        }
        bytes
    }

    /// Bytes of TCP in each segment that the frame is to be cut into; 0 if it is not.
    pub fn segment(&self) -> u16 {
        self.gso_size
    }

    /// Whether the checksum of its payload is still to be made.
    pub fn has_partial_checksum(&self) -> bool {
        u32::from(self.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0
    }

    /// Where the checksum is made from and where it goes, in the frame, if it is still to be made.
    pub fn checksum(&self) -> Option<(usize, usize)> {
        let start = usize::from(self.csum_start);
        self.has_partial_checksum()
            .then(|| (start, start + usize::from(self.csum_offset)))
    }

    /// What of it means something, for a frame of `len` bytes.
    fn judge(&self, len: u64, work: TapOffloads) -> Result<Self, Refusal> {
        let mut clean = Self::default();
        if u32::from(self.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
            let end = u64::from(self.csum_start) + u64::from(self.csum_offset) + 2;
            if !work.checksum || end > len {
                return Err(Refusal::Checksum);
            }
            clean.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
            clean.csum_start = self.csum_start;
            clean.csum_offset = self.csum_offset;
        }
        let negotiated = match u32::from(self.gso_type) {
            VIRTIO_NET_HDR_GSO_NONE => return Ok(clean),
            VIRTIO_NET_HDR_GSO_TCPV4 => work.tso4,
            VIRTIO_NET_HDR_GSO_TCPV6 => work.tso6,
            _ => false,
        };
        // Virtio 1.2, 5.1.6.2.1: who asks for segments leaves their checksums to the device, too.
        if !negotiated || clean.flags == 0 || self.gso_size == 0 {
            return Err(Refusal::Segmentation);
        }
        clean.gso_type = self.gso_type;
        clean.gso_size = self.gso_size;
        // Only a hint (virtio 1.2, 5.1.6.2.2), but the kernel refuses one beyond the frame.
        clean.hdr_len = u64::from(self.hdr_len).min(len) as u16;
        Ok(clean)
    }
}

/// What a guest may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// What it may leave to the device.
    pub work: TapOffloads,
    /// The largest packet.
    pub mtu: u16,
    /// The hardware address of its card.
    pub mac: [u8; 6],
}

/// Judges what a guest sends in a chain of `total` bytes that begins with `judged`, which is all of
/// it or the first [`JUDGED_BYTES`]. Gives the header to send it with.
pub fn judge_sent(judged: &[u8], total: u64, rules: &Rules) -> Result<Header, Refusal> {
    let (Some((header, rest)), true) = (judged.split_first_chunk(), total >= JUDGED_BYTES as u64)
    else {
        return Err(Refusal::Short);
    };
    let Some((ethernet, _)) = rest.split_first_chunk::<ETHERNET_BYTES>() else {
        return Err(Refusal::Short);
    };
    let len = total - HEADER_BYTES as u64;
    let header = Header::parse(header).judge(len, rules.work)?;
    let longest = match header.gso_size {
        0 => longest_plain(rules.mtu),
        1..MIN_SEGMENT => return Err(Refusal::Segmentation),
        // With the least headers it would be longer than the MTU.
        size if size.saturating_add(LEAST_HEADERS) > rules.mtu => {
            return Err(Refusal::Segmentation);
        }
        _ => MAX_FRAME,
    };
    if len > longest {
        return Err(Refusal::Oversized);
    }
    if ethernet[6..12] != rules.mac {
        return Err(Refusal::ForgedSource);
    }
    Ok(header)
}

/// Judges a frame of `len` bytes that the host sends to a guest which does `work`. Gives the header
/// to hand it over with; how many chains the frame fills is still to be said.
pub fn judge_received(
    header: &[u8; HEADER_BYTES],
    len: u64,
    work: TapOffloads,
) -> Result<Header, Refusal> {
    if len > MAX_FRAME {
        return Err(Refusal::Oversized);
    }
    let header = Header::parse(header);
    let mut clean = header.judge(len, work)?;
    if work.checksum {
        // The host vouches for the checksum (virtio 1.2, 5.1.6.4.1).
        clean.flags |= header.flags & VIRTIO_NET_HDR_F_DATA_VALID as u8;
    }
    Ok(clean)
}
