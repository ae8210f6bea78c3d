//! The header before each frame of a virtio network card (virtio 1.2, 5.1.6): what the other side
//! still has to do with the frame, or has done already. Pure.

/// Bytes of the header, as version 1 has it.
pub(crate) const LEN: usize = 12;

/// The checksum is to be completed; a frame that says so has not been on a wire that could harm it.
pub(crate) const NEEDS_CSUM: u8 = 1;
/// The checksum has been checked.
pub(crate) const DATA_VALID: u8 = 2;

/// Kinds of segmentation.
pub(crate) mod gso {
    #[cfg(test)]
    pub(crate) const NONE: u8 = 0;
    pub(crate) const TCPV4: u8 = 1;
    pub(crate) const TCPV6: u8 = 4;
}

/// The header. Lengths and offsets are in bytes, offsets from the beginning of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub(crate) flags: u8,
    /// One of [`gso`].
    pub(crate) gso_type: u8,
    /// Headers of a frame to be segmented.
    pub(crate) header_len: u16,
    /// Payload of each segment.
    pub(crate) gso_size: u16,
    /// Where checksumming begins.
    pub(crate) csum_start: u16,
    /// Where the checksum goes, from there.
    pub(crate) csum_offset: u16,
    /// Buffers that a received frame fills.
    pub(crate) buffers: u16,
}

impl Header {
    /// As it goes before a frame.
    pub(crate) fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words = [
            self.header_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.buffers,
        ];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// As it came before a frame.
    pub(crate) fn decode(bytes: &[u8; LEN]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            header_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            buffers: word(10),
        }
    }

    /// Whether the transport checksum needs no look.
    pub(crate) const fn is_verified(&self) -> bool {
        self.flags & (NEEDS_CSUM | DATA_VALID) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_went() {
        let header = Header {
            flags: NEEDS_CSUM,
            gso_type: gso::TCPV6,
            header_len: 74,
            gso_size: 1440,
            csum_start: 54,
            csum_offset: 16,
            buffers: 0x102,
        };
        let bytes = header.encode();
        assert_eq!(bytes[10..], [2, 1], "little endian");
        assert_eq!(Header::decode(&bytes), header);
    }

    #[test]
    fn a_checksum_that_was_checked_or_is_yet_to_be_made_needs_no_look() {
        assert!(!Header::default().is_verified());
        for flags in [NEEDS_CSUM, DATA_VALID] {
            assert!(
                Header {
                    flags,
                    ..Header::default()
                }
                .is_verified()
            );
        }
    }
}
