//! Streams. A client says first, in 13 bytes, how it wants to be served: a letter (see [`Wish`]),
//! then two little endian numbers: bytes to send at once (4) and bits a second (8).

use alloc::sync::Arc;
use core::convert::Infallible;
use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;

use guest_shim::net::{Error, Result, TcpListener, TcpOptions, TcpStream};
use guest_shim::prelude::*;
use guest_shim::time::Instant;
use guest_shim::{alloc, console, task};

use crate::histogram::Histogram;
use crate::options::{Direction, Mode, Transfer};
use crate::or_null::OrNull;
use crate::pace::{Pace, bits_per_second};
use crate::udp::Flows;

/// Bytes that can be under way.
const BUFFER: usize = 512 << 10;

/// The most bytes that are written at once for a client.
const MAX_SIZE: usize = 1 << 20;

/// As long as anybody will wait.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// How a client wants to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// `>`: takes all that comes. After its end, says in 8 bytes how many bytes that were.
    Sink,
    /// `<`: sends until the client has enough.
    Source,
    /// `=`: sends back what comes.
    Echo,
    /// `u`: counts datagrams of the client.
    TakeDatagrams,
    /// `d`: sends datagrams to the client.
    SendDatagrams,
}

/// What a client says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) wish: Wish,
    pub(crate) size: usize,
    pub(crate) rate: u64,
}

impl Hello {
    const BYTES: usize = 13;

    pub(crate) fn new(wish: Wish, transfer: &Transfer) -> Self {
        Self {
            wish,
            size: transfer.size,
            rate: transfer.rate,
        }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        let letter = match self.wish {
            Wish::Sink => b'>',
            Wish::Source => b'<',
            Wish::Echo => b'=',
            Wish::TakeDatagrams => b'u',
            Wish::SendDatagrams => b'd',
        };
        let mut bytes = vec![letter];
        bytes.extend((self.size as u32).to_le_bytes());
        bytes.extend(self.rate.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let wish = match bytes[0] {
            b'>' => Wish::Sink,
            b'<' => Wish::Source,
            b'=' => Wish::Echo,
            b'u' => Wish::TakeDatagrams,
            b'd' => Wish::SendDatagrams,
            _ => return None,
        };
        let size = u32::from_le_bytes(*bytes[1..].first_chunk()?) as usize;
        let rate = u64::from_le_bytes(*bytes[5..].first_chunk()?);
        Some(Self { wish, size, rate })
    }
}

fn options() -> TcpOptions {
    TcpOptions {
        receive_buffer: BUFFER,
        send_buffer: BUFFER,
        ..TcpOptions::default()
    }
}

/// Serves whoever connects.
pub(crate) async fn listen(port: u16, mode: Option<Mode>) -> Result<Infallible> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind_with(address, options()).await?;
    let address = listener.local_addr()?;
    let flows = Arc::new(Flows::bind(address).await?);
    drop(task::spawn(Arc::clone(&flows).count_all()));
    println!("listening on {address}");
    console::flush();
    loop {
        let (stream, _) = listener.accept().await?;
        let flows = Arc::clone(&flows);
        // However a connection ends: its client knows more of it.
        drop(task::spawn(
            async move { serve(stream, mode, &flows).await },
        ));
    }
}

async fn serve(mut stream: TcpStream, mode: Option<Mode>, flows: &Flows) -> Result<()> {
    let hello = match mode {
        Some(mode) => Hello {
            wish: match mode {
                Mode::Sink => Wish::Sink,
                Mode::Source => Wish::Source,
                Mode::Echo => Wish::Echo,
            },
            size: 64 << 10,
            rate: 0,
        },
        None => {
            let mut bytes = [0; Hello::BYTES];
            stream.read_exact(&mut bytes).await?;
            Hello::decode(&bytes).ok_or(Error::InvalidInput)?
        }
    };
    match hello.wish {
        Wish::Sink => {
            let bytes = take_all(&mut stream, FOR_EVER).await?;
            if mode.is_none() {
                stream.write_all(&bytes.to_le_bytes()).await?;
            }
            Ok(())
        }
        Wish::Source => {
            let size = hello.size.clamp(1, MAX_SIZE);
            send(&mut stream, &mut Pace::new(hello.rate, FOR_EVER), size)
                .await
                .map(drop)
        }
        Wish::Echo => {
            let mut buffer = vec![0; 16 << 10];
            loop {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    read => stream.write_all(&buffer[..read]).await?,
                }
            }
        }
        Wish::TakeDatagrams | Wish::SendDatagrams => flows.serve(stream, hello).await,
    }
}

/// Measures against one that listens at `to`.
pub(crate) async fn measure(to: SocketAddr, transfer: &Transfer) -> Result<String> {
    if transfer.round_trips {
        return round_trips(to, transfer).await;
    }
    let wish = match transfer.direction {
        Direction::Send => Wish::Sink,
        Direction::Receive => Wish::Source,
    };
    let mut stream = TcpStream::connect_with(to, options()).await?;
    stream
        .write_all(&Hello::new(wish, transfer).encode())
        .await?;
    let start = Instant::now();
    let bytes = match transfer.direction {
        Direction::Send => {
            let mut pace = Pace::new(transfer.rate, transfer.time);
            send(&mut stream, &mut pace, transfer.size).await?;
            stream.shutdown().await?;
            // Only what has arrived counts, and the time until then.
            let mut taken = [0; 8];
            stream.read_exact(&mut taken).await?;
            u64::from_le_bytes(taken)
        }
        Direction::Receive => take_all(&mut stream, transfer.time).await?,
    };
    let time = start.elapsed();
    stream.abort();
    Ok(format!(
        "{{\"bytes\":{bytes},\"seconds\":{:.6},\"bits_per_second\":{:.0}}}",
        time.as_secs_f64(),
        bits_per_second(bytes, time)
    ))
}

async fn send(stream: &mut TcpStream, pace: &mut Pace, size: usize) -> Result<()> {
    let bytes: Vec<u8> = (0..size).map(|at| at as u8).collect();
    while pace.next(size).await {
        stream.write_all(&bytes).await?;
    }
    Ok(())
}

/// Reads until the other end has sent all, or for as long as said; how many bytes.
async fn take_all(stream: &mut TcpStream, time: Duration) -> Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut pace = Pace::new(0, time);
    let mut bytes = 0;
    let all = async {
        while pace.next(0).await {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => bytes += read as u64,
            }
        }
        Result::Ok(())
    };
    // Also one that sends nothing is not read for longer.
    task::timeout(time, all).await.unwrap_or(Ok(()))?;
    Ok(bytes)
}

async fn round_trips(to: SocketAddr, transfer: &Transfer) -> Result<String> {
    let mut stream = TcpStream::connect_with(to, options()).await?;
    stream
        .write_all(&Hello::new(Wish::Echo, transfer).encode())
        .await?;
    let mut times = Histogram::new();
    let start = Instant::now();
    while start.elapsed() < transfer.time {
        let sent = Instant::now();
        let mut byte = [1];
        stream.write_all(&byte).await?;
        stream.read_exact(&mut byte).await?;
        times.add(sent.elapsed());
    }
    let time = start.elapsed().as_secs_f64();
    stream.abort();
    Ok(format!(
        "{{\"round_trips\":{},\"seconds\":{time:.6},\"p50_us\":{},\"p99_us\":{},\"max_us\":{}}}",
        times.count(),
        OrNull(times.quantile_us(500)),
        OrNull(times.quantile_us(990)),
        OrNull(times.quantile_us(1000)),
    ))
}
