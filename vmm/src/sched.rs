//! Processor time: who used it.

pub mod account;
