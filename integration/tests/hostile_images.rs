//! Files that are not what they should be, given to the real monitor: always a reason, in one line
//! that names the file, with exit code 125; never a hang.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use integration::elf::{Elf, HEADERS, Header, NOTE, RIGHT_STATUS, TEXT, note, note_desc};
use integration::needs_kvm;
use integration::sliver::{Ended, Sliver};
use object::elf;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use slice_abi::ABI_VERSION;
use slice_abi::layout::{MAX_SEGMENTS, PAGE_SIZE, RAM_BASE, RAM_LIMIT};
use slice_abi::note::{NOTE_NAME, NOTE_TYPE};
use tempfile::TempDir;

/// Runs a file with these bytes as an image.
fn run(bytes: &[u8]) -> (PathBuf, Ended) {
    let place = TempDir::new().expect("a temporary directory is made");
    let path = place.path().join("image");
    fs::write(&path, bytes).expect("the image is written");
    let ended = Sliver::new(&path).memory_mib(8).run();
    (path, ended)
}

/// Asserts that a file with these bytes is refused, with all of `words` in the reason.
#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) {
    if integration::kvm_or_left_out() {
        let (path, ended) = run(bytes);
        ended.assert_refused(&path, words);
    }
}

/// Asserts that the right image, spoiled, is refused.
#[track_caller]
fn spoiled(words: &[&str], spoil: impl FnOnce(&mut Elf)) {
    let mut elf = Elf::right();
    spoil(&mut elf);
    refused(&elf.bytes(), words);
}

/// Asserts that what is at `path` is refused.
#[track_caller]
fn path_refused(path: &Path, words: &[&str]) {
    Sliver::new(path).run().assert_refused(path, words);
}

#[test]
fn the_right_image_runs_so_that_the_wrong_ones_mean_something() {
    needs_kvm!();
    run(&Elf::right().bytes()).1.assert_exited(RIGHT_STATUS);
}

#[test]
fn an_empty_file_is_refused() {
    refused(b"", &["empty"]);
}

#[test]
fn a_text_a_script_and_an_archive_are_told_apart() {
    refused(b"just words\n", &["a text file", "not an ELF file"]);
    refused(b"#!/bin/sh\nexit 0\n", &["a script"]);
    refused(b"\x1f\x8b\x08\0\0\0\0\0", &["gzip"]);
}

#[test]
fn a_bad_magic_is_refused() {
    spoiled(&["not an ELF file"], |elf| elf.ident[0] = 0x7e);
}

#[test]
fn a_32_bit_file_is_refused() {
    spoiled(&["32-bit"], |elf| elf.ident[4] = 1);
}

#[test]
fn the_other_byte_order_is_refused() {
    spoiled(&["big endian"], |elf| elf.ident[5] = 2);
}

#[test]
fn another_machine_is_refused() {
    spoiled(&["machine", "183"], |elf| elf.machine = elf::EM_AARCH64.0);
}

#[test]
fn position_independent_code_is_refused_with_the_flags_that_help() {
    spoiled(&["position independent", "-no-pie"], |elf| {
        elf.kind = elf::ET_DYN.0;
    });
}

#[test]
fn an_object_file_is_refused() {
    spoiled(&["not an executable"], |elf| elf.kind = elf::ET_REL.0);
}

#[test]
fn an_unknown_elf_version_is_refused() {
    spoiled(&["version"], |elf| elf.version = 2);
}

#[test]
fn a_file_cut_anywhere_is_refused_as_truncated() {
    let whole = Elf::right().bytes();
    for len in [4, 16, 63, 64, 65, 64 + 56, 64 + 3 * 56 - 1, whole.len() - 1] {
        refused(&whole[..len], &["truncated"]);
    }
}

#[test]
fn program_headers_beyond_the_file_are_refused() {
    spoiled(&["truncated", "program header"], |elf| elf.phoff = 1 << 40);
    spoiled(&["truncated", "program header"], |elf| elf.phoff = u64::MAX);
}

#[test]
fn odd_program_header_tables_are_refused() {
    spoiled(&["program headers"], |elf| elf.phentsize = 55);
    spoiled(&["0 program headers"], |elf| elf.phnum = Some(0));
    spoiled(&["65535 program headers"], |elf| elf.phnum = Some(0xffff));
}

#[test]
fn segments_that_overlap_are_refused() {
    spoiled(&["shares a page"], |elf| {
        elf.headers[HEADERS].memsz = 2 * PAGE_SIZE;
    });
}

#[test]
fn segments_that_share_a_page_are_refused() {
    spoiled(&["shares a page"], |elf| {
        elf.headers[HEADERS].memsz = PAGE_SIZE + 1;
    });
}

#[test]
fn segments_that_descend_are_refused() {
    spoiled(&["below"], |elf| elf.headers.swap(HEADERS, TEXT));
}

#[test]
fn a_segment_that_wraps_around_is_refused() {
    spoiled(&["wraps"], |elf| {
        elf.headers[TEXT].vaddr = 0u64.wrapping_sub(PAGE_SIZE);
        elf.headers[TEXT].memsz = 2 * PAGE_SIZE;
    });
}

#[test]
fn segments_outside_ram_are_refused() {
    let words = ["outside", "--image-base=0x200000"];
    for vaddr in [0, PAGE_SIZE, RAM_BASE - PAGE_SIZE, RAM_LIMIT, 1 << 47] {
        spoiled(&words, |elf| elf.headers[TEXT].vaddr = vaddr);
    }
}

#[test]
fn a_segment_beyond_this_slivers_memory_is_refused_with_what_it_needs() {
    spoiled(&["too small", "needs at least"], |elf| {
        let far = RAM_BASE + (8 << 20);
        let flags = elf::PF_R.0 | elf::PF_W.0;
        elf.headers.push(Header::zeroed(flags, far, 1));
    });
}

#[test]
fn huge_segments_are_refused() {
    spoiled(&["outside"], |elf| elf.headers[TEXT].memsz = 1 << 40);
    spoiled(&["wraps"], |elf| elf.headers[TEXT].memsz = u64::MAX);
    spoiled(&["truncated"], |elf| {
        elf.headers[TEXT].memsz = 1 << 30;
        elf.headers[TEXT].filesz = 1 << 30;
    });
}

#[test]
fn a_segment_larger_in_the_file_than_in_memory_is_refused() {
    spoiled(&["more bytes in the file"], |elf| {
        elf.headers[TEXT].memsz = 1;
    });
}

#[test]
fn a_segment_whose_place_in_the_file_overflows_is_refused() {
    spoiled(&["truncated"], |elf| elf.headers[TEXT].offset = u64::MAX);
}

#[test]
fn a_writable_and_executable_segment_is_refused() {
    spoiled(&["writable and executable"], |elf| {
        elf.headers[TEXT].flags |= elf::PF_W.0;
    });
}

#[test]
fn too_many_segments_are_refused() {
    spoiled(&["more than 16 loadable segments"], |elf| {
        for page in 0..MAX_SEGMENTS as u64 {
            let at = RAM_BASE + (2 + page) * PAGE_SIZE;
            elf.headers.push(Header::zeroed(elf::PF_R.0, at, 1));
        }
    });
}

#[test]
fn a_file_without_loadable_segments_is_refused() {
    spoiled(&["no loadable segment"], |elf| {
        elf.headers = vec![elf.headers[NOTE]];
    });
}

#[test]
fn an_entry_outside_executable_segments_is_refused() {
    for entry in [0, RAM_BASE, RAM_BASE + 2 * PAGE_SIZE, u64::MAX] {
        spoiled(&["entry point"], |elf| elf.entry = entry);
    }
}

#[test]
fn what_needs_a_loader_is_refused() {
    for (kind, name) in [
        (elf::PT_INTERP.0, "PT_INTERP"),
        (elf::PT_DYNAMIC.0, "PT_DYNAMIC"),
        (elf::PT_TLS.0, "PT_TLS"),
    ] {
        spoiled(&[name], |elf| elf.headers.push(Header::of_kind(kind)));
    }
}

#[test]
fn a_file_without_the_note_is_refused() {
    spoiled(&["no slice note"], |elf| {
        elf.headers.remove(NOTE);
    });
    let foreign = note(b"GNU\0", 3, &[0; 20]);
    refused(&Elf::right().with_note(foreign).bytes(), &["no slice note"]);
}

#[test]
fn a_note_that_lies_is_refused() {
    let other_abi = note(NOTE_NAME, NOTE_TYPE, &note_desc(ABI_VERSION + 1, 0, 0));
    refused(
        &Elf::right().with_note(other_abi).bytes(),
        &[&format!("ABI {}", ABI_VERSION + 1)],
    );
    for stack in [1, PAGE_SIZE, 1 << 40, u64::MAX] {
        let note = note(NOTE_NAME, NOTE_TYPE, &note_desc(ABI_VERSION, 0, stack));
        refused(&Elf::right().with_note(note).bytes(), &["stack"]);
    }
    let flags = note(NOTE_NAME, NOTE_TYPE, &note_desc(ABI_VERSION, 1, 0));
    refused(&Elf::right().with_note(flags).bytes(), &["note", "flags"]);
    let short = note(NOTE_NAME, NOTE_TYPE, &[1, 0, 0, 0]);
    refused(&Elf::right().with_note(short).bytes(), &["note"]);
}

#[test]
fn a_note_whose_lengths_overflow_is_refused() {
    let mut wild = note(NOTE_NAME, NOTE_TYPE, &note_desc(ABI_VERSION, 0, 0));
    wild[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(&Elf::right().with_note(wild).bytes(), &["note"]);
    spoiled(&["truncated", "note"], |elf| {
        elf.headers[NOTE].filesz = u64::MAX
    });
}

#[test]
fn two_notes_are_refused() {
    let one = note(NOTE_NAME, NOTE_TYPE, &note_desc(ABI_VERSION, 0, 0));
    let two = [one.clone(), one].concat();
    refused(&Elf::right().with_note(two).bytes(), &["more than one"]);
}

#[test]
fn a_missing_file_and_a_directory_are_refused() {
    needs_kvm!();
    let place = TempDir::new().expect("a temporary directory is made");
    path_refused(&place.path().join("absent"), &["No such file"]);
    path_refused(place.path(), &["a directory"]);
}

#[test]
fn a_fifo_and_a_device_are_refused_without_waiting_for_them() {
    needs_kvm!();
    let place = TempDir::new().expect("a temporary directory is made");
    let fifo = place.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO is made");
    path_refused(&fifo, &["not a regular file"]);
    path_refused(Path::new("/dev/zero"), &["not a regular file"]);
    path_refused(Path::new("/dev/null"), &["not a regular file"]);
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    needs_kvm!();
    if rustix::process::geteuid().is_root() {
        // Nothing is unreadable to root; a link that leads nowhere fails in the same place.
        let place = TempDir::new().expect("a temporary directory is made");
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&link, &link).expect("a link is made");
        path_refused(&link, &["cannot open"]);
        return;
    }
    let place = TempDir::new().expect("a temporary directory is made");
    let path = place.path().join("image");
    fs::write(&path, Elf::right().bytes()).expect("the image is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("the mode is set");
    path_refused(&path, &["cannot open", "denied"]);
}
