//! Copies of a sliver's packets, in the form of a pcap file: its headers, and as much of each packet
//! as is looked at anyway.
//!
//! Records are as in libpcap's format of 2.4, the kind with nanoseconds. What finds no room is
//! counted: whoever looks on does not hold up the sliver.

use crate::nanos::Nanos;

/// The most that is copied of a packet: its [head](super::packet::HEAD_BYTES).
pub const MAX_SNAPLEN: u32 = super::packet::HEAD_BYTES as u32;

/// Bytes that wait to be taken, at most. As digits they fit into one answer.
const ROOM: usize = 384 << 10;

/// Bytes before each packet.
const RECORD_HEADER: usize = 16;

/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

/// Packets on their way to whoever captures them.
#[derive(Debug)]
pub struct Capture {
    snaplen: usize,
    taken: Vec<u8>,
    dropped: u64,
}

impl Capture {
    /// Copies at most so many bytes of each packet.
    pub fn new(snaplen: u32) -> Self {
        Self {
            snaplen: snaplen.min(MAX_SNAPLEN) as usize,
            taken: Vec::new(),
            dropped: 0,
        }
    }

    /// Copies a packet of `bytes` bytes that begins with `head`. `at` is nanoseconds since 1970.
    pub fn add(&mut self, head: &[u8], bytes: usize, at: Nanos) {
        let copied = &head[..head.len().min(self.snaplen).min(bytes)];
        if self.taken.len() + RECORD_HEADER + copied.len() > ROOM {
            self.dropped += 1;
            return;
        }
        const SECOND: u64 = 1_000_000_000;
        let fields = [
            (at.0 / SECOND) as u32,
            (at.0 % SECOND) as u32,
            copied.len() as u32,
            bytes as u32,
        ];
        for field in fields {
            self.taken.extend(field.to_le_bytes());
        }
        self.taken.extend(copied);
    }

    /// The records since the last time, and how many packets found no room so far.
    pub fn take(&mut self) -> (Vec<u8>, u64) {
        (std::mem::take(&mut self.taken), self.dropped)
    }
}

/// What a file begins with whose packets have at most `snaplen` bytes.
pub fn file_header(snaplen: u32) -> [u8; 24] {
    let mut header = [0; 24];
    // Magic number, version 2.4, two fields that nobody uses, snaplen, kind of link.
    header[..4].copy_from_slice(&0xa1b2_3c4d_u32.to_le_bytes());
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&snaplen.to_le_bytes());
    header[20..].copy_from_slice(&ETHERNET.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_and_keep_their_length_and_time() {
        let mut capture = Capture::new(4);
        capture.add(b"abcdef", 1500, Nanos(3_000_000_007));
        capture.add(b"xy", 2, Nanos(4_000_000_000));
        let (records, dropped) = capture.take();
        let word = |at: usize| u32::from_le_bytes(records[at..at + 4].try_into().unwrap());
        assert_eq!([word(0), word(4), word(8), word(12)], [3, 7, 4, 1500]);
        assert_eq!(&records[16..20], b"abcd");
        assert_eq!([word(20), word(24), word(28), word(32)], [4, 0, 2, 2]);
        assert_eq!(&records[36..], b"xy");
        assert_eq!(dropped, 0);
        assert_eq!(capture.take(), (Vec::new(), 0));
    }

    #[test]
    fn what_nobody_takes_is_counted_and_takes_no_more_room() {
        let mut capture = Capture::new(u32::MAX);
        for _ in 0..10_000 {
            capture.add(&[0; 256], 1500, Nanos(0));
        }
        let (records, dropped) = capture.take();
        assert!(records.len() <= ROOM);
        assert_eq!(records.len() / (16 + 256) + dropped as usize, 10_000);
    }
}
