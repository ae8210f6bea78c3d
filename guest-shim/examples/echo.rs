//! Sends back what it gets, over TCP and UDP.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use core::net::{Ipv6Addr, SocketAddr};

use guest_shim::net::{self, Result, TcpListener, TcpStream, UdpSocket};
use guest_shim::prelude::*;
use guest_shim::{args, console, eprintln, println, task};

const USAGE: &str = "usage: echo [--port N]";

/// RFC 862.
const PORT: u16 = 7;

/// Bytes that are read at a time.
const CHUNK: usize = 16 << 10;

fn run() -> u8 {
    let mut port = PORT;
    let mut words = args();
    while let Some(word) = words.next() {
        match (word, words.next().and_then(|n| n.parse().ok())) {
            ("--port", Some(n)) => port = n,
            _ => {
                eprintln!("{USAGE}");
                return 2;
            }
        }
    }
    match task::block_on(serve(port)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("echo: port {port}: {error}");
            1
        }
    }
}

async fn serve(port: u16) -> Result<()> {
    net::wait_configured().await;
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let socket = UdpSocket::bind(address).await?;
    println!("listening on {address}");
    console::flush();
    drop(task::spawn(echo_datagrams(socket)));
    loop {
        let (stream, from) = listener.accept().await?;
        drop(task::spawn(async move {
            if let Err(error) = echo(stream).await {
                println!("{from}: {error}");
            }
        }));
    }
}

async fn echo(mut stream: TcpStream) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}

async fn echo_datagrams(socket: UdpSocket) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match socket.recv_from(&mut buffer).await {
            // One that cannot go back is lost, as any datagram may be.
            Ok((length, from)) => _ = socket.send_to(&buffer[..length], from).await,
            Err(error) => println!("{error}"),
        }
    }
}

guest_shim::entry!(run);
