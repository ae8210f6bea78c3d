//! What is wrong with a spec: all of it, each with the path of its field.

use std::fmt;

/// One mistake in a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Path of the field, or `spec` for the document as a whole.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// All mistakes of a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SpecError {
    pub(crate) mistakes: Vec<Mistake>,
}

impl SpecError {
    /// The mistakes, at least one, in the order of the document's description.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid spec: {}", told(&self.mistakes))
    }
}

/// Mistakes in one line.
pub(crate) fn told(mistakes: &[Mistake]) -> String {
    let told = mistakes.iter().map(Mistake::to_string);
    told.collect::<Vec<_>>().join("; ")
}
