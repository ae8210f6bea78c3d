//! The console's line buffer: what is printed leaves line by line, with few doorbells.
//!
//! Pure: where bytes go is behind [`Port`]. A port takes bytes without copying them, so those it
//! holds are left alone until it has let go of all it was given; then the buffer starts over at
//! its beginning. A console that keeps up therefore touches only as much memory as a line needs.

#[cfg(test)]
mod tests;

/// Takes bytes from the buffer.
pub(crate) trait Port {
    /// Takes `bytes`, which stay unchanged at their place until the port is drained.
    fn send(&mut self, bytes: &[u8]);

    /// Whether it has let go of all bytes it was given.
    fn is_drained(&mut self) -> bool;

    /// Waits until it has.
    fn drain(&mut self);
}

/// Bytes on their way out: sent, then waiting for a line end, then free.
#[derive(Debug)]
pub(crate) struct LineBuffer<const N: usize> {
    sent: usize,
    end: usize,
    bytes: [u8; N],
}

impl<const N: usize> LineBuffer<N> {
    /// An empty buffer.
    pub(crate) const fn new() -> Self {
        Self {
            sent: 0,
            end: 0,
            bytes: [0; N],
        }
    }

    /// Appends `text`, and sends all up to the last line end, or as much as there is when the
    /// buffer is full.
    pub(crate) fn write(&mut self, mut text: &[u8], port: &mut impl Port) {
        if self.end > 0 && self.sent == self.end && port.is_drained() {
            self.restart();
        }
        while !text.is_empty() {
            if self.end == N {
                self.flush(port);
                port.drain();
                self.restart();
            }
            let (now, later) = text.split_at(text.len().min(N - self.end));
            self.bytes[self.end..][..now.len()].copy_from_slice(now);
            if let Some(line_end) = now.iter().rposition(|&byte| byte == b'\n') {
                self.send_up_to(self.end + line_end + 1, port);
            }
            self.end += now.len();
            text = later;
        }
    }

    /// Sends what is left, line end or not.
    pub(crate) fn flush(&mut self, port: &mut impl Port) {
        self.send_up_to(self.end, port);
    }

    fn send_up_to(&mut self, end: usize, port: &mut impl Port) {
        if end > self.sent {
            port.send(&self.bytes[self.sent..end]);
            self.sent = end;
        }
    }

    fn restart(&mut self) {
        self.sent = 0;
        self.end = 0;
    }
}
