//! The bytes that breakpoints have replaced, so that gdb never sees its own breakpoints in memory.

use std::collections::BTreeMap;

/// The breakpoint instruction.
pub(super) const INT3: u8 = 0xcc;

/// Breakpoints by address, with the byte that was there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Breakpoints(BTreeMap<u64, u8>);

impl Breakpoints {
    /// Whether there is one at `address`.
    pub(super) fn contains(&self, address: u64) -> bool {
        self.0.contains_key(&address)
    }

    /// Notes one that has replaced `byte`.
    pub(super) fn insert(&mut self, address: u64, byte: u8) {
        self.0.insert(address, byte);
    }

    /// Forgets one; the byte to put back.
    pub(super) fn remove(&mut self, address: u64) -> Option<u8> {
        self.0.remove(&address)
    }

    /// Forgets all of them; the bytes to put back.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (u64, u8)> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }

    /// Puts the replaced bytes into what was read from `address`.
    pub(super) fn hide(&self, address: u64, data: &mut [u8]) {
        for (at, byte) in self.within(address, data.len()) {
            data[at] = byte;
        }
    }

    /// Notes what is about to be written at `address` as the replaced bytes; what must be written
    /// instead, for the breakpoints to stay.
    pub(super) fn keep(&mut self, address: u64, data: &[u8]) -> Vec<u8> {
        let mut written = data.to_vec();
        let hit: Vec<usize> = self.within(address, data.len()).map(|(at, _)| at).collect();
        for at in hit {
            self.0.insert(address + at as u64, data[at]);
            written[at] = INT3;
        }
        written
    }

    /// Breakpoints in `len` bytes from `address`: offset and replaced byte.
    fn within(&self, address: u64, len: usize) -> impl Iterator<Item = (usize, u8)> {
        let range = address..address.saturating_add(len as u64);
        self.0
            .range(range)
            .map(move |(at, byte)| ((at - address) as usize, *byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_show_what_was_there_before() {
        let mut breakpoints = Breakpoints::default();
        breakpoints.insert(0x1001, 0x55);
        let mut data = [0x90, INT3, 0x90];
        breakpoints.hide(0x1000, &mut data);
        assert_eq!(data, [0x90, 0x55, 0x90]);
        let mut beside = [INT3];
        breakpoints.hide(0x1002, &mut beside);
        assert_eq!(beside, [INT3]);
    }

    #[test]
    fn writes_over_a_breakpoint_are_remembered_and_leave_it_in_place() {
        let mut breakpoints = Breakpoints::default();
        breakpoints.insert(0x1001, 0x55);
        assert_eq!(breakpoints.keep(0x1000, &[1, 2, 3]), [1, INT3, 3]);
        assert_eq!(breakpoints.remove(0x1001), Some(2));
        assert_eq!(breakpoints.remove(0x1001), None);
    }

    #[test]
    fn the_end_of_the_address_space_is_no_trap() {
        let mut breakpoints = Breakpoints::default();
        breakpoints.insert(u64::MAX, 1);
        breakpoints.hide(u64::MAX - 1, &mut [0; 16]);
        assert_eq!(breakpoints.take().collect::<Vec<_>>(), [(u64::MAX, 1)]);
    }
}
