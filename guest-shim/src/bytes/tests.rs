use super::*;

/// Lengths around every threshold.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=140).chain([255, 256, 257, 1000, 2046, 2047, 2048, 2049, 2050, 5000])
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Runs `check` with and without string instructions; one at a time, as the choice is global.
fn both_ways(check: impl Fn()) {
    static ALONE: crate::sync::Mutex<()> = crate::sync::Mutex::new(());
    let _alone = ALONE.lock();
    for fast in [false, true] {
        set_fast_strings(fast);
        check();
    }
}

#[test]
fn copies_arrive_whole_and_touch_nothing_else() {
    both_ways(|| {
        for len in lengths() {
            for (to, from) in [(0, 0), (1, 0), (0, 1), (3, 13)] {
                let source = pattern(len + 64);
                let mut target = vec![0xee; len + 64];
                // SAFETY: both are longer than their offset and `len`.
                let result =
                    unsafe { copy(target.as_mut_ptr().add(to), source.as_ptr().add(from), len) };
                assert_eq!(result, target[to..].as_mut_ptr());
                assert_eq!(target[to..][..len], source[from..][..len], "{len} bytes");
                assert!(target[..to].iter().all(|&byte| byte == 0xee));
                assert!(target[to + len..].iter().all(|&byte| byte == 0xee));
            }
        }
    });
}

#[test]
fn overlapping_copies_are_as_if_through_a_third_place() {
    both_ways(|| {
        for len in lengths() {
            for distance in [0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 1000] {
                for (to, from) in [(distance, 0), (0, distance)] {
                    let mut memory = pattern(len + distance);
                    let mut expected = memory.clone();
                    expected.copy_within(from..from + len, to);
                    let base = memory.as_mut_ptr();
                    // SAFETY: the memory is as long as the larger offset and `len`.
                    unsafe { copy(base.add(to), base.add(from), len) };
                    assert_eq!(memory, expected, "{len} bytes from {from} to {to}");
                }
            }
        }
    });
}

#[test]
fn a_fill_sets_its_bytes_and_no_others() {
    both_ways(|| {
        for len in lengths() {
            for to in [0, 1, 5] {
                let mut memory = vec![0xee; len + 64];
                // SAFETY: the memory is longer than the offset and `len`.
                let result = unsafe { fill(memory.as_mut_ptr().add(to), 0x1_5a, len) };
                assert_eq!(result, memory[to..].as_mut_ptr());
                assert!(memory[..to].iter().all(|&byte| byte == 0xee));
                assert!(memory[to..][..len].iter().all(|&byte| byte == 0x5a));
                assert!(memory[to + len..].iter().all(|&byte| byte == 0xee));
            }
        }
    });
}

#[test]
fn a_comparison_finds_the_first_difference() {
    for len in lengths() {
        let a = pattern(len);
        let compared = |b: &[u8]| {
            // SAFETY: both have `len` bytes.
            unsafe { compare(a.as_ptr(), b.as_ptr(), len) }.signum()
        };
        assert_eq!(compared(&a), 0);
        for at in (0..len).step_by(1 + len / 40) {
            let mut b = a.clone();
            b[at] = a[at].wrapping_add(0x80);
            if at + 1 < len {
                b[at + 1] = b[at + 1].wrapping_sub(1);
            }
            let expected = if a[at] < b[at] { -1 } else { 1 };
            assert_eq!(compared(&b), expected, "{len} bytes, different at {at}");
        }
    }
}

#[test]
fn a_length_is_that_before_the_first_nul() {
    for len in lengths() {
        let text = [vec![b'x'; len], vec![0, b'y', 0]].concat();
        // SAFETY: there is a NUL.
        assert_eq!(unsafe { length(text.as_ptr()) }, len);
    }
}
