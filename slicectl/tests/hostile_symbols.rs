//! Symbols that are made to bring down whoever reads them: the reader dies, slicectl does not.

#[path = "../src/backtrace/made_elf.rs"]
#[allow(dead_code, reason = "shared with the unit tests, which use the rest")]
mod made_elf;

use std::path::Path;
use std::time::{Duration, Instant};

use made_elf::{Section, elf};
use slicectl::backtrace::symbolise_with;

/// A function at 0x201000 in which `depth` inlined functions are nested: see DWARF 4, 7.5.
fn nested(depth: usize) -> Vec<u8> {
    const ADDRESS: u64 = 0x20_1000;
    // A unit, a subprogram (both with low_pc and high_pc) and an inlined subroutine.
    let mut abbrev = vec![1, 0x11, 1, 0x11, 0x01, 0x12, 0x07, 0, 0];
    abbrev.extend([2, 0x2e, 1, 0x11, 0x01, 0x12, 0x07, 0, 0]);
    abbrev.extend([3, 0x1d, 1, 0, 0, 0]);
    let mut entries = Vec::new();
    for code in [1, 2] {
        entries.push(code);
        entries.extend(ADDRESS.to_le_bytes());
        entries.extend(0x1000u64.to_le_bytes());
    }
    entries.extend(std::iter::repeat_n(3, depth));
    entries.extend(std::iter::repeat_n(0, depth + 2));
    let mut info = (entries.len() as u32 + 7).to_le_bytes().to_vec();
    info.extend([4, 0, 0, 0, 0, 0, 8]);
    info.extend(entries);
    let section = |name, data| Section {
        name,
        kind: 1,
        link: 0,
        data,
    };
    elf(&[
        section(".debug_info", info),
        section(".debug_abbrev", abbrev),
    ])
}

#[test]
fn inlining_without_end_costs_the_names_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    std::fs::write(&image, nested(20_000_000)).expect("written");
    let slicectl = Path::new(env!("CARGO_BIN_EXE_slicectl"));
    let began = Instant::now();
    let frames = symbolise_with(slicectl, &image, &[0x20_1004, 0x20_1008]);
    assert!(began.elapsed() < Duration::from_secs(30));
    let addresses: Vec<u64> = frames.iter().map(|frame| frame.address).collect();
    assert_eq!(addresses, [0x20_1004, 0x20_1008]);
    assert!(frames.iter().all(|frame| frame.calls.is_empty()));
}
