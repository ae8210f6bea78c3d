//! Symbols of a real program, and of files that are made to do harm.

use proptest::prelude::*;

use super::lookup::frames;
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

struct Section {
    name: &'static str,
    kind: u32,
    link: u32,
    data: Vec<u8>,
}

/// An ELF file whose symbol table names functions: address, size, name.
fn elf_with_symbols(functions: &[(u64, u64, &str)]) -> Vec<u8> {
    let (mut table, mut names) = (vec![0; 24], vec![0]);
    for (address, size, name) in functions {
        table.extend((names.len() as u32).to_le_bytes());
        // A global function, visible, in section 1.
        table.extend([0x12, 0, 1, 0]);
        table.extend(address.to_le_bytes());
        table.extend(size.to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
    }
    elf(&[
        Section {
            name: ".symtab",
            kind: 2,
            link: 2,
            data: table,
        },
        Section {
            name: ".strtab",
            kind: 3,
            link: 0,
            data: names,
        },
    ])
}

/// An ELF file of these sections, numbered from 1, and the table of their names.
fn elf(sections: &[Section]) -> Vec<u8> {
    let mut names = vec![0];
    let mut body = Vec::new();
    let mut headers = vec![0; 64];
    let mut header = |name: &str, kind: u32, link: u32, data: &[u8], body: &mut Vec<u8>| {
        headers.extend((names.len() as u32).to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
        headers.extend(kind.to_le_bytes());
        let entry = if kind == 2 { 24u64 } else { 0 };
        for field in [0, 0, 64 + body.len() as u64, data.len() as u64] {
            headers.extend(field.to_le_bytes());
        }
        headers.extend(link.to_le_bytes());
        headers.extend(1u32.to_le_bytes());
        headers.extend(1u64.to_le_bytes());
        headers.extend(entry.to_le_bytes());
        body.extend(data);
    };
    for section in sections {
        header(
            section.name,
            section.kind,
            section.link,
            &section.data,
            &mut body,
        );
    }
    header(".shstrtab", 3, 0, &[], &mut body);
    // The last section's data is the names, which are complete only now.
    let last = headers.len() - 64;
    headers[last + 32..last + 40].copy_from_slice(&(names.len() as u64).to_le_bytes());
    body.extend(&names);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(2u16.to_le_bytes());
    file.extend(62u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for field in [0x20_1000, 0, 64 + body.len() as u64] {
        file.extend(u64::to_le_bytes(field));
    }
    file.extend(0u32.to_le_bytes());
    for field in [
        64,
        56,
        0,
        64,
        sections.len() as u16 + 2,
        sections.len() as u16 + 1,
    ] {
        file.extend(u16::to_le_bytes(field));
    }
    file.extend(body);
    file.extend(headers);
    file
}
