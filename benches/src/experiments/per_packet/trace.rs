//! What goes through: frames of a sliver's flows, one flow after the other, as first bytes and length.

use vmm::net::gate::Segments;
use vmm::net::packet::HEAD_BYTES;
use vmm::net::shaper::Direction;

/// The sliver's card, and who is at the other end of its link.
const MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWN: [u8; 4] = [10, 0, 0, 2];

/// Bytes of TCP in each segment of a bundle.
const SEGMENT: u16 = 1448;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What the frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Datagrams of UDP of the shortest length, of eight flows.
    Few,
    /// The same of four thousand flows.
    Many,
    /// TCP in frames for an MTU of 1500, of a hundred flows.
    Full,
    /// TCP in bundles of 44 segments, of a hundred flows.
    Bundle,
}

/// A frame.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Its first bytes.
    pub(super) head: Vec<u8>,
    /// How many there are in all.
    pub(super) bytes: usize,
    /// How it is to be cut.
    pub(super) segments: Segments,
}

impl Load {
    fn flows(self) -> u16 {
        match self {
            Self::Few => 8,
            Self::Many => 4000,
            Self::Full | Self::Bundle => 100,
        }
    }

    fn bytes(self) -> usize {
        match self {
            // 64 with the checksum of Ethernet.
            Self::Few | Self::Many => 60,
            Self::Full => 1514,
            Self::Bundle => 54 + 44 * usize::from(SEGMENT),
        }
    }

    fn protocol(self) -> u8 {
        match self {
            Self::Few | Self::Many => UDP,
            Self::Full | Self::Bundle => TCP,
        }
    }

    /// Whether the other side has spoken: datagrams are a flood that nobody answers.
    pub(super) fn is_answered(self) -> bool {
        self.protocol() == TCP
    }

    /// A frame of each flow.
    pub(super) fn frames(self, direction: Direction) -> Vec<Frame> {
        (0..self.flows())
            .map(|flow| self.frame(flow, direction))
            .collect()
    }

    /// A frame in the middle of a flow.
    fn frame(self, flow: u16, direction: Direction) -> Frame {
        let bytes = self.bytes();
        let inside = (OWN, 20_000 + flow);
        let outside = ([198, 51, 100, (flow % 200) as u8 + 1], 443);
        let (macs, source, destination) = match direction {
            Direction::Out => ([NEIGHBOUR, MAC], inside, outside),
            Direction::In => ([MAC, NEIGHBOUR], outside, inside),
        };
        let mut head = macs.concat();
        head.extend([8, 0, 0x45, 0]);
        head.extend(((bytes - 14) as u16).to_be_bytes());
        head.extend([0, 0, 0, 0, 64, self.protocol(), 0, 0]);
        head.extend(source.0);
        head.extend(destination.0);
        head.extend(source.1.to_be_bytes());
        head.extend(destination.1.to_be_bytes());
        let checksum_at = match self.protocol() {
            UDP => {
                head.extend(((bytes - 34) as u16).to_be_bytes());
                40
            }
            _ => {
                head.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10]);
                50
            }
        };
        head.resize(bytes.min(HEAD_BYTES), 0);
        Frame {
            head,
            bytes,
            segments: Segments {
                size: if self == Self::Bundle { SEGMENT } else { 0 },
                checksum: Some((34, checksum_at)),
            },
        }
    }
}
