//! What went when, and how far that is from a rate. Pure.

#[cfg(test)]
mod tests;

use std::time::Duration;

/// Lengths of the windows.
const WINDOWS: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(10),
    Duration::from_millis(1),
];

/// Bytes of the headers that each segment of a bundle has, and of its payload.
const SEGMENT_HEADERS: usize = 54;
const SEGMENT: usize = 1448;
/// A frame that is longer is a bundle.
const LONGEST_PLAIN: usize = 1514;

/// Bytes of a frame on the wire: of each of its segments, if it is a bundle.
pub(super) const fn on_wire(frame: usize) -> u64 {
    if frame <= LONGEST_PLAIN {
        return frame as u64;
    }
    let segments = (frame - SEGMENT_HEADERS).div_ceil(SEGMENT);
    (frame + (segments - 1) * SEGMENT_HEADERS) as u64
}

/// Frames that went.
#[derive(Debug, Default)]
pub(super) struct Gone(Vec<(Duration, u64)>);

/// How far from a rate they were, in percent of what was due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Errors {
    /// From the first to the last.
    pub(super) long: f64,
    /// In the worst window of 100, 10 and 1 ms.
    pub(super) windows: [f64; 3],
}

impl Gone {
    /// A frame of `len` bytes went at this moment; moments do not fall.
    pub(super) fn add(&mut self, at: Duration, len: usize) {
        self.0.push((at, on_wire(len)));
    }

    /// Forgets what went in the first part.
    pub(super) fn skip(&mut self, part: Duration) {
        let Some(&(first, _)) = self.0.first() else {
            return;
        };
        self.0.retain(|(at, _)| *at >= first + part);
    }

    /// The rate in the mean. What came with the first frame belongs to the time before it.
    pub(super) fn kbit(&self) -> f64 {
        let ([(first, _), ..], [.., (last, _)]) = (&self.0[..], &self.0[..]) else {
            return 0.0;
        };
        let bytes: u64 = self.0.iter().skip(1).map(|(_, bytes)| bytes).sum();
        let seconds = last.saturating_sub(*first).as_secs_f64();
        if seconds > 0.0 {
            bytes as f64 * 8.0 / 1000.0 / seconds
        } else {
            0.0
        }
    }

    /// How far it is from this rate.
    pub(super) fn errors(&self, kbit: u64) -> Errors {
        Errors {
            long: 100.0 * (self.kbit() / kbit as f64 - 1.0).abs(),
            windows: WINDOWS.map(|window| self.worst(window, kbit)),
        }
    }

    /// The worst of the windows from the first frame on, the last that is whole included.
    fn worst(&self, window: Duration, kbit: u64) -> f64 {
        let ([(first, _), ..], [.., (last, _)]) = (&self.0[..], &self.0[..]) else {
            return 100.0;
        };
        let count = last.saturating_sub(*first).as_nanos() / window.as_nanos();
        let mut sums = vec![0u64; count as usize];
        for (at, bytes) in &self.0 {
            let index = (*at - *first).as_nanos() / window.as_nanos();
            if let Some(sum) = sums.get_mut(index as usize) {
                *sum += bytes;
            }
        }
        let due = kbit as f64 * 1000.0 / 8.0 * window.as_secs_f64();
        let off = sums
            .iter()
            .map(|sum| 100.0 * (*sum as f64 - due).abs() / due);
        off.fold(0.0, f64::max)
    }
}
