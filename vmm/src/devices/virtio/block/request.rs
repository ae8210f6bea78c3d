//! From the bytes that a driver puts into a chain to a request whose every number was checked
//! (virtio 1.2, 5.2.6). Pure.
//!
//! Header, data and status may be spread over descriptors in any way (virtio 1.2, 2.7.4): the header
//! is the first 16 bytes that the device may read, the status the last byte that it may write, and
//! the data whatever else is there.

#[cfg(test)]
mod tests;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use crate::devices::virtio::chain::Chain;
use crate::devices::virtio::transfer::total;
use crate::disk::SECTOR;
use crate::disk::engine::Extent;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a serial number.
pub const SERIAL_BYTES: usize = 20;
/// Bytes that describe one segment to discard or to fill with zeros.
const SEGMENT_BYTES: usize = 16;
/// The most segments of one request.
pub const MAX_SEGMENTS: usize = 16;
/// The most sectors of one segment: 4 GiB.
pub const MAX_SEGMENT_SECTORS: u32 = 1 << 23;
/// The most bytes at the beginning of a request that say what it asks for.
pub const LEAD_BYTES: usize = HEADER_BYTES + MAX_SEGMENTS * SEGMENT_BYTES;
/// Of a segment's flags: what becomes zeros needs no room on the disk.
const UNMAP: u32 = 1;

/// How much a chain holds beside header and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Bytes that the device may read, the header's among them.
    pub readable: u64,
    /// Bytes that the device may write, without the status.
    pub writable: u64,
}

impl Frame {
    /// That of a chain. `None`: there is no room for a status, so nothing can be answered.
    pub fn of(chain: &Chain) -> Option<Self> {
        Some(Self {
            readable: total(&chain.readable),
            writable: total(&chain.writable).checked_sub(1)?,
        })
    }
}

/// What a request may ask of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Bytes of the disk.
    pub bytes: u64,
    /// Whether it may only be read.
    pub read_only: bool,
    /// Whether discarding was negotiated.
    pub discard: bool,
    /// Whether writing zeros was negotiated.
    pub write_zeroes: bool,
}

/// A part of the disk to discard, or to fill with zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// Where.
    pub extent: Extent,
    /// Whether it needs no room on the disk any more.
    pub unmap: bool,
}

/// Some segments, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    items: [Segment; MAX_SEGMENTS],
    count: usize,
}

impl Segments {
    /// They, in order.
    pub fn as_slice(&self) -> &[Segment] {
        &self.items[..self.count]
    }
}

/// A request, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Read this.
    Read(Extent),
    /// Write this.
    Write(Extent),
    /// Make all writes durable that were completed before.
    Flush,
    /// Tell the serial number.
    Serial,
    /// These are of no use any more.
    Discard(Segments),
    /// Make zeros of these.
    WriteZeroes(Segments),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum Refusal {
    #[error("short header")]
    ShortHeader,
    #[error("unknown type")]
    UnknownType,
    #[error("no data")]
    NoData,
    #[error("data in the wrong direction")]
    WrongDirection,
    #[error("length not in sectors")]
    Ragged,
    #[error("beyond the end")]
    BeyondEnd,
    #[error("write to a read-only disk")]
    ReadOnly,
    #[error("short room for the serial number")]
    ShortSerial,
    #[error("bad segments")]
    Segments,
    #[error("unknown segment flags")]
    SegmentFlags,
}

impl Refusal {
    /// All there are, with the names of their counters.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::ShortHeader, "refused_short_header"),
        (Self::UnknownType, "refused_unknown_type"),
        (Self::NoData, "refused_no_data"),
        (Self::WrongDirection, "refused_wrong_direction"),
        (Self::Ragged, "refused_ragged_length"),
        (Self::BeyondEnd, "refused_beyond_end"),
        (Self::ReadOnly, "refused_read_only"),
        (Self::ShortSerial, "refused_short_serial"),
        (Self::Segments, "refused_segments"),
        (Self::SegmentFlags, "refused_segment_flags"),
    ];

    /// What the driver is told (virtio 1.2, 5.2.6).
    pub fn status(self) -> u8 {
        let status = match self {
            Self::UnknownType | Self::SegmentFlags => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        };
        status as u8
    }
}

/// How many bytes at the beginning of the request with this header say what it asks for.
pub fn lead_bytes(header: &[u8; HEADER_BYTES]) -> usize {
    match word(header, 0) {
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => LEAD_BYTES,
        _ => HEADER_BYTES,
    }
}

/// Makes a request of its first bytes, [`lead_bytes`] of them or all there are, and of how much else
/// the chain holds.
pub fn parse(lead: &[u8], frame: Frame, rules: &Rules) -> Result<Request, Refusal> {
    let Some((header, rest)) = lead.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Refusal::ShortHeader);
    };
    let sector = u64::from(word(header, 8)) | u64::from(word(header, 12)) << 32;
    let sent = frame.readable.saturating_sub(HEADER_BYTES as u64);
    match word(header, 0) {
        VIRTIO_BLK_T_IN if sent > 0 => Err(Refusal::WrongDirection),
        VIRTIO_BLK_T_IN => Ok(Request::Read(extent(sector, frame.writable, rules)?)),
        VIRTIO_BLK_T_OUT if rules.read_only => Err(Refusal::ReadOnly),
        VIRTIO_BLK_T_OUT if frame.writable > 0 => Err(Refusal::WrongDirection),
        VIRTIO_BLK_T_OUT => Ok(Request::Write(extent(sector, sent, rules)?)),
        VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        VIRTIO_BLK_T_GET_ID if frame.writable < SERIAL_BYTES as u64 => Err(Refusal::ShortSerial),
        VIRTIO_BLK_T_GET_ID => Ok(Request::Serial),
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if rules.read_only => {
            Err(Refusal::ReadOnly)
        }
        VIRTIO_BLK_T_DISCARD if rules.discard => {
            let segments = segments(rest, sent, rules)?;
            // Virtio 1.2, 5.2.6.2.
            match segments.as_slice().iter().any(|segment| segment.unmap) {
                true => Err(Refusal::SegmentFlags),
                false => Ok(Request::Discard(segments)),
            }
        }
        VIRTIO_BLK_T_WRITE_ZEROES if rules.write_zeroes => {
            Ok(Request::WriteZeroes(segments(rest, sent, rules)?))
        }
        _ => Err(Refusal::UnknownType),
    }
}

fn extent(sector: u64, len: u64, rules: &Rules) -> Result<Extent, Refusal> {
    if len == 0 {
        return Err(Refusal::NoData);
    }
    if !len.is_multiple_of(SECTOR) {
        return Err(Refusal::Ragged);
    }
    let at = sector.checked_mul(SECTOR).ok_or(Refusal::BeyondEnd)?;
    match at.checked_add(len) {
        Some(end) if end <= rules.bytes => Ok(Extent { at, len }),
        _ => Err(Refusal::BeyondEnd),
    }
}

/// Reads the segments, of which the driver sent so many bytes.
fn segments(bytes: &[u8], sent: u64, rules: &Rules) -> Result<Segments, Refusal> {
    let (chunks, rest) = bytes.as_chunks::<SEGMENT_BYTES>();
    let whole = rest.is_empty() && sent == bytes.len() as u64;
    if !whole || chunks.is_empty() || chunks.len() > MAX_SEGMENTS {
        return Err(Refusal::Segments);
    }
    let mut segments = Segments {
        items: [Segment::default(); MAX_SEGMENTS],
        count: chunks.len(),
    };
    for (segment, chunk) in segments.items.iter_mut().zip(chunks) {
        let sector = u64::from(word(chunk, 0)) | u64::from(word(chunk, 4)) << 32;
        let (sectors, flags) = (word(chunk, 8), word(chunk, 12));
        if flags & !UNMAP != 0 {
            return Err(Refusal::SegmentFlags);
        }
        if sectors == 0 || sectors > MAX_SEGMENT_SECTORS {
            return Err(Refusal::Segments);
        }
        *segment = Segment {
            extent: extent(sector, u64::from(sectors) * SECTOR, rules)?,
            unmap: flags & UNMAP != 0,
        };
    }
    Ok(segments)
}

/// The little-endian word at `at`.
fn word(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
