//! The runtime of a native slice.
