//! What hostile guests do, whatever machine they are on. Each guest brings its surroundings as
//! `crate::guest`, [`Guest`](crate::guest::Guest): memory, devices, time, rest and an end; and what
//! only its machine can be asked to bear as `crate::own`.

pub mod block;
pub mod console;
pub mod egress;
pub mod floods;
pub mod lasting;
pub mod low;
pub mod memory;
pub mod net;
pub mod packets;
pub mod registers;
pub mod rings;
pub mod status;
pub mod subject;
pub mod verdict;
pub mod virtio;
pub mod vsock;
