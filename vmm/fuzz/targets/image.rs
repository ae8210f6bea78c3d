//! A native image of any bytes: what is understood of it lies in the file, in memory and apart, and
//! nothing of it is mapped to be written and executed.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use slice_abi::ABI_VERSION;
use slice_abi::info::access;
use slice_abi::layout::{MAX_VCPUS, PAGE_SIZE, RAM_BASE, RAM_LIMIT};
use vmm::boot::slice::elf::{NativeImage, examine};
use vmm::boot::slice::layout::Layout;
use vmm::boot::slice::load::{system_area, vcpu_block, writable_from};
use vmm_fuzz::{Unstructured, shown_in_one_line};

/// Larger ones only have larger page tables.
const LARGEST: u64 = 64 << 20;

/// Bytes of a sound image: headers and note, and then segments that are mostly zeros.
const GOOD_BYTES: usize = 0x2000;
const TEXT: u64 = RAM_BASE + 0x1000;

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(input: &mut Unstructured) -> Result<()> {
    let (vcpus, mib, how) = input.arbitrary::<(u8, u8, u8)>()?;
    let file = match how {
        0 => input.bytes(input.len())?.to_vec(),
        _ => spoiled(input)?,
    };
    let examination = examine(file.as_slice()).expect("bytes can be read");
    match examination.into_image() {
        Ok(image) => {
            sound(&image, file.len() as u64);
            let vcpus = 1 + usize::from(vcpus) % MAX_VCPUS;
            lay_out(&image, u64::from(mib) << 20, vcpus);
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                let told = problem.to_string();
                assert!(told.len() < 1000 && shown_in_one_line(&told), "{told:?}");
            }
        }
    }
    Ok(())
}

/// A sound image with other numbers in some places of its headers, or cut.
fn spoiled(input: &mut Unstructured) -> Result<Vec<u8>> {
    let mut file = good();
    for _ in 0..input.arbitrary::<u8>()? % 16 {
        let word = usize::from(input.arbitrary::<u8>()?) % 80 * 4;
        let at = if word < 0x120 {
            word
        } else {
            0x200 + word - 0x120
        };
        let number = match input.arbitrary::<u8>()? % 4 {
            0 => u64::from(input.arbitrary::<u8>()?),
            1 => RAM_BASE + u64::from(input.arbitrary::<u16>()?) * 0x100,
            2 => 1 << (input.arbitrary::<u8>()? % 64),
            _ => input.arbitrary()?,
        };
        let width = if input.arbitrary()? { 4 } else { 8 };
        put(&mut file, at, &number.to_le_bytes()[..width]);
    }
    if input.ratio(1, 8)? {
        file.truncate(usize::from(input.arbitrary::<u16>()?) % GOOD_BYTES);
    }
    Ok(file)
}

/// An image with a segment of each kind, and the note.
fn good() -> Vec<u8> {
    let mut file = vec![0; GOOD_BYTES];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    // An executable for x86-64, its entry, its program headers: how long they are, and how many.
    put(&mut file, 16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(&mut file, 24, &(TEXT + 4).to_le_bytes());
    put(&mut file, 32, &64u64.to_le_bytes());
    put(&mut file, 54, &[56, 0, 4, 0]);
    for (index, [kind, flags, offset, address, in_file, in_memory]) in [
        [1, 4, 0, RAM_BASE, 0x300, 0x300],
        [1, 5, 0x1000, TEXT, 0x10, 0x10],
        [1, 6, 0x1800, TEXT + 0x1000, 0, 0x5000],
        [4, 4, 0x200, RAM_BASE + 0x200, 36, 36],
    ]
    .into_iter()
    .enumerate()
    {
        let at = 64 + index * 56;
        put(&mut file, at, &(kind | flags << 32).to_le_bytes());
        let words = [offset, address, address, in_file, in_memory, PAGE_SIZE];
        for (i, word) in words.into_iter().enumerate() {
            put(&mut file, at + 8 + i * 8, &word.to_le_bytes());
        }
    }
    put(&mut file, 0x200, &[6, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0]);
    put(&mut file, 0x20c, b"SLICE");
    put(&mut file, 0x214, &ABI_VERSION.to_le_bytes());
    put(&mut file, 0x21c, &(64u64 << 10).to_le_bytes());
    file
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn sound(image: &NativeImage, file_len: u64) {
    let mut last = RAM_BASE;
    let (mut entered, mut written) = (false, false);
    for segment in image.segments() {
        let (start, end) = segment.pages();
        assert!(
            start >= last && end > start && end <= RAM_LIMIT,
            "{segment:?}"
        );
        assert!(segment.file_len <= segment.memory_len, "{segment:?}");
        let file_end = segment.file_offset.checked_add(segment.file_len);
        assert!(file_end.is_some_and(|end| end <= file_len), "{segment:?}");
        let (writes, runs) = (
            segment.access & access::WRITE != 0,
            segment.access & access::EXECUTE != 0,
        );
        assert!(!(writes && runs) && (writes || !written), "{segment:?}");
        entered |= runs && (start..end).contains(&image.entry());
        written |= writes;
        last = end;
    }
    assert!(entered, "it begins at {:#x}", image.entry());
    assert!((RAM_BASE..=RAM_LIMIT).contains(&writable_from(image)));
}

fn lay_out(image: &NativeImage, memory: u64, vcpus: usize) {
    let Ok(layout) = Layout::new(image, memory, vcpus) else {
        return;
    };
    let ram = layout.ram();
    let mut last = layout.image().end();
    for index in 0..vcpus {
        let stack = layout.stack(index);
        assert!(stack.start >= last + PAGE_SIZE, "there is a guard page");
        let block = vcpu_block(&layout, index);
        assert!(
            (stack.start..stack.end()).contains(&block.this),
            "{block:?}"
        );
        last = stack.end();
    }
    let heap = layout.heap();
    assert!(heap.start >= last && heap.end() == ram.end() && heap.len > 0);
    assert!(layout.system_base() >= ram.end());
    if memory <= LARGEST {
        system_area(image, &layout, 3).expect("there is memory");
    }
}
