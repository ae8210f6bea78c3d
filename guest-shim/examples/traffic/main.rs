//! Sends a load that looks like what people send, and that can be had again: for measuring limits.
//!
//!     traffic --to ADDRESS:PORT [--profile web|bulk|voip] [--rate KBIT] [--seed N] [--seconds N]
//!             [--json]
//!
//! What is sent when is decided by profile, rate and seed alone (see `schedule`). When the network
//! takes less, steps are late, and what is not sent by the end is told as missing.
//!
//! It ends with 0 if something was sent, with 1 if nothing was, and with 2 for wrong arguments.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

#[path = "../common/flags.rs"]
mod flags;
mod options;
mod schedule;
mod send;

use guest_shim::net;
use guest_shim::prelude::*;
use guest_shim::task;

use options::USAGE;

fn run() -> u8 {
    let options = match options::parse() {
        Ok(options) => options,
        Err(wrong) => return wrong.tell(USAGE),
    };
    let sent = task::block_on(async {
        net::wait_configured().await;
        send::send(&options).await
    });
    let summary: String = match options.json {
        true => sent.json(&options),
        false => sent.line(&options),
    };
    println!("{summary}");
    u8::from(sent.bytes == 0)
}

guest_shim::entry!(run);
