//! What a command says when it cannot do what it was asked: what, why, and what to do about it.
//!
//! Every refusal of `slicectl` has this form and is printed on one line of its own. A command may
//! find several problems at once and then reports all of them.

use std::fmt;

use crate::text::printable;

/// Exit code of a wrong invocation.
pub const USAGE: u8 = 2;

/// Exit code of `slicectl run` when the sliver could not be started or its monitor failed.
pub const MONITOR: u8 = 125;

/// Exit code of a command that was stopped by a signal before it was done.
pub const STOPPED: u8 = 143;

/// Exit code of any other command that failed.
pub const FAILED: u8 = 1;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    what: String,
    why: String,
    mend: Option<String>,
}

impl Problem {
    /// `what` is the flag, file or thing; `why` says what is wrong with it.
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
            mend: None,
        }
    }

    /// Adds what to do about it: a command, or a value that would do.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// Why it is wrong, without the rest.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What to do about it, if that is known.
    pub fn remedy(&self) -> Option<&str> {
        self.mend.as_deref()
    }
}

impl fmt::Display for Problem {
    /// One line, whatever is in the parts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", printable(&self.what), printable(&self.why))?;
        match &self.mend {
            Some(mend) => write!(f, "; {}", printable(mend)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Why a command ends without success: its exit code and the problems that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub status: u8,
    /// What is wrong; empty if it was said already.
    pub problems: Vec<Problem>,
}

impl Failure {
    /// A failure with exit code `status`.
    pub fn new(status: u8, problems: Vec<Problem>) -> Self {
        Self { status, problems }
    }

    /// The same, with the exit code of a command that was stopped, if a signal is the reason.
    #[must_use]
    pub fn or_stopped(mut self) -> Self {
        if crate::signals::arrived().is_some() {
            self.status = STOPPED;
        }
        self
    }

    /// All problems on one line.
    pub fn summary(&self) -> String {
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        lines.join("; ")
    }

    /// Prints the problems to stderr, one a line.
    pub fn report(&self) {
        for problem in &self.problems {
            crate::report::say(problem);
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::new(FAILED, vec![problem])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_even_if_a_name_has_line_breaks() {
        let problem = Problem::new("image a\nb", "is not\u{1b}[31m an image").mend("try hello");
        assert_eq!(
            problem.to_string(),
            r"image a\nb: is not\u{1b}[31m an image; try hello"
        );
    }
}
