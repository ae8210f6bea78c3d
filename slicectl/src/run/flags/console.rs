//! `--console FILE|stdio|none`.

use std::path::{Path, PathBuf};

use crate::problem::Problem;
use crate::run::console::ConsoleFile;

/// Where the guest's console goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::run) enum Console {
    /// To standard output; nothing comes in.
    Stdout,
    /// To standard output and from standard input.
    Stdio,
    /// Nowhere.
    Nowhere,
    /// To a file.
    File(PathBuf),
}

impl Console {
    /// Reads the flag.
    pub(super) fn read(text: &str) -> Self {
        match text {
            "stdio" => Self::Stdio,
            "none" => Self::Nowhere,
            path => Self::File(PathBuf::from(path)),
        }
    }

    /// Why the file cannot be written.
    pub(super) fn objection(&self) -> Option<Problem> {
        let Self::File(path) = self else {
            return None;
        };
        let problem = |why: String| Problem::new(format!("--console {}", path.display()), why);
        if path.is_dir() {
            return Some(problem("is a directory".to_owned()).mend("name a file in it"));
        }
        let dir = path.parent().filter(|dir| *dir != Path::new(""));
        if !path.exists() && !dir.is_none_or(Path::is_dir) {
            return Some(problem("its directory does not exist".to_owned()));
        }
        // Files that are there are only opened: nothing is lost of them if the run is refused.
        let open = path.exists().then(|| ConsoleFile::open(path));
        open.and_then(|open| open.err())
            .map(|error| problem(format!("cannot be written: {error}")))
    }
}
