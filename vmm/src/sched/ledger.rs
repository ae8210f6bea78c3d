//! Being written by another; what the governor needs of it.
#![allow(missing_docs)]
use super::fair::*;
use crate::nanos::Nanos;
use std::path::Path;
use std::sync::atomic::AtomicU32;
#[derive(Debug)]
pub struct Ledger(AtomicU32);
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub enum LedgerError {
    X,
}
impl LedgerError {
    pub fn is_refusal(&self) -> bool {
        true
    }
}
pub struct Published {
    pub demand: u32,
    pub waiting: bool,
    pub vtime: u64,
    pub service: Nanos,
}
impl Ledger {
    pub fn join(
        _: &Path,
        _: &str,
        _: u32,
        _: Claim,
    ) -> Result<(Ledger, Option<String>), LedgerError> {
        Err(LedgerError::X)
    }
    pub fn slot(&self) -> usize {
        0
    }
    pub fn set_claim(&self, _: Claim) -> Result<(), LedgerError> {
        Ok(())
    }
    pub fn publish(&self, _: Nanos, _: Published) {}
    pub fn rivals(&self, _: Nanos, _: &mut Vec<Rival>) {}
    pub fn word(&self) -> &AtomicU32 {
        &self.0
    }
    pub fn wake(&self, _: usize) {}
    pub fn is_current(&self) -> bool {
        true
    }
}
