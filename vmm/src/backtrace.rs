//! Walks the frame pointers of a guest that has stopped. Pure; the guest's memory is not believed.

/// The most frames that are told.
pub const MAX_FRAMES: usize = 64;

/// Return addresses, innermost first, beginning with `rip` itself. Frames must ascend and lie in
/// `stack` (lowest byte, one past the highest): a chain that does not ends the walk.
pub fn walk(rip: u64, rbp: u64, stack: (u64, u64), read: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
    let mut frames = vec![rip];
    let (mut lowest, highest) = stack;
    let mut frame = rbp;
    while frames.len() < MAX_FRAMES {
        let inside = frame >= lowest && frame.checked_add(16).is_some_and(|end| end <= highest);
        if !inside || !frame.is_multiple_of(8) {
            break;
        }
        let (Some(next), Some(return_address)) = (read(frame), read(frame + 8)) else {
            break;
        };
        if return_address == 0 {
            break;
        }
        frames.push(return_address);
        lowest = frame + 16;
        frame = next;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOW: u64 = 0x1000;

    fn walk_words(rbp: u64, words: &[u64]) -> Vec<u64> {
        let high = LOW + words.len() as u64 * 8;
        walk(7, rbp, (LOW, high), |at| {
            words.get(((at - LOW) / 8) as usize).copied()
        })
    }

    #[test]
    fn a_chain_is_followed_to_its_end() {
        let words = [0, LOW + 32, 0x11, 0, 0, 0, 0x22];
        assert_eq!(walk_words(LOW + 8, &words), [7, 0x11]);
        let words = [LOW + 16, 0x11, 0, 0x22];
        assert_eq!(walk_words(LOW, &words), [7, 0x11, 0x22]);
    }

    #[test]
    fn loops_and_wild_frames_end_the_walk() {
        assert_eq!(walk_words(LOW, &[LOW, 0x11, 0, 0]), [7, 0x11]);
        for wild in [0, LOW - 8, LOW + 3, LOW + 32, u64::MAX, u64::MAX - 7] {
            assert_eq!(walk_words(wild, &[1, 2, 3, 4]), [7]);
        }
    }

    proptest! {
        #[test]
        fn any_stack_ends_the_walk(words in prop::collection::vec(0x1000u64..0x1400, 128)) {
            prop_assert!(walk_words(LOW, &words).len() <= MAX_FRAMES);
        }
    }
}
