//! Moves bytes through a network or to a disk, as fast as it can or as told, and prints what came
//! of it as one JSON object: for benchmarks.
//!
//!     blast --listen PORT [--mode sink|source|echo]
//!     blast --connect HOST:PORT [--seconds N] [--rate BITS] [--direction send|receive]
//!           [--tcp|--udp] [--size BYTES] [--rr]
//!     blast --disk NAME [--seconds N] [--block BYTES] [--depth N] [--random|--sequential]
//!           [--read|--write] [--flush-every N] [--think-us N]
//!
//! One `blast` listens, another connects: the first byte of each connection says how it is to be
//! served (see `tcp`). With `--mode` every connection is served alike and nothing is read from it
//! first, so that any program can be the other end. `--rr` measures round trips of one byte. A disk
//! is read from its beginning on, or anywhere, unless it is to be written, which destroys what is on
//! it.
//!
//! It ends with 0 when it has measured, with 1 if it could not, and with 2 for wrong arguments. One
//! that listens does not end.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

mod disk;
#[path = "../common/flags.rs"]
mod flags;
mod histogram;
#[path = "../common/json.rs"]
mod json;
mod options;
#[path = "../common/or_null.rs"]
mod or_null;
mod pace;
mod tcp;
mod udp;

use guest_shim::prelude::*;
use guest_shim::{net, task};

use options::{USAGE, Work};

fn run() -> u8 {
    let work = match options::parse() {
        Ok(work) => work,
        Err(wrong) => return wrong.tell(USAGE),
    };
    match task::block_on(carry_out(work)) {
        Ok(figures) => {
            println!("{figures}");
            0
        }
        Err(why) => {
            eprintln!("blast: {why}");
            1
        }
    }
}

/// What came of it, as JSON.
async fn carry_out(work: Work) -> Result<String, String> {
    match work {
        Work::Disk(work) => disk::measure(work).await,
        Work::Listen { port, mode } => {
            net::wait_configured().await;
            let ended = tcp::listen(port, mode).await;
            Err(match ended {
                Ok(never) => match never {},
                Err(error) => format!("port {port}: {error}"),
            })
        }
        Work::Connect(transfer) => {
            net::wait_configured().await;
            let to = transfer.address().await?;
            let measured = if transfer.udp {
                udp::measure(to, &transfer).await
            } else {
                tcp::measure(to, &transfer).await
            };
            measured.map_err(|error| format!("{to}: {error}"))
        }
    }
}

guest_shim::entry!(run);
