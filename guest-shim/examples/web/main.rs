//! A web server: a page, and what its sliver is granted and has used.
//!
//!     web [--port N] [--idle SECONDS] [--connections N]
//!
//! `/` is a page that shows `/stats`, which is JSON: names of sliver and slice, uptime, requests
//! served, connections, and the quota page. It listens on port 80 unless told otherwise. A
//! connection ends when no whole request comes for 15 seconds, or as many as told; more than 512
//! connections at once, or as many as told, wait to be accepted.
//!
//! It ends with 1 if the port cannot be had, and with 2 for wrong arguments. Otherwise it does not
//! end.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

mod connection;
#[path = "../common/flags.rs"]
mod flags;
#[path = "../common/json.rs"]
mod json;
#[path = "../common/or_null.rs"]
mod or_null;
mod request;
mod stats;

use alloc::sync::Arc;
use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;

use guest_shim::net::{self, TcpListener, TcpOptions};
use guest_shim::{alloc, console, eprintln, println, task};

use connection::{Patience, serve};
use flags::{Flags, Wrong};
use stats::Stats;

const USAGE: &str = "usage: web [--port N] [--idle SECONDS] [--connections N]

A web server: a page, and at /stats what its sliver is granted and has used.

  --port N           the port to listen on (80)
  --idle SECONDS     how long a client may take to send a request (15)
  --connections N    the most connections at once (512)";

/// How long a full server waits before it looks again whether a connection has ended.
const FULL: Duration = Duration::from_millis(5);

struct Options {
    port: u16,
    idle: Duration,
    connections: usize,
}

impl Options {
    fn parse() -> Result<Self, Wrong> {
        let mut options = Self {
            port: 80,
            idle: Duration::from_secs(15),
            connections: 512,
        };
        let mut flags = Flags::of_this_program();
        while let Some(flag) = flags.next() {
            match flag {
                "--port" => options.port = flags.value(flag)?,
                "--idle" => options.idle = Duration::from_secs(flags.value(flag)?),
                "--connections" => options.connections = flags.value(flag)?,
                _ => return Err(Wrong::unknown(flag)),
            }
        }
        Ok(options)
    }
}

fn run() -> u8 {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(wrong) => return wrong.tell(USAGE),
    };
    match task::block_on(listen(&options)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("web: port {}: {error}", options.port);
            1
        }
    }
}

async fn listen(options: &Options) -> net::Result<()> {
    net::wait_configured().await;
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.port));
    // Requests are small and so are answers: many connections shall fit into little memory.
    let buffers = TcpOptions {
        receive_buffer: 8 << 10,
        send_buffer: 16 << 10,
        ..TcpOptions::default()
    };
    let listener = TcpListener::bind_with(address, buffers).await?;
    println!("listening on {}", listener.local_addr()?);
    console::flush();
    let patience = Patience(options.idle);
    let stats = Arc::new(Stats::new());
    loop {
        while stats.open() >= options.connections {
            task::sleep(FULL).await;
        }
        let (stream, _) = listener.accept().await?;
        let stats = Arc::clone(&stats);
        stats.begin();
        drop(task::spawn(async move {
            serve(stream, patience, &stats).await;
            stats.end();
        }));
    }
}

guest_shim::entry!(run);
