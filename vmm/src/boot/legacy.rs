//! Legacy images: kernels that were not written for us, and the machine that they expect.

pub mod map;
