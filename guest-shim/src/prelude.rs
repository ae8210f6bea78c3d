//! What a program would find without asking if it had the standard library: import it all, and
//! one source compiles for both backends.
//!
//! ```
//! use guest_shim::prelude::*;
//!
//! let words: Vec<String> = vec!["a".to_string(), format!("{}", 2)];
//! println!("{words:?}");
//! ```

pub use alloc::borrow::ToOwned;
pub use alloc::boxed::Box;
pub use alloc::string::{String, ToString};
pub use alloc::vec::Vec;
pub use alloc::{format, vec};

/// On a desktop the standard library's macros of these names are in sight already and print to the
/// same place, but panic when nobody reads it. Who minds imports ours by name: that works in both.
#[cfg(not(any(test, feature = "desktop")))]
pub use crate::{eprint, eprintln, print, println};
