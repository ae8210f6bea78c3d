//! The header of a vsock packet (virtio 1.2, 5.10.6). Pure.

/// Bytes of a header.
pub(crate) const HEADER: usize = 44;

/// The host.
pub(crate) const HOST_CID: u64 = 2;

/// The only type of socket that is spoken here.
pub(super) const STREAM: u16 = 1;

/// What a packet is for.
pub(super) mod op {
    pub(in crate::vsock) const REQUEST: u16 = 1;
    pub(in crate::vsock) const RESPONSE: u16 = 2;
    pub(in crate::vsock) const RST: u16 = 3;
    pub(in crate::vsock) const SHUTDOWN: u16 = 4;
    pub(in crate::vsock) const RW: u16 = 5;
    pub(in crate::vsock) const CREDIT_UPDATE: u16 = 6;
    pub(in crate::vsock) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of a `SHUTDOWN`.
pub(super) mod shutdown {
    pub(in crate::vsock) const NO_RECEIVE: u32 = 1;
    pub(in crate::vsock) const NO_SEND: u32 = 2;
    pub(in crate::vsock) const BOTH: u32 = 3;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    pub(crate) src_cid: u64,
    pub(crate) dst_cid: u64,
    pub(crate) src_port: u32,
    pub(crate) dst_port: u32,
    pub(crate) len: u32,
    pub(crate) kind: u16,
    pub(crate) op: u16,
    pub(crate) flags: u32,
    /// How much the sender of the packet has room for in all.
    pub(crate) buf_alloc: u32,
    /// How much it has taken out of that room so far.
    pub(crate) fwd_cnt: u32,
}

impl Header {
    /// As bytes.
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The header at the beginning of a packet, and its payload; `None` if it is cut short.
    pub(crate) fn parse(packet: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, rest) = packet.split_first_chunk::<HEADER>()?;
        let (eight, four) = (
            |at: usize| bytes[at..].first_chunk().copied().map(u64::from_le_bytes),
            |at: usize| bytes[at..].first_chunk().copied().map(u32::from_le_bytes),
        );
        let two = |at: usize| bytes[at..].first_chunk().copied().map(u16::from_le_bytes);
        let header = Self {
            src_cid: eight(0)?,
            dst_cid: eight(8)?,
            src_port: four(16)?,
            dst_port: four(20)?,
            len: four(24)?,
            kind: two(28)?,
            op: two(30)?,
            flags: four(32)?,
            buf_alloc: four(36)?,
            fwd_cnt: four(40)?,
        };
        Some((header, rest.get(..header.len as usize)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_in_the_specification_and_read_back() {
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 0x0102_0304,
            dst_port: 5,
            len: 2,
            kind: STREAM,
            op: op::RW,
            flags: 7,
            buf_alloc: 8,
            fwd_cnt: 9,
        };
        let mut packet = header.to_bytes().to_vec();
        assert_eq!(packet[16..20], [4, 3, 2, 1]);
        assert_eq!(packet[28..32], [1, 0, 5, 0]);
        assert_eq!(Header::parse(&packet), None, "its payload is missing");
        packet.extend([10, 11, 12]);
        assert_eq!(Header::parse(&packet), Some((header, &[10, 11][..])));
        assert_eq!(Header::parse(&packet[..43]), None);
    }
}
