//! Images with random damage. The parser must give a verdict on every one of thousands; what it
//! accepts, the real monitor must run to some end. Never a panic, never a hang.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use integration::artifacts;
use integration::elf::Elf;
use integration::needs_kvm;
use integration::sliver::Sliver;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;
use vmm::boot::image::Image;
use vmm::boot::slice::examine;
use vmm::exit::ExitKind;

/// Where everything is that decides about an image.
const HEADER_BYTES: usize = 64 + 8 * 56;

/// Damage to a file.
#[derive(Debug, Clone)]
enum Damage {
    /// One byte anywhere becomes another.
    Byte(Index, u8),
    /// One byte of the headers becomes another.
    HeaderByte(Index, u8),
    /// A 64-bit field of the headers becomes an extreme.
    HeaderWord(Index, u64),
    /// The file ends here.
    Cut(Index),
    /// A stretch moves elsewhere.
    Copy(Index, Index, u8),
    /// More follows.
    Append(u16),
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        if file.is_empty() {
            return;
        }
        let headers = file.len().min(HEADER_BYTES);
        match self {
            Self::Byte(at, value) => *at.get_mut(file) = *value,
            Self::HeaderByte(at, value) => file[at.index(headers)] = *value,
            Self::HeaderWord(at, value) => {
                let start = at.index(headers.div_ceil(8)) * 8;
                let end = file.len().min(start + 8);
                file[start..end].copy_from_slice(&value.to_le_bytes()[..end - start]);
            }
            Self::Cut(at) => file.truncate(at.index(file.len())),
            Self::Copy(from, to, len) => {
                let (from, to) = (from.index(file.len()), to.index(file.len()));
                let len = usize::from(*len).min(file.len() - from.max(to));
                file.copy_within(from..from + len, to);
            }
            Self::Append(len) => file.resize(file.len() + usize::from(*len), 0xa5),
        }
    }
}

fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(u64::MAX - 0xfff),
        Just(1 << 63),
        Just(1 << 32),
        Just(0xffff_ffff),
        Just(0x20_0000),
        Just(0x20_0fff),
        any::<u64>(),
        (0u64..64).prop_map(|bit| 1 << bit),
        (0u64..0x10_0000).prop_map(|offset| 0x20_0000 + offset),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Damage::Byte(at, value)),
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Damage::HeaderByte(at, value)),
        4 => (any::<Index>(), extreme()).prop_map(|(at, value)| Damage::HeaderWord(at, value)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), any::<Index>(), any::<u8>())
            .prop_map(|(from, to, len)| Damage::Copy(from, to, len)),
        1 => any::<u16>().prop_map(Damage::Append),
    ]
}

fn damaged(whole: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut file = whole.to_vec();
    for damage in damages {
        damage.apply(&mut file);
    }
    file
}

static HELLO: LazyLock<Vec<u8>> =
    LazyLock::new(|| fs::read(artifacts::image("hello")).expect("the image was built"));

static RIGHT: LazyLock<Vec<u8>> = LazyLock::new(|| Elf::right().bytes());

/// What everything in the monitor relies on, of an image that was accepted.
fn check_accepted(file: &[u8]) {
    let examination = examine(file).expect("memory can be read");
    let Ok(image) = examination.into_image() else {
        return;
    };
    let mut end = slice_abi::layout::RAM_BASE;
    for segment in image.segments() {
        let (first, last) = segment.pages();
        assert!(first >= end && last > first, "{segment:x?}");
        assert!(segment.memory_len >= segment.file_len);
        assert!(segment.file_offset + segment.file_len <= file.len() as u64);
        assert_ne!(
            segment.access & 6,
            6,
            "writable and executable: {segment:x?}"
        );
        end = last;
    }
    assert!(end <= slice_abi::layout::RAM_LIMIT);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_damaged_small_image_gets_a_verdict_that_can_be_relied_on(
        damages in prop::collection::vec(damage(), 1..6)
    ) {
        check_accepted(&damaged(&RIGHT, &damages));
    }

    #[test]
    fn a_damaged_hello_gets_a_verdict_that_can_be_relied_on(
        damages in prop::collection::vec(damage(), 1..6)
    ) {
        check_accepted(&damaged(&HELLO, &damages));
    }

    #[test]
    fn noise_behind_a_right_magic_gets_a_verdict(
        noise in prop::collection::vec(any::<u8>(), 0..2048)
    ) {
        let file = [b"\x7fELF\x02\x01\x01".as_slice(), &noise].concat();
        check_accepted(&file);
    }
}

#[test]
fn the_monitor_brings_every_damaged_image_to_an_end() {
    needs_kvm!();
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let images = (prop::collection::vec(damage(), 1..4), any::<bool>());
    let verdict = TestRunner::new(config).run(&images, |(damages, hello)| {
        let whole = if hello { &HELLO } else { &RIGHT };
        run_to_some_end(&damaged(whole, &damages));
        Ok(())
    });
    assert!(verdict.is_ok(), "{verdict:?}");
}

/// Runs a file as an image: refused with a reason, or run to an end that the guest made.
fn run_to_some_end(file: &[u8]) {
    let place = TempDir::new().expect("a temporary directory is made");
    let path = place.path().join("image");
    fs::write(&path, file).expect("the image is written");
    let ended = Sliver::new(&path)
        .memory_mib(8)
        .field("time_limit_ms", 3000)
        .run();
    assert_eq!(ended.killed_by(), None, "{ended:#?}");
    assert!(!ended.errors.contains("panicked"), "{ended:#?}");
    let exit = &ended.record().exit;
    if exit.kind == ExitKind::Error {
        assert!(exit.detail.message.contains(path_str(&path)), "{ended:#?}");
    } else {
        Image::open(&path, None).expect("what ran was accepted");
    }
}

fn path_str(path: &Path) -> &str {
    path.to_str().expect("a test's path is UTF-8")
}

#[test]
fn the_undamaged_files_are_accepted() {
    for file in [&*HELLO, &*RIGHT] {
        let examination = examine(file.as_slice()).expect("memory can be read");
        assert_eq!(examination.problems, []);
    }
}
