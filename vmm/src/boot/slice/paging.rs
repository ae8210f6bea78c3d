//! Four-level page tables for a native sliver (AMD64 manual volume 2, 5.3), built in plain memory.
//!
//! Accessed and dirty bits are set from the start: nobody reads them, and a processor that need
//! not set them saves a write to the tables.

use std::collections::BTreeMap;

use slice_abi::layout::{LARGE_PAGE_SIZE, PAGE_SIZE};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

const ENTRIES: usize = 512;

/// Who may do what with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection(u64);

impl Protection {
    /// The guest may read.
    pub const USER_READ: Self = Self(USER | NO_EXECUTE);
    /// The guest may read and write.
    pub const USER_WRITE: Self = Self(USER | WRITABLE | NO_EXECUTE);
    /// The guest may read and execute.
    pub const USER_EXECUTE: Self = Self(USER);
    /// The guest may read and write registers.
    pub const USER_WINDOW: Self =
        Self(USER | WRITABLE | NO_EXECUTE | CACHE_DISABLE | WRITE_THROUGH);
    /// Only the supervisor may read.
    pub const SUPERVISOR_READ: Self = Self(NO_EXECUTE);
    /// Only the supervisor may read and write.
    pub const SUPERVISOR_WRITE: Self = Self(WRITABLE | NO_EXECUTE);
    /// Only the supervisor may read and execute.
    pub const SUPERVISOR_EXECUTE: Self = Self(0);
    /// Only the supervisor may write registers.
    pub const SUPERVISOR_WINDOW: Self = Self(WRITABLE | NO_EXECUTE | CACHE_DISABLE | WRITE_THROUGH);
}

/// The tables, each a page; the first is the root.
#[derive(Debug)]
pub struct PageTables {
    base: u64,
    tables: Vec<[u64; ENTRIES]>,
    /// The table that a table's entry points to.
    children: BTreeMap<(usize, usize), usize>,
}

impl PageTables {
    /// Empty tables that will lie at guest physical address `base`.
    pub fn new(base: u64) -> Self {
        Self {
            base,
            tables: vec![[0; ENTRIES]],
            children: BTreeMap::new(),
        }
    }

    /// Maps the page at `virt` to `phys`.
    pub fn map(&mut self, virt: u64, phys: u64, protection: Protection) {
        let table = self.walk(virt, 3);
        self.tables[table][index(virt, 0)] = phys | protection.0 | PRESENT | ACCESSED | DIRTY;
    }

    /// Maps the large page at `virt` to `phys`.
    pub fn map_large(&mut self, virt: u64, phys: u64, protection: Protection) {
        let table = self.walk(virt, 2);
        self.tables[table][index(virt, 1)] =
            phys | protection.0 | PRESENT | ACCESSED | DIRTY | LARGE;
    }

    /// Maps `[start, end)` to itself, in large pages where the range `large` allows it.
    pub fn map_same(&mut self, start: u64, end: u64, large: (u64, u64), protection: Protection) {
        let mut at = start;
        while at < end {
            let fits = at.is_multiple_of(LARGE_PAGE_SIZE) && at + LARGE_PAGE_SIZE <= end;
            if fits && at >= large.0 && at + LARGE_PAGE_SIZE <= large.1 {
                self.map_large(at, at, protection);
                at += LARGE_PAGE_SIZE;
            } else {
                self.map(at, at, protection);
                at += PAGE_SIZE;
            }
        }
    }

    /// The tables as they go into memory, page by page.
    pub fn pages(&self) -> &[[u64; ENTRIES]] {
        &self.tables
    }

    /// The table `depth` levels below the root on the way to `virt`; made if it is not there.
    fn walk(&mut self, virt: u64, depth: usize) -> usize {
        let mut table = 0;
        for level in (4 - depth..4).rev() {
            let slot = index(virt, level);
            table = match self.children.get(&(table, slot)) {
                Some(&child) => child,
                None => self.add_table(table, slot),
            };
        }
        table
    }

    /// Upper entries allow everything: the last one decides.
    fn add_table(&mut self, parent: usize, slot: usize) -> usize {
        let child = self.tables.len();
        self.tables.push([0; ENTRIES]);
        self.children.insert((parent, slot), child);
        let address = self.base + child as u64 * PAGE_SIZE;
        self.tables[parent][slot] = address | PRESENT | WRITABLE | USER | ACCESSED;
        child
    }
}

/// The index of `virt` in a table of a level, 0 for the last.
fn index(virt: u64, level: usize) -> usize {
    (virt >> (12 + 9 * level)) as usize % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: u64 = 0x1000_0000;

    /// Walks like the processor: the physical address and the last entry.
    fn translate(tables: &PageTables, virt: u64) -> Option<(u64, u64)> {
        let mut table = 0;
        for level in (0..4).rev() {
            let entry = tables.pages()[table][index(virt, level)];
            if entry & PRESENT == 0 {
                return None;
            }
            let address = entry & 0x000f_ffff_ffff_f000;
            if level == 0 {
                return Some((address + virt % PAGE_SIZE, entry));
            }
            if level == 1 && entry & LARGE != 0 {
                return Some((address + virt % LARGE_PAGE_SIZE, entry));
            }
            table = ((address - BASE) / PAGE_SIZE) as usize;
        }
        None
    }

    #[test]
    fn what_is_not_mapped_is_not_there() {
        let mut tables = PageTables::new(BASE);
        tables.map(0x1000, 0x9000, Protection::USER_READ);
        assert_eq!(translate(&tables, 0), None);
        assert_eq!(translate(&tables, 0x2000), None);
        assert_eq!(translate(&tables, 0x1008).map(|t| t.0), Some(0x9008));
    }

    #[test]
    fn no_protection_allows_writing_and_executing() {
        for p in [
            Protection::USER_READ,
            Protection::USER_WRITE,
            Protection::USER_EXECUTE,
            Protection::USER_WINDOW,
            Protection::SUPERVISOR_READ,
            Protection::SUPERVISOR_WRITE,
            Protection::SUPERVISOR_EXECUTE,
            Protection::SUPERVISOR_WINDOW,
        ] {
            assert!(p.0 & WRITABLE == 0 || p.0 & NO_EXECUTE != 0, "{p:?}");
        }
    }

    proptest! {
        #[test]
        fn a_range_maps_to_itself_and_nothing_around_it(
            start in 512u64..4096, pages in 1u64..3000, large_from in 0u64..8,
        ) {
            let (start, end) = (start * PAGE_SIZE, (start + pages) * PAGE_SIZE);
            let large = (large_from * LARGE_PAGE_SIZE, u64::MAX);
            let mut tables = PageTables::new(BASE);
            tables.map_same(start, end, large, Protection::USER_WRITE);
            for at in (start..end).step_by(PAGE_SIZE as usize) {
                let (phys, entry) = translate(&tables, at + 5).unwrap();
                prop_assert_eq!(phys, at + 5);
                prop_assert_eq!(entry & (USER | WRITABLE | NO_EXECUTE), USER | WRITABLE | NO_EXECUTE);
                prop_assert!(entry & LARGE == 0 || at >= large.0);
            }
            prop_assert_eq!(translate(&tables, start - 1), None);
            prop_assert_eq!(translate(&tables, end), None);
        }
    }
}
