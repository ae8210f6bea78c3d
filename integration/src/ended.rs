//! What a sliver left behind, and what a test asserts about it.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Output};

use vmm::exit::{ExitKind, ExitRecord, Fault};

/// What a sliver left behind.
#[derive(Debug)]
pub struct Ended {
    /// The monitor's exit record, if it came to one.
    pub record: Option<ExitRecord>,
    /// What the guest printed.
    pub console: String,
    /// What the monitor said.
    pub errors: String,
    /// How the process ended.
    pub status: ExitStatus,
}

impl Ended {
    /// The exit record.
    ///
    /// # Panics
    /// If the monitor left none.
    #[track_caller]
    pub fn record(&self) -> &ExitRecord {
        self.record
            .as_ref()
            .unwrap_or_else(|| panic!("no exit record: {self:?}"))
    }

    /// Asserts the kind and status of the end, in the record and of the process.
    #[track_caller]
    pub fn assert_end(&self, kind: ExitKind, status: u8) -> &Self {
        let exit = &self.record().exit;
        assert_eq!((exit.kind, exit.status), (kind, status), "{self:#?}");
        assert_eq!(self.status.code(), Some(i32::from(status)), "{self:#?}");
        self
    }

    /// Asserts that the guest ended itself with `status`.
    #[track_caller]
    pub fn assert_exited(&self, status: u8) -> &Self {
        self.assert_end(ExitKind::Exited, status)
    }

    /// Asserts that the monitor refused, in one line that names the image file and holds all of
    /// `words`.
    #[track_caller]
    pub fn assert_refused(&self, image: &Path, words: &[&str]) -> &Self {
        self.assert_end(ExitKind::Error, 125);
        let message = &self.record().exit.detail.message;
        assert!(!message.contains('\n'), "more than one line: {message:?}");
        let image = image.to_str().expect("a test's path is UTF-8");
        for word in [image].iter().chain(words) {
            assert!(
                message.to_lowercase().contains(&word.to_lowercase()),
                "{message:?} does not say {word:?}"
            );
            assert!(self.errors.contains(image), "{self:#?}");
        }
        self
    }

    /// The fault that ended it.
    #[track_caller]
    pub fn fault(&self) -> &Fault {
        self.assert_end(ExitKind::Fault, 139);
        let detail = &self.record().exit.detail;
        detail.fault.as_ref().expect("a fault is described")
    }

    /// The signal that killed the monitor, which none should.
    pub fn killed_by(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// Asserts that `slicectl` refused before anything began, in one line that holds all of `words`.
#[track_caller]
pub fn assert_refused(output: &Output, status: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    let line = told.lines().next().unwrap_or_default();
    for word in words {
        assert!(line.contains(word), "{word:?} is missing: {told}");
    }
    assert_eq!(output.stdout, b"");
}
