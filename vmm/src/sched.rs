//! Processor time: who used it, who may.

pub mod account;
pub mod budget;
pub mod fair;
pub(crate) mod governor;
pub mod ledger;
pub mod place;
pub mod preempt;
pub mod quota;
pub(crate) mod seat;
pub mod sim;
mod turnstile;
