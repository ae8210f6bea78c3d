use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::net::card::{Card, Frame, Properties, Receiver, Transmitter};

/// What a cable and its cards are like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quality {
    /// Of a thousand frames so many are lost.
    pub(super) loss: u64,
    /// Of a thousand frames so many have a bit turned.
    pub(super) harm: u64,
    /// Cards complete checksums and carry long frames whole.
    pub(super) offloads: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Server,
    Client,
}

/// Frames under way, by the end they go to.
#[derive(Debug, Default)]
struct Wires {
    to: [VecDeque<Vec<u8>>; 2],
    /// The longest frame so far.
    longest: usize,
    frames: usize,
    dice: u64,
    /// Nothing goes through.
    cut: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Cable {
    wires: Arc<Mutex<Wires>>,
    quality: Quality,
}

impl Cable {
    pub(super) fn new(quality: Quality) -> Self {
        Self {
            wires: Arc::default(),
            quality,
        }
    }

    pub(super) fn end(&self, end: End) -> Box<dyn Card> {
        let own = end as usize;
        let incoming = Incoming {
            wires: Arc::clone(&self.wires),
            own,
            front: None,
            verified: self.quality.offloads,
        };
        let outgoing = Outgoing {
            wires: Arc::clone(&self.wires),
            other: 1 - own,
            quality: self.quality,
        };
        Box::new(TestCard {
            incoming,
            outgoing,
            quality: self.quality,
            mac: [2, 0, 0, 0, 0, 1 + own as u8],
        })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.wires
            .lock()
            .unwrap()
            .to
            .iter()
            .any(|to| !to.is_empty())
    }

    pub(super) fn longest(&self) -> usize {
        self.wires.lock().unwrap().longest
    }

    pub(super) fn frames(&self) -> usize {
        self.wires.lock().unwrap().frames
    }

    pub(super) fn cut(&self) {
        self.wires.lock().unwrap().cut = true;
    }
}

struct TestCard {
    incoming: Incoming,
    outgoing: Outgoing,
    quality: Quality,
    mac: [u8; 6],
}

struct Incoming {
    wires: Arc<Mutex<Wires>>,
    own: usize,
    front: Option<Vec<u8>>,
    verified: bool,
}

struct Outgoing {
    wires: Arc<Mutex<Wires>>,
    other: usize,
    quality: Quality,
}

impl Card for TestCard {
    fn properties(&self) -> Properties {
        Properties {
            mac: self.mac,
            mtu: 1500,
            checksums: self.quality.offloads,
            segments4: self.quality.offloads,
        }
    }

    fn split(&mut self) -> (&mut dyn Receiver, &mut dyn Transmitter) {
        (&mut self.incoming, &mut self.outgoing)
    }

    fn publish(&mut self) {}

    fn ring(&mut self) {}

    fn rest(&mut self, _: bool) -> bool {
        false
    }
}

impl Receiver for Incoming {
    fn front(&mut self) -> Option<Frame<'_>> {
        if self.front.is_none() {
            self.front = self.wires.lock().unwrap().to[self.own].pop_front();
        }
        self.front.as_ref().map(|bytes| Frame {
            bytes,
            verified: self.verified,
        })
    }

    fn drop_front(&mut self) {
        self.front = None;
    }
}

impl Transmitter for Outgoing {
    fn has_room(&mut self) -> bool {
        self.wires.lock().unwrap().to[self.other].len() < 256
    }

    fn send(&mut self, length: usize, size: Option<u16>, fill: &mut dyn FnMut(&mut [u8])) {
        let mut frame = vec![0; length];
        fill(&mut frame);
        assert!(
            size.is_some() || length <= 1514,
            "a long frame in one piece"
        );
        let mut wires = self.wires.lock().unwrap();
        let mut die = || {
            wires.dice = wires
                .dice
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (wires.dice >> 33) % 1000
        };
        let lost = die() < self.quality.loss;
        if die() < self.quality.harm {
            let bit = die() as usize * 8191 % (length * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        wires.frames += 1;
        wires.longest = wires.longest.max(length);
        if !lost && !wires.cut {
            wires.to[self.other].push_back(frame);
        }
    }
}
