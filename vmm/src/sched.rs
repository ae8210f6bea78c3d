//! Processor time: who used it, who may.

pub mod account;
pub mod budget;
