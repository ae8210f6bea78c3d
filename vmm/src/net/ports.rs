//! The sliver's ports as the outside sees them: a range that no other sliver of the node has.

mod range;

pub use range::{FIRST_PORT, MIN_PORTS, PortRange, RangeError};
