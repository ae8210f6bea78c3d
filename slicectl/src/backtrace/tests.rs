//! Symbols of a real program, and of files that are made to do harm.

use proptest::prelude::*;

use super::lookup::frames;
use super::made_elf::{Section, elf, elf_with_symbols};
use super::*;

#[inline(never)]
#[unsafe(no_mangle)]
#[allow(
    unsafe_code,
    reason = "a name that is the same in the symbol table and the source"
)]
extern "C" fn a_function_to_find(value: u64) -> u64 {
    std::hint::black_box(value).wrapping_mul(3)
}

/// Address of [`a_function_to_find`] in this program's file.
fn address_in_file() -> u64 {
    use object::{Object, ObjectSymbol};
    assert_eq!(a_function_to_find(2), 6);
    let data = std::fs::read("/proc/self/exe").expect("readable");
    let elf = object::File::parse(&*data).expect("an ELF file");
    let symbol = elf
        .symbols()
        .find(|symbol| symbol.name() == Ok("a_function_to_find"));
    symbol.expect("in the table").address()
}

#[test]
fn functions_of_a_real_program_are_found_with_their_lines() {
    let address = address_in_file();
    let found = frames(Path::new("/proc/self/exe"), &[address, address + 1], None);
    for frame in &found {
        let call = frame.calls.last().expect("found");
        assert_eq!(call.function.as_deref(), Some("a_function_to_find"));
        let location = call.location.as_deref().expect("a line");
        assert!(location.contains("backtrace/tests.rs:"), "{location}");
    }
}

#[test]
fn a_return_address_just_behind_a_function_belongs_to_it() {
    let elf = elf_with_symbols(&[(0x20_1000, 0x10, "first"), (0x20_1010, 0x10, "second")]);
    let (_dir, path) = written(&elf);
    let names = |addresses: &[u64]| -> Vec<Option<String>> {
        let found = frames(&path, addresses, None);
        found
            .iter()
            .map(|frame| frame.calls.first()?.function.clone())
            .collect()
    };
    let first = || Some("first".to_owned());
    let second = || Some("second".to_owned());
    assert_eq!(names(&[0x20_1010, 0x20_1010]), [second(), first()]);
    assert_eq!(
        names(&[0x20_1020, 0x20_1020, 0, u64::MAX]),
        [None, second(), None, None]
    );
}

#[test]
fn a_file_without_symbols_leaves_bare_addresses() {
    for content in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &elf_with_symbols(&[])] {
        let (_dir, path) = written(content);
        let found = frames(&path, &[1, 2], None);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|frame| frame.calls.is_empty()));
    }
    assert_eq!(frames(Path::new("/nonexistent"), &[1], None).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_debug_information_makes_the_lookup_panic(
        info in prop::collection::vec(any::<u8>(), 0..200),
        abbrev in prop::collection::vec(any::<u8>(), 0..100),
        line in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        // A unit header that is right, so that what follows is looked at.
        let mut unit = (info.len() as u32 + 7).to_le_bytes().to_vec();
        unit.extend([4, 0, 0, 0, 0, 0, 8]);
        unit.extend(info);
        let mut elf = elf(&[
            Section { name: ".debug_info", kind: 1, link: 0, data: unit },
            Section { name: ".debug_abbrev", kind: 1, link: 0, data: abbrev },
            Section { name: ".debug_line", kind: 1, link: 0, data: line },
        ]);
        for (at, byte) in flips {
            let at = at.index(elf.len());
            elf[at] = byte;
        }
        let (_dir, path) = written(&elf);
        prop_assert_eq!(frames(&path, &[0, 0x20_1000, u64::MAX], None).len(), 3);
    }
}

fn written(content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    std::fs::write(&path, content).expect("written");
    (dir, path)
}
