//! The machines that guests misbehave on: a slice's, and a computer's with interrupts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSymbol};
use serde_json::json;

use crate::guests;
use crate::sliver::Sliver;

/// Slivers that run at once; kernels, which a page-table based KVM emulates; kernels on an emulated
/// host.
const AT_ONCE: usize = 24;
const AT_ONCE_KERNELS: usize = 8;
const AT_ONCE_EMULATED: usize = 4;

/// What a sliver that rests may cost in a second, in microseconds of a processor, and of an emulated
/// one, which is ten times as slow.
const AFFORDABLE_US: u64 = 50_000;
const AFFORDABLE_EMULATED_US: u64 = 500_000;

/// A kind of machine, and the guest for it.
#[derive(Debug)]
pub struct Machine {
    image: PathBuf,
    symbols: BTreeMap<String, u64>,
    legacy: bool,
    pub(super) at_once: usize,
    pub(super) affordable_us: u64,
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

    /// The same on a host that is emulated.
    pub fn emulated(self) -> Self {
        Self {
            at_once: AT_ONCE_EMULATED,
            affordable_us: AFFORDABLE_EMULATED_US,
            ..self
        }
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
            at_once: if legacy { AT_ONCE_KERNELS } else { AT_ONCE },
            affordable_us: AFFORDABLE_US,
        }
    }
}
