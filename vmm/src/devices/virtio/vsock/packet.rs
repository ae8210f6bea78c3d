//! The header of a vsock packet (virtio 1.2, 5.10.6): 44 bytes, in and out. Pure.

/// Bytes of a header.
pub const HEADER_BYTES: usize = 44;

/// The host's context identifier (virtio 1.2, 5.10.4).
pub const HOST_CID: u64 = 2;

/// The only type of socket that is offered: a stream.
pub const TYPE_STREAM: u16 = 1;

/// Flags of a shutdown: what its sender will not do any more (virtio 1.2, 5.10.6.6).
pub mod shutdown {
    /// It will not receive.
    pub const RECEIVE: u32 = 1 << 0;
    /// It will not send.
    pub const SEND: u32 = 1 << 1;
    /// Both.
    pub const BOTH: u32 = RECEIVE | SEND;
}

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Asks for a connection.
    Request = 1,
    /// Accepts one.
    Response = 2,
    /// Ends one at once, or refuses it.
    Reset = 3,
    /// Says that its sender will not receive, or send, any more.
    Shutdown = 4,
    /// Carries data.
    Data = 5,
    /// Tells the sender's credit.
    CreditUpdate = 6,
    /// Asks for the other side's.
    CreditRequest = 7,
}

impl Op {
    fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// A header as it came: nothing in it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who sends it.
    pub src_cid: u64,
    /// Whom it is for.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Bytes that follow.
    pub len: u32,
    /// Type of socket.
    pub kind: u16,
    /// What it is for, as a number.
    pub raw_op: u16,
    /// Flags of the operation.
    pub flags: u32,
    /// Bytes that the sender can hold for its reader.
    pub buf_alloc: u32,
    /// Bytes that its reader has taken so far, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// What it is for, if that is known.
    pub fn op(&self) -> Option<Op> {
        Op::from_raw(self.raw_op)
    }

    /// Reads a header.
    pub fn parse(raw: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            raw_op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    /// Writes it.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut raw = [0; HEADER_BYTES];
        raw[..8].copy_from_slice(&self.src_cid.to_le_bytes());
        raw[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        raw[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        raw[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        raw[24..28].copy_from_slice(&self.len.to_le_bytes());
        raw[28..30].copy_from_slice(&self.kind.to_le_bytes());
        raw[30..32].copy_from_slice(&self.raw_op.to_le_bytes());
        raw[32..36].copy_from_slice(&self.flags.to_le_bytes());
        raw[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        raw[40..].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_laid_out_as_the_standard_says() {
        let mut raw = [0; HEADER_BYTES];
        for (i, byte) in raw.iter_mut().enumerate() {
            *byte = i as u8;
        }
        let header = Header::parse(&raw);
        assert_eq!(header.src_cid, 0x0706_0504_0302_0100);
        assert_eq!(header.dst_cid, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(header.src_port, 0x1312_1110);
        assert_eq!(header.dst_port, 0x1716_1514);
        assert_eq!(header.len, 0x1b1a_1918);
        assert_eq!((header.kind, header.raw_op), (0x1d1c, 0x1f1e));
        assert_eq!(header.flags, 0x2322_2120);
        assert_eq!(header.buf_alloc, 0x2726_2524);
        assert_eq!(header.fwd_cnt, 0x2b2a_2928);
    }

    #[test]
    fn every_operation_is_read_as_it_is_written() {
        let known: Vec<u16> = (0..=u16::MAX)
            .filter(|&raw| Op::from_raw(raw).is_some())
            .collect();
        assert_eq!(known, [1, 2, 3, 4, 5, 6, 7]);
        assert!(
            known
                .iter()
                .all(|&raw| Op::from_raw(raw).unwrap() as u16 == raw)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_written_back(raw in any::<[u8; 32]>(), tail in any::<[u8; 12]>()) {
            let mut bytes = [0; HEADER_BYTES];
            bytes[..32].copy_from_slice(&raw);
            bytes[32..].copy_from_slice(&tail);
            prop_assert_eq!(Header::parse(&bytes).encode(), bytes);
        }
    }
}
