//! What the main function of a slice may return, and the status that it means.

use core::fmt::Display;

use crate::eprintln;

/// Something that says with which status a sliver ends.
///
/// A number is the status itself, `()` is success, and an error is printed and means status 1. A
/// program that never returns, of type `!`, ends by [`exit`](crate::exit) or not at all.
pub trait Termination {
    /// The status, after telling people about an error.
    fn report(self) -> u8;
}

impl Termination for () {
    fn report(self) -> u8 {
        0
    }
}

impl Termination for u8 {
    fn report(self) -> u8 {
        self
    }
}

impl<T: Termination, E: Display> Termination for Result<T, E> {
    fn report(self) -> u8 {
        match self {
            Ok(value) => value.report(),
            Err(error) => {
                eprintln!("error: {error}");
                1
            }
        }
    }
}

/// `!` has no name of its own outside the signature of a function.
impl Termination for <fn() -> ! as Returns>::Value {
    fn report(self) -> u8 {
        self
    }
}

/// A function, to tell what it returns.
#[doc(hidden)]
pub trait Returns {
    /// What it returns.
    type Value;
}

impl<T> Returns for fn() -> T {
    type Value = T;
}

/// Runs the program that [`entry!`](crate::entry) names. For that macro only.
#[doc(hidden)]
pub fn run<T: Termination>(program: fn() -> T) -> u8 {
    #[cfg(any(test, feature = "desktop"))]
    crate::backend::clock::start();
    program().report()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_never_returns_is_a_program() {
        fn never() -> ! {
            panic!("it was run")
        }
        let run = std::panic::catch_unwind(|| run(never));
        assert_eq!(run.unwrap_err().downcast_ref(), Some(&"it was run"));
    }

    #[test]
    fn success_is_0_a_number_is_itself_and_an_error_is_1() {
        assert_eq!(().report(), 0);
        assert_eq!(7.report(), 7);
        assert_eq!(Ok::<(), &str>(()).report(), 0);
        assert_eq!(Ok::<u8, &str>(9).report(), 9);
        assert_eq!(Err::<u8, &str>("it did not work").report(), 1);
    }
}
