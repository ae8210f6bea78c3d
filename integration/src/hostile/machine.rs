//! The machines that guests misbehave on: a slice's, and a computer's with interrupts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSymbol};
use serde_json::json;

use crate::guests;
use crate::sliver::Sliver;

/// Slivers that run at once.
const AT_ONCE: usize = 24;

/// A kind of machine, and the guest for it.
#[derive(Debug)]
pub struct Machine {
    image: PathBuf,
    symbols: BTreeMap<String, u64>,
    legacy: bool,
    pub(super) at_once: usize,
}

impl Machine {
    /// A slice's.
    ///
    /// # Panics
    /// If its guest does not compile.
    pub fn slice() -> Self {
        Self::of(guests::bare(), false)
    }

    /// A legacy kernel's.
    ///
    /// # Panics
    /// If its guest does not compile.
    pub fn legacy() -> Self {
        Self::legacy_of(guests::metal())
    }

    /// The same, with its guest ([`guests::metal`]) at `image`.
    ///
    /// # Panics
    /// If it is not there.
    pub fn legacy_of(image: &Path) -> Self {
        Self::of(image, true)
    }

    /// With so many slivers at once.
    pub fn at_once(self, at_once: usize) -> Self {
        Self { at_once, ..self }
    }

    /// A sliver of its guest that does what its first argument says.
    pub fn sliver(&self, args: &[&str]) -> Sliver {
        let sliver = Sliver::new(&self.image).args(args);
        match self.legacy {
            true => sliver.field("kernel", json!({ "acpi": false })),
            false => sliver,
        }
    }

    /// Where its guest keeps the variable called `name`.
    pub(super) fn address_of(&self, name: &str) -> u64 {
        self.symbols[name]
    }

    fn of(image: &Path, legacy: bool) -> Self {
        let bytes = fs::read(image).expect("the image is there");
        let file = object::File::parse(&*bytes).expect("it is an ELF file");
        let symbols = file
            .symbols()
            .filter_map(|symbol| Some((symbol.name().ok()?.to_owned(), symbol.address())));
        Self {
            image: image.to_owned(),
            symbols: symbols.collect(),
            legacy,
            at_once: AT_ONCE,
        }
    }
}
