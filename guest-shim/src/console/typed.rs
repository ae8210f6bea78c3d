//! Bytes that have come in, and the lines in them. Pure.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes that are kept until they are read; also the longest line.
pub(crate) const ROOM: usize = 64 << 10;

/// What has come in and was not read yet.
#[derive(Debug, Default)]
pub(crate) struct Typed {
    bytes: VecDeque<u8>,
    /// Bytes from the beginning that hold no line end.
    looked_at: usize,
}

impl Typed {
    /// Whether there is room for as many bytes more.
    pub(crate) fn has_room_for(&self, count: usize) -> bool {
        self.bytes.len() + count <= ROOM
    }

    /// Takes bytes for which there is room.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The next line without its end; or all, when nothing more than `reserve` fits.
    pub(crate) fn line(&mut self, reserve: usize) -> Option<String> {
        let mut fresh = self.bytes.range(self.looked_at..);
        let (line, end) = match fresh.position(|&byte| byte == b'\n') {
            Some(at) => (self.looked_at + at, self.looked_at + at + 1),
            None if !self.has_room_for(reserve + 1) => (self.bytes.len(), self.bytes.len()),
            None => {
                self.looked_at = self.bytes.len();
                return None;
            }
        };
        self.looked_at = 0;
        let mut bytes: Vec<u8> = self.bytes.drain(..end).take(line).collect();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_and_in_order_however_they_come_in() {
        let mut typed = Typed::default();
        let mut lines = Vec::new();
        for byte in b"one\r\ntwo\n\nth\xffree\nnot yet" {
            typed.extend(&[*byte]);
            lines.extend(typed.line(0));
        }
        assert_eq!(lines, ["one", "two", "", "th\u{fffd}ree"]);
        typed.extend(b"a\nb\n");
        assert_eq!(typed.line(0).as_deref(), Some("not yeta"));
        assert_eq!(typed.line(0).as_deref(), Some("b"));
        assert_eq!(typed.line(0), None);
    }

    #[test]
    fn a_line_that_never_ends_comes_in_pieces() {
        let mut typed = Typed::default();
        let mut pieces = 0;
        for _ in 0..10 * ROOM / 100 {
            assert!(typed.has_room_for(100));
            typed.extend(&[b'x'; 100]);
            if let Some(line) = typed.line(100) {
                assert!(line.len() > ROOM - 200);
                pieces += 1;
            }
        }
        assert!((9..=11).contains(&pieces));
    }
}
