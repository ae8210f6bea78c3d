//! The layer that a program puts on itself: it opens, makes and connects to nothing any more, even
//! where it could see something (landlock(7)).

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
    RulesetStatus, Scope,
};

/// What was known of Landlock when this was written; an older kernel enforces what it has. Version 9
/// would also forbid the sockets of the vsock's ports.
const KNOWN: ABI = ABI::V7;

/// Landlock could not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum LandlockError {
    #[error("cannot restrict this process by Landlock: {0}")]
    Refused(#[from] RulesetError),
    #[error("this kernel has no Landlock")]
    Missing,
}

/// Forbids this thread, and those that it starts from now on, every file, port and process that it has
/// not got yet.
pub fn forbid_everything() -> Result<(), LandlockError> {
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .restrict_self()?;
    match restricted.ruleset {
        RulesetStatus::NotEnforced => Err(LandlockError::Missing),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
