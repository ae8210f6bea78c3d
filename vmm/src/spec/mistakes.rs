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

/// All mistakes of a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SpecError {
    pub(super) mistakes: Vec<Mistake>,
}

impl SpecError {
    /// The mistakes, at least one, in the order of the document's description.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid spec: ")?;
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}: {}", mistake.field, mistake.problem)?;
        }
        Ok(())
    }
}
