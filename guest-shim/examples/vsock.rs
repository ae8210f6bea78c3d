//! Talks with the host: says hello to who listens on port 9 there, and sends back what comes in on
//! its own port 7, one connection after another, until one sends `end`.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use guest_shim::net::Error;
use guest_shim::vsock::{VsockListener, VsockStream};
use guest_shim::{balloon, println, sliver_name, task};

const HOST_PORT: u32 = 9;
const PORT: u32 = 7;

fn run() -> Result<(), Error> {
    balloon::follow();
    task::block_on(async {
        match VsockStream::connect(HOST_PORT).await {
            Ok(mut host) => {
                host.write_all(b"hello from ").await?;
                host.write_all(sliver_name().as_bytes()).await?;
            }
            Err(error) => println!("port {HOST_PORT} of the host: {error}"),
        }
        let mut listener = VsockListener::bind(PORT).await?;
        println!("listening on port {PORT}");
        loop {
            let stream = listener.accept().await?;
            let (count, end) = send_back(stream).await?;
            println!("sent {count} bytes back");
            if end {
                println!("{} bytes are free", balloon::report_free().await);
                return Ok(());
            }
        }
    })
}

/// Bytes sent back, and whether it was to be the last.
async fn send_back(mut stream: VsockStream) -> Result<(usize, bool), Error> {
    let mut bytes = [0; 4096];
    let mut sent = 0;
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Ok((sent, false));
        }
        stream.write_all(&bytes[..count]).await?;
        sent += count;
        if bytes[..count].starts_with(b"end") {
            return Ok((sent, true));
        }
    }
}

guest_shim::entry!(run);
