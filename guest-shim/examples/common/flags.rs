//! Reads arguments, one flag after another. Part of several examples.

use core::fmt::{self, Display};
use core::str::FromStr;

use guest_shim::prelude::*;
use guest_shim::{Args, args};

/// The arguments that have not been read.
#[derive(Debug)]
pub(crate) struct Flags(Args);

/// Why the arguments cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// There is nothing wrong: help is wanted.
    Help,
    /// This is.
    Told(String),
}

impl Flags {
    pub(crate) fn of_this_program() -> Self {
        Self(args())
    }

    /// The next flag, or a word that is none.
    pub(crate) fn next(&mut self) -> Option<&'static str> {
        self.0.next()
    }

    /// The word that belongs to `flag`.
    pub(crate) fn word(&mut self, flag: &str) -> Result<&'static str, Wrong> {
        let word = self.0.next();
        word.ok_or_else(|| Wrong::Told(format!("{flag} needs a value")))
    }

    /// The value that belongs to `flag`.
    pub(crate) fn value<T: FromStr<Err: Display>>(&mut self, flag: &str) -> Result<T, Wrong> {
        let word = self.word(flag)?;
        let value = word.parse();
        value.map_err(|error| Wrong::Told(format!("{flag} {word}: {error}")))
    }
}

impl Wrong {
    /// For a flag that is not known.
    pub(crate) fn unknown(flag: &str) -> Self {
        match flag {
            "--help" | "-h" => Self::Help,
            _ => Self::Told(format!("{flag:?} is not known")),
        }
    }

    /// Says it; the status to end with.
    pub(crate) fn tell(&self, usage: &str) -> u8 {
        match self {
            Self::Help => {
                println!("{usage}");
                0
            }
            Self::Told(_) => {
                eprintln!("{self}\n{usage}");
                2
            }
        }
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help => f.write_str("help is wanted"),
            Self::Told(why) => f.write_str(why),
        }
    }
}
