//! How much processor time a sliver may use until when: a constant bandwidth server.

use crate::nanos::Nanos;

/// Processor time per period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// In each period.
    pub quota: Nanos,
    /// The period.
    pub period: Nanos,
    /// What may be saved up beyond a quota.
    pub burst: Nanos,
}
