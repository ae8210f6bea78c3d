//! What a native slice links: entry, console, heap, clocks, vCPUs and panics on the slice ABI.
//!
//! One API, two backends. Without the feature `desktop` this is a `no_std` runtime without any
//! libc, and what links it becomes a native image. With the feature (the default) the same source
//! becomes an ordinary process, for development and for testbeds that include desktop machines.
//!
//! # A slice
//!
//! ```
//! #![cfg_attr(not(feature = "desktop"), no_std, no_main)]
//! use guest_shim::prelude::*;
//! use guest_shim::{args, sliver_name};
//!
//! fn run() -> u8 {
//!     let words: Vec<&str> = args().collect();
//!     println!("hello from {}: {}", sliver_name(), words.join(" "));
//!     0
//! }
//!
//! guest_shim::entry!(run);
//! ```
//!
//! Its package hands the choice of the backend on:
//!
//! ```toml
//! [features]
//! desktop = ["guest-shim/desktop"]
//!
//! [dependencies]
//! guest-shim = { version = "0.1", default-features = false }
//! ```
//!
//! # What the two backends share
//!
//! | | in a slice | on a desktop |
//! |---|---|---|
//! | [`print!`], [`eprint!`] | virtio console | standard output, standard error |
//! | [`console::read_line`] | virtio console | standard input |
//! | [`args`] | from the info page | from the command line |
//! | [`sliver_name`], [`slice_name`] | from the info page | `SLIVER_NAME`, else the program's name; `SLICE_NAME`, else `local_desktop` |
//! | [`time`] | clock record | the host's clocks |
//! | [`vcpu`] | vCPUs of the sliver | threads, as many as `SLICE_VCPUS` says or the host has processors |
//! | [`block`] | virtio block devices | files named in `SLICE_DISKS` |
//! | [`rand`](mod@rand) | ChaCha20, seeded from the entropy device and the processor | the host's |
//! | [`vsock`] | virtio socket device | unix sockets in `SLICE_VSOCK_DIR` |
//! | [`balloon`] | virtio memory balloon | nothing is given |
//! | [`task`] | an executor that rests in `IDLE` | `async-executor` |
//! | [`net`] | `smoltcp` on virtio network cards | the host's sockets |
//! | [`quota`] | quota page | nothing is known |
//! | heap | `talc` on the heap range of the info page | the standard library's |
//! | panic | message, backtrace, status 101 | the standard library's, status 101 |
//! | memory used up | a panic | the standard library's: a message and `SIGABRT` |
//! | stack overflow | a fault that names the vCPU, status 139 | the standard library's: a message and `SIGABRT` |
//!
//! A panic ends the whole sliver, whichever vCPU it happens on. When several panic, the first one
//! tells why.
#![cfg_attr(not(any(feature = "desktop", test)), no_std)]

pub extern crate alloc;

/// The slice ABI: constants and structures that image and monitor share.
pub use slice_abi as abi;

mod macros;
mod note;
mod sliver;
mod termination;

pub mod balloon;
pub mod block;
pub mod console;
pub mod net;
pub mod prelude;
pub mod quota;
pub mod rand;
pub mod sync;
pub mod task;
pub mod time;
pub mod vcpu;
pub mod vsock;

#[cfg(any(test, not(feature = "desktop")))]
mod bytes;
#[cfg(any(test, not(feature = "desktop")))]
mod frames;
#[cfg(any(test, not(feature = "desktop")))]
mod line;
#[cfg(any(test, not(feature = "desktop")))]
mod virtio;

#[cfg(any(test, feature = "desktop"))]
mod desktop;
#[cfg(any(test, feature = "desktop"))]
use desktop as backend;

#[cfg(not(any(test, feature = "desktop")))]
mod slice;
#[cfg(not(any(test, feature = "desktop")))]
use slice as backend;

#[doc(hidden)]
pub use note::Note;
#[cfg(not(any(test, feature = "desktop")))]
pub use slice::info;
pub use sliver::{Args, args, exit, slice_name, sliver_name};
pub use termination::Termination;
#[doc(hidden)]
pub use termination::run;
