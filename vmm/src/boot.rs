//! From a file to a guest ready to enter: what an image is, and how each kind is loaded.

pub mod image;
pub mod legacy;
mod note;
pub mod slice;
