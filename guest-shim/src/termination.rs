//! What the main function of a slice may return, and the status that it means.

use core::fmt::Display;

use crate::eprintln;

/// Something that says with which status a sliver ends.
///
/// A number is the status itself, `()` is success, and an error is printed and means status 1.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_0_a_number_is_itself_and_an_error_is_1() {
        assert_eq!(().report(), 0);
        assert_eq!(7.report(), 7);
        assert_eq!(Ok::<(), &str>(()).report(), 0);
        assert_eq!(Ok::<u8, &str>(9).report(), 9);
        assert_eq!(Err::<u8, &str>("it did not work").report(), 1);
    }
}
