//! A walk along frame pointers: each frame begins with the caller's `rbp` and the return address.
//! Pure: memory is read through a function, and only where the stack is.

use core::ops::Range;

/// More frames than anybody reads; a recursion that ran away has many.
const MAX_FRAMES: usize = 32;

/// Return addresses, innermost first.
pub(crate) struct Frames<R> {
    rbp: u64,
    stack: Range<u64>,
    left: usize,
    read: R,
}

impl<R: Fn(u64) -> u64> Frames<R> {
    /// The walk from the frame at `rbp` outwards, inside `stack`, with words told by `read`.
    pub(crate) fn new(rbp: u64, stack: Range<u64>, read: R) -> Self {
        Self {
            rbp,
            stack,
            left: MAX_FRAMES,
            read,
        }
    }
}

impl<R: Fn(u64) -> u64> Iterator for Frames<R> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let whole = self.rbp >= self.stack.start
            && self.rbp.is_multiple_of(8)
            && self.rbp.checked_add(16)? <= self.stack.end;
        if !whole {
            return None;
        }
        let address = (self.read)(self.rbp + 8);
        // Callers lie higher: what is left of the stack shrinks, so the walk ends.
        self.stack.start = self.rbp + 16;
        self.rbp = (self.read)(self.rbp);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x1000;

    fn walk(rbp: u64, words: &[u64]) -> Vec<u64> {
        let stack = BASE..BASE + 8 * words.len() as u64;
        Frames::new(rbp, stack, |address| words[(address - BASE) as usize / 8]).collect()
    }

    #[test]
    fn frames_are_followed_to_the_outermost() {
        let words = [BASE + 24, 0xa, 0, BASE + 40, 0xb, 0, 0xc];
        assert_eq!(walk(BASE, &words), [0xa, 0xb, 0xc]);
    }

    #[test]
    fn a_pointer_outside_the_stack_or_crooked_ends_the_walk() {
        assert_eq!(walk(0, &[0; 4]), []);
        assert_eq!(walk(BASE + 4, &[0; 4]), []);
        assert_eq!(walk(BASE + 24, &[0; 4]), []);
        assert_eq!(walk(u64::MAX - 7, &[0; 4]), []);
        assert_eq!(walk(BASE, &[BASE + 0x10_0000, 0xa]), [0xa]);
    }

    #[test]
    fn a_loop_of_pointers_ends_the_walk() {
        assert_eq!(walk(BASE, &[BASE, 0xa, 0, 0]), [0xa]);
        assert_eq!(walk(BASE, &[BASE + 16, 0xa, BASE, 0xb]), [0xa, 0xb]);
    }

    #[test]
    fn a_deep_recursion_is_cut() {
        let words: Vec<u64> = (0..100).flat_map(|i| [BASE + 16 * (i + 1), i]).collect();
        assert_eq!(walk(BASE, &words).len(), MAX_FRAMES);
    }
}
