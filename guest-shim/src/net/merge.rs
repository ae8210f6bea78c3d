//! Joins consecutive segments of a TCP flow into one frame that a device takes apart again.
//!
//! The stack makes segments no longer than the other end's limit. Those of one flow that follow
//! each other and differ in nothing but their place can travel to the device as one (segmentation
//! offload), at the cost of one. Pure.

#[cfg(test)]
pub(crate) mod tests;

use super::vnet::{self, Header, gso};
use super::wire::{ETHERNET, Layout, flag, fold, sum};

/// The longest packet: what the length field of an IPv4 header can tell.
pub(crate) const LONGEST_PACKET: usize = 65535;

/// A segment, and those that were joined to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    layout: Layout,
    /// Payload of each segment but the last.
    size: usize,
    /// Whether the last segment was as long as the others and asked for nothing to end the run.
    open: bool,
}

impl Run {
    /// Begins with a segment that others may follow.
    pub(crate) fn begin(frame: &[u8]) -> Option<Self> {
        let layout = Layout::of(frame)?;
        let size = layout.end - layout.payload;
        let plain = layout.tcp && layout.flags(frame) == flag::ACK;
        (plain && size > 0 && layout.end == frame.len()).then_some(Self {
            layout,
            size,
            open: true,
        })
    }

    /// Bytes of headers, those of each segment.
    pub(crate) const fn headers(&self) -> usize {
        self.layout.payload
    }

    /// Payload of each segment but the last.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// Whether it is of IPv6.
    pub(crate) const fn is_v6(&self) -> bool {
        self.layout.v6
    }

    /// Joins `segment` if it goes on where the run ends: its flags are merged into those of the
    /// run, and the caller appends its payload. `joined` begins with the headers of the run, which
    /// has `length` bytes so far.
    pub(crate) fn join(&mut self, joined: &mut [u8], length: usize, segment: &[u8]) -> bool {
        let Some(next) = Layout::of(segment) else {
            return false;
        };
        let size = next.end - next.payload;
        let so_far = length - self.headers();
        let fits = self.open
            && (next.v6, next.tcp, next.payload) == (self.layout.v6, true, self.layout.payload)
            && next.end == segment.len()
            && (1..=self.size).contains(&size)
            && length + size - ETHERNET <= LONGEST_PACKET;
        if !fits || !self.same_flow(joined, segment) {
            return false;
        }
        let flags = next.flags(segment);
        let follows = sequence(&self.layout, joined).wrapping_add(so_far as u32)
            == sequence(&next, segment)
            && flags & !(flag::PSH | flag::FIN) == flag::ACK;
        if follows {
            joined[self.layout.transport + 13] |= flags;
            self.open = size == self.size && flags == flag::ACK;
        }
        follows
    }

    /// Whether headers agree in all but lengths, identification, checksums, sequence and flags.
    fn same_flow(&self, joined: &[u8], segment: &[u8]) -> bool {
        let same = |from: usize, to: usize| joined[from..to] == segment[from..to];
        let network = if self.layout.v6 {
            same(ETHERNET, ETHERNET + 4) && same(ETHERNET + 6, self.layout.transport)
        } else {
            same(ETHERNET, ETHERNET + 2)
                && same(ETHERNET + 6, ETHERNET + 10)
                && same(ETHERNET + 12, self.layout.transport)
        };
        let transport = self.layout.transport;
        same(0, ETHERNET)
            && network
            && same(transport, transport + 4)
            && same(transport + 8, transport + 13)
            && same(transport + 14, transport + 16)
            && same(transport + 18, self.layout.payload)
    }

    /// Makes one frame of the run. Returns the size of its segments if it has several.
    pub(crate) fn finish(&self, joined: &mut [u8]) -> Option<u16> {
        let packet = joined.len() - ETHERNET;
        if packet == self.layout.end - ETHERNET {
            return None;
        }
        if self.layout.v6 {
            let length = (joined.len() - self.layout.transport) as u16;
            joined[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
        } else {
            let header = &mut joined[ETHERNET..self.layout.transport];
            header[2..4].copy_from_slice(&(packet as u16).to_be_bytes());
            header[10..12].fill(0);
            let checksum = !fold(sum(header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        Some(self.size as u16)
    }
}

/// What a device is to do with a frame: complete its checksum, and take it apart into segments of
/// `size`. Begins the checksum in the frame.
pub(crate) fn offload(frame: &mut [u8], size: Option<u16>) -> Header {
    let Some(layout) = Layout::of(frame) else {
        return Header::default();
    };
    layout.begin_checksum(frame);
    let mut header = Header {
        flags: vnet::NEEDS_CSUM,
        csum_start: layout.transport as u16,
        csum_offset: layout.checksum_offset() as u16,
        ..Header::default()
    };
    if let Some(size) = size {
        header.gso_type = if layout.v6 { gso::TCPV6 } else { gso::TCPV4 };
        header.gso_size = size;
        header.header_len = layout.payload as u16;
    }
    header
}

/// The longest packet that has room for headers and a whole number of full segments, so that no
/// short ones are made along the way.
pub(crate) const fn longest_of_full_segments(mtu: usize, headers: usize) -> usize {
    let segment = mtu - headers;
    headers + (LONGEST_PACKET - headers) / segment * segment
}

fn sequence(layout: &Layout, frame: &[u8]) -> u32 {
    let at = layout.transport + 4;
    let bytes = frame[at..].first_chunk().copied().unwrap_or_default();
    u32::from_be_bytes(bytes)
}
