//! A key-value store on a disk, for any client of Redis: what it has acknowledged is there after
//! any crash.
//!
//!     kv [--disk NAME] [--port N] [--connections N] [--format]
//!
//! The disk is known by its name (`disk0`) or serial; the first one unless told otherwise. One that
//! holds nothing yet gets an empty store, one that holds something else is left alone, unless
//! `--format` says that it is to be overwritten. The port is 6379 unless told otherwise. It serves
//! at most 64 connections at once, or as many as told.
//!
//! It ends with 1 if the disk or the port cannot be used, and with 2 for wrong arguments. Otherwise
//! it does not end.
//!
//! How it is made: `log` keeps the records on the disk and can be read without knowing the rest,
//! `writer` gathers the changes of all clients, `serve` and `resp` talk to one client.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

#[path = "../common/flags.rs"]
mod flags;
mod log;
mod resp;
mod serve;
mod storage;
mod writer;

use alloc::sync::Arc;
use core::net::{Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use guest_shim::block::Disk;
use guest_shim::net::{self, TcpListener, TcpOptions};
use guest_shim::prelude::*;
use guest_shim::time::{Instant, now_unix};
use guest_shim::{alloc, console, task};

use flags::{Flags, Wrong};
use serve::{Store, serve};
use writer::Writer;

const USAGE: &str = "usage: kv [--disk NAME] [--port N] [--connections N] [--format]

A key-value store on a disk, for any client of Redis.

  --disk NAME        the disk, by name or serial (the first one)
  --port N           the port to listen on (6379)
  --connections N    the most connections at once (64)
  --format           make an empty store, whatever is on the disk";

struct Options {
    disk: Option<&'static str>,
    port: u16,
    connections: usize,
    format: bool,
}

impl Options {
    fn parse() -> Result<Self, Wrong> {
        let mut options = Self {
            disk: None,
            port: 6379,
            connections: 64,
            format: false,
        };
        let mut flags = Flags::of_this_program();
        while let Some(flag) = flags.next() {
            match flag {
                "--disk" => options.disk = Some(flags.word(flag)?),
                "--port" => options.port = flags.value(flag)?,
                "--connections" => options.connections = flags.value(flag)?,
                "--format" => options.format = true,
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
    match task::block_on(keep(&options)) {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("kv: {why}");
            1
        }
    }
}

async fn keep(options: &Options) -> Result<(), String> {
    let disk = match options.disk {
        Some(name) => Disk::open(name).map_err(|error| error.to_string())?,
        None => Disk::all().into_iter().next().ok_or("there is no disk")?,
    };
    let name = disk.name().to_string();
    let of_disk = |error: log::Error| format!("{name}: {error}");
    let start = Instant::now();
    if options.format {
        log::format(&disk, first_generation())
            .await
            .map_err(of_disk)?;
    }
    let log = log::open(disk, first_generation()).await.map_err(of_disk)?;
    let keys = log.usage().keys;
    println!("{name}: {keys} keys, read in {:?}", start.elapsed());
    let store = Arc::new(Store {
        reader: log.reader(),
        writer: Writer::start(log),
    });
    listen(options, store)
        .await
        .map_err(|error| format!("port {}: {error}", options.port))
}

/// For an empty store: another one than any store has had that was on this disk before.
fn first_generation() -> u64 {
    now_unix().as_nanos() as u64
}

async fn listen(options: &Options, store: Arc<Store<Disk>>) -> net::Result<()> {
    net::wait_configured().await;
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.port));
    let buffers = TcpOptions {
        receive_buffer: 16 << 10,
        send_buffer: 16 << 10,
        ..TcpOptions::default()
    };
    let listener = TcpListener::bind_with(address, buffers).await?;
    println!("listening on {}", listener.local_addr()?);
    console::flush();
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        while open.load(Ordering::Relaxed) >= options.connections {
            // Whoever comes meanwhile waits to be accepted.
            task::sleep(Duration::from_millis(20)).await;
        }
        let (stream, _) = listener.accept().await?;
        open.fetch_add(1, Ordering::Relaxed);
        let (store, open) = (Arc::clone(&store), Arc::clone(&open));
        drop(task::spawn(async move {
            serve(stream, store).await;
            open.fetch_sub(1, Ordering::Relaxed);
        }));
    }
}

guest_shim::entry!(run);
