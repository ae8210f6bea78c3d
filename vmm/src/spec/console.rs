//! The console of a sliver, in its spec.

use serde::Serialize;

use super::fields::Fields;

/// Output that a sliver may write, in KiB a second, if its spec does not say.
const DEFAULT_RATE_KIB_S: u64 = 1024;

/// Beyond it a limit is none.
const MAX_RATE_KIB_S: u64 = 1 << 30;

/// The console of a sliver: `{ "input": false, "rate_kib_s": 1024 }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsoleSpec {
    input: bool,
    rate_kib_s: u64,
}

impl ConsoleSpec {
    pub(super) fn read(fields: &mut Fields) -> Self {
        Self {
            input: fields.bool("input", false),
            rate_kib_s: fields.ranged_u64("rate_kib_s", 1, MAX_RATE_KIB_S, DEFAULT_RATE_KIB_S),
        }
    }

    /// Whether the guest may read the monitor's standard input.
    pub fn input(&self) -> bool {
        self.input
    }

    /// How much it may write in a second, in KiB.
    pub fn rate_kib_s(&self) -> u64 {
        self.rate_kib_s
    }
}

impl Default for ConsoleSpec {
    fn default() -> Self {
        Self {
            input: false,
            rate_kib_s: DEFAULT_RATE_KIB_S,
        }
    }
}
