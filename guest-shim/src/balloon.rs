//! Memory given to the host for a while, and free memory that it may take out.
//!
//! Both are for programs that ask: a sliver's memory is otherwise its own. Neither takes anything
//! that is in use.
//!
//! ```
//! use guest_shim::{balloon, task};
//!
//! task::block_on(async {
//!     // Let the node's operator have what this program does not use.
//!     balloon::follow();
//!     // After much work: what is free now need not stay in the host's memory.
//!     let bytes = balloon::report_free().await;
//!     println!("{bytes} bytes of the heap are free and reported");
//! });
//! ```
//!
//! On a desktop nothing is given and nothing is reported.

use crate::backend::balloon as backend;

/// Gives the host as many pages as it asks for, as far as they are free, and takes them back when
/// it asks for fewer, for as long as [`task::block_on`](crate::task::block_on) runs. Without a
/// balloon device nothing happens.
pub fn follow() {
    backend::follow();
}

/// Tells the host of memory that is free, in blocks of 2 MiB, so that it can use that memory until
/// it is touched here again. How many bytes that was.
pub async fn report_free() -> u64 {
    backend::report_free().await
}
