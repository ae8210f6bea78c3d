//! A disk in memory that loses power and fails on request. Until a flush, it keeps every version of
//! every sector: after a crash any of them may be the one that is there.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::storage::{SECTOR, Storage};

type Sector = [u8; SECTOR as usize];

/// What goes wrong from now on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// The write or flush after this many that do not fail fails, once.
    pub(super) after: Option<u32>,
    /// Whether one that fails has done its work nevertheless.
    pub(super) done: bool,
}

/// A disk. Cloning it gives another handle of the same one.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    durable: Vec<Sector>,
    /// What was written since the last flush, by sector, oldest first.
    written: BTreeMap<usize, Vec<Sector>>,
    power_left: Option<u32>,
    faults: Faults,
}

impl Disk {
    pub(super) fn new(bytes: u64) -> Self {
        Self::with(vec![[0; SECTOR as usize]; (bytes / SECTOR) as usize])
    }

    fn with(durable: Vec<Sector>) -> Self {
        Self(Arc::new(Mutex::new(State {
            durable,
            written: BTreeMap::new(),
            power_left: None,
            faults: Faults::default(),
        })))
    }

    /// Lets the power go after this many writes and flushes; the one that it goes at fails.
    pub(super) fn cut_power_after(&self, left: Option<u32>) {
        self.state().power_left = left;
    }

    pub(super) fn has_power(&self) -> bool {
        self.state().power_left != Some(0)
    }

    pub(super) fn fail(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// The disk that is found after the power has gone.
    pub(super) fn after_crash(&self, seed: u64) -> Self {
        let state = self.state();
        let mut durable = state.durable.clone();
        let mut random = seed | 1;
        for (sector, versions) in &state.written {
            // Marsaglia's xorshift, 64 bits.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // One more than there are: it may be as it was.
            let chosen = (random >> 16) as usize % (versions.len() + 1);
            if let Some(version) = versions.get(chosen) {
                durable[*sector] = *version;
            }
        }
        Self::with(durable)
    }

    /// Overwrites bytes behind the log's back, for good.
    pub(super) fn damage(&self, offset: u64, bytes: &[u8]) {
        let (sector, at) = ((offset / SECTOR) as usize, (offset % SECTOR) as usize);
        self.state().durable[sector][at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("no test panics while it holds the lock")
    }
}

impl State {
    /// Does something, unless now is when it fails.
    fn attempt(&mut self, work: impl FnOnce(&mut Self)) -> io::Result<()> {
        if self.power_left == Some(0) {
            return Err(io::Error::other("there is no power"));
        }
        if let Some(left) = &mut self.power_left {
            *left -= 1;
        }
        let fails = match &mut self.faults.after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let no_power = self.power_left == Some(0);
        if fails {
            self.faults.after = None;
        }
        if !fails || self.faults.done {
            work(self);
        }
        if fails || no_power {
            return Err(io::Error::other("asked to fail"));
        }
        Ok(())
    }
}

impl Storage for Disk {
    type Error = io::Error;

    fn bytes(&self) -> u64 {
        self.state().durable.len() as u64 * SECTOR
    }

    async fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        assert!(offset.is_multiple_of(SECTOR));
        let first = (offset / SECTOR) as usize;
        let (sectors, rest) = buffer.as_chunks_mut::<{ SECTOR as usize }>();
        assert!(rest.is_empty());
        for (sector, into) in (first..).zip(sectors) {
            let newest = state
                .written
                .get(&sector)
                .and_then(|versions| versions.last());
            *into = *newest.unwrap_or(&state.durable[sector]);
        }
        Ok(())
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(SECTOR) && !bytes.is_empty());
        let first = (offset / SECTOR) as usize;
        let (sectors, rest) = bytes.as_chunks::<{ SECTOR as usize }>();
        assert!(rest.is_empty());
        let mut state = self.state();
        assert!(first + sectors.len() <= state.durable.len());
        state.attempt(|state| {
            for (sector, bytes) in (first..).zip(sectors) {
                state.written.entry(sector).or_default().push(*bytes);
            }
        })
    }

    async fn flush(&self) -> io::Result<()> {
        self.state().attempt(|state| {
            for (sector, versions) in std::mem::take(&mut state.written) {
                if let Some(newest) = versions.last() {
                    state.durable[sector] = *newest;
                }
            }
        })
    }
}
