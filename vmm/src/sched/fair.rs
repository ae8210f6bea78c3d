//! Being written by another; what the governor needs of it.
#![allow(missing_docs)]
use crate::nanos::Nanos;
use crate::spec::MilliCpu;
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub share: u32,
    pub reserve: MilliCpu,
    pub ceiling: MilliCpu,
}
#[derive(Debug, Clone, Copy)]
pub struct Rival {
    pub slot: usize,
    pub claim: Claim,
    pub demand: u32,
    pub waiting: bool,
    pub vtime: u64,
}
#[derive(Debug, Clone, Copy)]
pub struct Own {
    pub slot: usize,
    pub claim: Claim,
    pub demand: u32,
}
#[derive(Debug, Clone, Copy)]
pub enum Turn {
    Run { look_at: Nanos },
    StepBack { look_at: Nanos },
}
#[derive(Debug, Clone, Copy)]
pub struct Decision {
    pub turn: Turn,
    pub wake: Option<usize>,
    pub contended: bool,
}
#[derive(Debug)]
pub struct Fair;
impl Fair {
    pub fn new(_: Nanos) -> Self {
        Self
    }
    pub fn vtime(&self) -> u64 {
        0
    }
    pub fn look(&mut self, now: Nanos, _: Nanos, _: &Own, _: &[Rival], _: u32) -> Decision {
        Decision {
            turn: Turn::Run {
                look_at: now + Nanos::from_millis(50),
            },
            wake: None,
            contended: false,
        }
    }
}
