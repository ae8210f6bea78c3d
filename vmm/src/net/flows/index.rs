//! Finds the place of a key by its hash: open addressing with linear probing, at most half full,
//! and without tombstones. What lies at a place is compared by whoever asks.

/// No place.
const NONE: u32 = u32::MAX;

/// Slots at the beginning.
const FEWEST: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    place: u32,
}

const EMPTY: Slot = Slot {
    hash: 0,
    place: NONE,
};

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    slots: Vec<Slot>,
    used: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![EMPTY; FEWEST],
            used: 0,
        }
    }

    /// The place with this hash that is the right one.
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.place == NONE {
                return None;
            }
            if slot.hash == hash && is_it(slot.place) {
                return Some(slot.place);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a place that is not there yet.
    pub(super) fn insert(&mut self, hash: u32, place: u32) {
        if 2 * (self.used + 1) > self.slots.len() {
            let larger = vec![EMPTY; 2 * self.slots.len()];
            let old = std::mem::replace(&mut self.slots, larger);
            for slot in old.into_iter().filter(|slot| slot.place != NONE) {
                self.put(slot);
            }
        }
        self.put(Slot { hash, place });
        self.used += 1;
    }

    fn put(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.hash as usize & mask;
        while self.slots[at].place != NONE {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Takes a place out again.
    pub(super) fn remove(&mut self, hash: u32, place: u32) {
        let mask = self.slots.len() - 1;
        let mut hole = hash as usize & mask;
        while self.slots[hole].place != place {
            if self.slots[hole].place == NONE {
                return;
            }
            hole = (hole + 1) & mask;
        }
        self.used -= 1;
        // What was put behind the hole because of what was in it moves up.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot.place == NONE {
                break;
            }
            let home = slot.hash as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
    }
}
