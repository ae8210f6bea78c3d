use proptest::prelude::*;

use object::elf::ProgramType;

use super::*;
use slice_abi::layout::DEFAULT_STACK_SIZE;

/// An image whose segments lie at `(address, bytes)`, all readable, for tests of others.
pub(crate) fn image_of(segments: &[(u64, u64)]) -> NativeImage {
    let segments = segments
        .iter()
        .map(|&(address, memory_len)| Segment {
            address,
            memory_len,
            file_offset: 0,
            file_len: 0,
            access: access::READ,
        })
        .collect();
    NativeImage {
        entry: RAM_BASE,
        stack_size: DEFAULT_STACK_SIZE,
        segments,
    }
}

const TEXT: u64 = RAM_BASE + 0x1000;

/// A small correct image; each test spoils something.
fn good() -> Vec<u8> {
    let mut file = vec![0; 0x2000];
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put(&mut file, 16, &2u16.to_le_bytes()); // type
    put(&mut file, 18, &62u16.to_le_bytes()); // machine
    put(&mut file, 20, &1u32.to_le_bytes());
    put(&mut file, 24, &(TEXT + 4).to_le_bytes()); // entry
    put(&mut file, 32, &64u64.to_le_bytes()); // program headers
    put(&mut file, 54, &56u16.to_le_bytes());
    put(&mut file, 56, &4u16.to_le_bytes());
    header(&mut file, 0, PT_LOAD, 4, [0, RAM_BASE, 0x300, 0x300]);
    header(&mut file, 1, PT_LOAD, 5, [0x1000, TEXT, 0x10, 0x10]);
    header(&mut file, 2, PT_LOAD, 6, [0x1800, TEXT + 0x1000, 0, 0x5000]);
    header(&mut file, 3, PT_NOTE, 4, [0x200, RAM_BASE + 0x200, 36, 36]);
    let mut note = Vec::new();
    for word in [6u32, 16, 1] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"SLICE\0\0\0");
    note.extend(ABI_VERSION.to_le_bytes());
    note.extend(0u32.to_le_bytes());
    note.extend((64u64 << 10).to_le_bytes());
    put(&mut file, 0x200, &note);
    file
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn header(file: &mut [u8], index: usize, kind: ProgramType, flags: u32, fields: [u64; 4]) {
    let [offset, address, file_len, memory_len] = fields;
    let at = 64 + index * 56;
    put(file, at, &kind.0.to_le_bytes());
    put(file, at + 4, &flags.to_le_bytes());
    for (i, word) in [offset, address, address, file_len, memory_len, PAGE_SIZE]
        .into_iter()
        .enumerate()
    {
        put(file, at + 8 + i * 8, &word.to_le_bytes());
    }
}

fn problems(file: &[u8]) -> Vec<Problem> {
    examine(file)
        .unwrap()
        .into_image()
        .expect_err("the image is bad")
}

fn spoiled(spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<Problem> {
    let mut file = good();
    spoil(&mut file);
    problems(&file)
}

#[test]
fn a_correct_image_is_understood() {
    let image = examine(good().as_slice()).unwrap().into_image().unwrap();
    assert_eq!(image.entry(), TEXT + 4);
    assert_eq!(image.stack_size(), 64 << 10);
    assert_eq!(image.pages(), (RAM_BASE, TEXT + 0x6000));
    let shown: Vec<_> = image.segments().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "0x200000..0x200300 r--",
            "0x201000..0x201010 r-x",
            "0x202000..0x207000 rw-"
        ]
    );
}

#[test]
fn files_of_other_kinds_are_named() {
    let says = |file: &[u8]| problems(file)[0].to_string();
    assert_eq!(says(b""), "it is empty");
    assert_eq!(says(b"#!/bin/sh\n"), "it is a script, not an ELF file");
    assert_eq!(says(b"hello"), "it is a text file, not an ELF file");
    assert!(says(&[0; 4096]).contains("unknown"));
}

#[test]
fn wrong_headers_are_refused() {
    assert_eq!(spoiled(|f| f[4] = 1), [Problem::NotElf64]);
    assert_eq!(spoiled(|f| f[5] = 2), [Problem::BigEndian]);
    assert_eq!(spoiled(|f| f[18] = 183), [Problem::WrongMachine(183)]);
    assert_eq!(spoiled(|f| f[16] = 3), [Problem::PositionIndependent]);
    assert_eq!(spoiled(|f| f[16] = 1), [Problem::NotExecutable(1)]);
    assert_eq!(spoiled(|f| f[20] = 9), [Problem::WrongElfVersion(9)]);
    assert_eq!(spoiled(|f| f[54] = 32), [Problem::WrongHeaderSize(32)]);
    assert_eq!(spoiled(|f| f[56] = 0), [Problem::HeaderCount(0)]);
    assert_eq!(
        spoiled(|f| put(f, 56, &[0xff, 0xff])),
        [Problem::HeaderCount(0xffff)]
    );
}

#[test]
fn truncated_files_are_refused() {
    for len in [4, 63, 64, 200, 0x201, 0x1008] {
        let file = &good()[..len];
        assert!(
            problems(file)
                .iter()
                .any(|p| matches!(p, Problem::Truncated { .. })),
            "{len}: {:?}",
            problems(file)
        );
    }
    let beyond = spoiled(|f| put(f, 32, &u64::MAX.to_le_bytes()));
    assert!(matches!(beyond[..], [Problem::Truncated { .. }]));
}

#[test]
fn hostile_segments_are_refused() {
    let second = |flags, fields| spoiled(|f| header(f, 1, PT_LOAD, flags, fields));
    let has = |problems: Vec<Problem>, wanted: &Problem| {
        assert!(
            problems.contains(wanted),
            "{wanted:?} is not in {problems:?}"
        );
    };
    has(
        second(7, [0x1000, TEXT, 16, 16]),
        &Problem::WritableAndExecutable(1),
    );
    has(
        second(5, [0x1000, TEXT, 32, 16]),
        &Problem::FileLargerThanMemory(1, 32, 16),
    );
    has(
        second(5, [0x1000, u64::MAX - 8, 16, 16]),
        &Problem::SegmentWraps(1),
    );
    has(
        second(5, [0x1000, TEXT, 16, u64::MAX]),
        &Problem::SegmentWraps(1),
    );
    has(
        second(5, [0x1000, 0x1000, 16, 16]),
        &Problem::SegmentOutside(1, 0x1000, 0x1010),
    );
    has(
        second(5, [0x1000, RAM_BASE + 0x2ff, 16, 16]),
        &Problem::SegmentsOverlap(1, 0),
    );
    has(
        second(5, [0x1000, RAM_BASE + 0x300, 16, 16]),
        &Problem::SegmentsOverlap(1, 0),
    );
    has(
        second(5, [0x1000, TEXT, 16, 0x1001]),
        &Problem::SegmentsOverlap(2, 1),
    );
    has(
        second(4, [0x1000, TEXT, 16, 16]),
        &Problem::EntryOutside(TEXT + 4),
    );
    let wraps = second(5, [u64::MAX - 4, TEXT, 16, 16]);
    assert!(
        wraps.iter().any(|p| matches!(p, Problem::Truncated { .. })),
        "{wraps:?}"
    );
}

#[test]
fn what_needs_a_loader_is_refused() {
    for (kind, name) in [
        (PT_INTERP, "PT_INTERP"),
        (PT_DYNAMIC, "PT_DYNAMIC"),
        (PT_TLS, "PT_TLS"),
    ] {
        let found = spoiled(|f| header(f, 0, kind, 4, [0, RAM_BASE, 16, 16]));
        assert_eq!(found, [Problem::NeedsLoader(name)]);
    }
}

#[test]
fn too_many_segments_are_refused() {
    let mut file = good();
    put(&mut file, 56, &20u16.to_le_bytes());
    for i in 0..20 {
        header(
            &mut file,
            i,
            PT_LOAD,
            5,
            [0, TEXT + i as u64 * PAGE_SIZE, 16, 16],
        );
    }
    assert!(problems(&file).contains(&Problem::TooManySegments));
}

#[test]
fn notes_that_are_missing_or_lie_are_refused() {
    assert_eq!(spoiled(|f| f[0x20c] = b'X'), [Problem::NoNote]);
    assert_eq!(spoiled(|f| f[0x208] = 2), [Problem::NoNote]);
    assert_eq!(
        spoiled(|f| put(f, 0x204, &u32::MAX.to_le_bytes())),
        [Problem::NoNote]
    );
    assert_eq!(
        spoiled(|f| put(f, 0x200, &u32::MAX.to_le_bytes())),
        [Problem::NoNote]
    );
    assert_eq!(spoiled(|f| f[0x214] = 9), [Problem::WrongAbi(9)]);
    assert!(matches!(
        spoiled(|f| f[0x218] = 1)[..],
        [Problem::BadNote(_)]
    ));
    assert!(matches!(
        spoiled(|f| f[0x204] = 8)[..],
        [Problem::BadNote(_)]
    ));
    for size in [1u64, 4096, 12 << 10, (64 << 20) + 4096, u64::MAX] {
        let found = spoiled(|f| put(f, 0x21c, &size.to_le_bytes()));
        assert_eq!(found, [Problem::BadStackSize(size)]);
    }
    let twice = spoiled(|f| header(f, 2, PT_NOTE, 4, [0x200, RAM_BASE + 0x200, 36, 36]));
    assert_eq!(twice, [Problem::SecondNote]);
}

#[test]
fn all_problems_are_reported_at_once() {
    let found = spoiled(|f| {
        f[16] = 3;
        f[0x214] += 1;
        header(f, 1, PT_LOAD, 7, [0x1000, TEXT, 16, 16]);
    });
    assert_eq!(found.len(), 4, "{found:?}");
}

proptest! {
    #[test]
    fn a_mutated_image_is_refused_or_keeps_every_promise(
        changes in prop::collection::vec((0usize..0x2000, any::<u8>()), 1..12),
        cut in prop::option::weighted(0.2, 0usize..0x2000),
    ) {
        let mut file = good();
        for (at, byte) in changes {
            // Most of the file is padding: aim at its headers and its note.
            let at = if at < 0x1800 { at % 0x130 } else { 0x200 + at % 40 };
            file[at] = byte;
        }
        file.truncate(cut.unwrap_or(file.len()));
        if let Ok(image) = examine(file.as_slice()).unwrap().into_image() {
            let mut last = RAM_BASE;
            for segment in image.segments() {
                let (start, end) = segment.pages();
                prop_assert!(start >= last && end > start && end <= RAM_LIMIT);
                prop_assert!(segment.file_offset + segment.file_len <= file.len() as u64);
                prop_assert!(segment.file_len <= segment.memory_len);
                prop_assert!(segment.access & 6 != 6);
                last = end;
            }
        } else {
            prop_assert!(!examine(file.as_slice()).unwrap().problems.is_empty());
        }
    }
}
