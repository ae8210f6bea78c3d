//! Datagrams. Each begins with the number of its flow, which the listener gives out over a
//! connection. So nothing is sent to an address from which nobody has asked for it with that number.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use guest_shim::net::{Result, TcpStream, UdpSocket};
use guest_shim::prelude::*;
use guest_shim::sync::Mutex;
use guest_shim::time::Instant;
use guest_shim::{alloc, rand, task};

use crate::options::{Direction, Transfer};
use crate::pace::{Pace, bits_per_second};
use crate::tcp::{Hello, Wish};

/// Bytes of a flow's number.
pub(crate) const HEADER: usize = 8;

/// The longest datagram.
const MAX_DATAGRAM: usize = 65_000;

/// How long datagrams that are under way get to arrive.
const LATE: Duration = Duration::from_millis(200);

/// How often an address is told again, and looked for.
const AGAIN: Duration = Duration::from_millis(20);

/// The flows of one that listens.
#[derive(Debug)]
pub(crate) struct Flows {
    socket: UdpSocket,
    counts: Mutex<BTreeMap<u64, Count>>,
}

/// What has come of a flow.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    datagrams: u64,
    bytes: u64,
    from: Option<SocketAddr>,
}

/// A flow, until its connection ends.
struct Flow<'a> {
    flows: &'a Flows,
    number: u64,
}

impl Flows {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            socket: UdpSocket::bind(address).await?,
            counts: Mutex::new(BTreeMap::new()),
        })
    }

    /// Counts what comes.
    pub(crate) async fn count_all(self: Arc<Self>) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer).await {
            let number = buffer[..length]
                .first_chunk()
                .map(|bytes| u64::from_le_bytes(*bytes));
            let mut counts = self.counts.lock();
            if let Some(count) = number.and_then(|number| counts.get_mut(&number)) {
                count.datagrams += 1;
                count.bytes += length as u64;
                count.from = Some(from);
            }
        }
    }

    /// Serves a client as it wishes, until it has enough.
    pub(crate) async fn serve(&self, mut stream: TcpStream, hello: Hello) -> Result<()> {
        let flow = Flow::new(self);
        stream.write_all(&flow.number.to_le_bytes()).await?;
        let mut end = [0];
        if hello.wish == Wish::TakeDatagrams {
            stream.read_exact(&mut end).await?;
            let Count {
                datagrams, bytes, ..
            } = flow.count();
            return stream.write_all(&two(datagrams, bytes)).await;
        }
        let enough = Arc::new(AtomicBool::new(false));
        let (mut from_client, mut to_client) = stream.into_split();
        let enough_there = Arc::clone(&enough);
        drop(task::spawn(async move {
            // Also one that is gone has enough.
            let _ = from_client.read(&mut end).await;
            enough_there.store(true, Ordering::Relaxed);
        }));
        let (datagrams, bytes) = flow.send(hello, &enough).await?;
        to_client.write_all(&two(datagrams, bytes)).await
    }
}

impl<'a> Flow<'a> {
    fn new(flows: &'a Flows) -> Self {
        let number = rand::u64();
        flows.counts.lock().insert(number, Count::default());
        Self { flows, number }
    }

    /// Sends to where the client's datagrams come from, until it has enough.
    async fn send(&self, hello: Hello, enough: &AtomicBool) -> Result<(u64, u64)> {
        let to = loop {
            match self.count().from {
                Some(address) => break address,
                None if enough.load(Ordering::Relaxed) => return Ok((0, 0)),
                None => task::sleep(AGAIN).await,
            }
        };
        let mut datagram = vec![0; hello.size.clamp(HEADER, MAX_DATAGRAM)];
        datagram[..HEADER].copy_from_slice(&self.number.to_le_bytes());
        let mut pace = Pace::new(hello.rate, Duration::MAX);
        let mut sent = 0;
        while pace.next(datagram.len()).await && !enough.load(Ordering::Relaxed) {
            self.flows.socket.send_to(&datagram, to).await?;
            sent += 1;
        }
        Ok((sent, sent * datagram.len() as u64))
    }

    fn count(&self) -> Count {
        let counts = self.flows.counts.lock();
        counts.get(&self.number).copied().unwrap_or_default()
    }
}

impl Drop for Flow<'_> {
    fn drop(&mut self) {
        self.flows.counts.lock().remove(&self.number);
    }
}

/// Measures against one that listens at `to`.
pub(crate) async fn measure(to: SocketAddr, transfer: &Transfer) -> Result<String> {
    let wish = match transfer.direction {
        Direction::Send => Wish::TakeDatagrams,
        Direction::Receive => Wish::SendDatagrams,
    };
    let mut control = TcpStream::connect(to).await?;
    control
        .write_all(&Hello::new(wish, transfer).encode())
        .await?;
    let mut number = [0; HEADER];
    control.read_exact(&mut number).await?;
    let here: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(here, 0)).await?;
    let start = Instant::now();
    let (datagrams, bytes) = match transfer.direction {
        Direction::Send => send(&socket, to, number, transfer).await?,
        Direction::Receive => receive(&socket, to, number, transfer.time).await?,
    };
    let time = start.elapsed();
    if transfer.direction == Direction::Send {
        task::sleep(LATE).await;
    }
    control.write_all(&[0]).await?;
    let mut theirs = [0; 16];
    control.read_exact(&mut theirs).await?;
    let (their_datagrams, their_bytes) = from_two(&theirs);
    let (sent, received, bytes) = match transfer.direction {
        Direction::Send => (datagrams, their_datagrams, their_bytes),
        Direction::Receive => (their_datagrams, datagrams, bytes),
    };
    let lost = if sent > 0 {
        100.0 * sent.saturating_sub(received) as f64 / sent as f64
    } else {
        0.0
    };
    Ok(format!(
        "{{\"bytes\":{bytes},\"seconds\":{:.6},\"bits_per_second\":{:.0},\
         \"datagrams\":{received},\"lost_percent\":{lost:.3}}}",
        time.as_secs_f64(),
        bits_per_second(bytes, time)
    ))
}

async fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    number: [u8; HEADER],
    transfer: &Transfer,
) -> Result<(u64, u64)> {
    let mut datagram = vec![0; transfer.size];
    datagram[..HEADER].copy_from_slice(&number);
    let mut pace = Pace::new(transfer.rate, transfer.time);
    let mut sent = 0;
    while pace.next(datagram.len()).await {
        socket.send_to(&datagram, to).await?;
        sent += 1;
    }
    Ok((sent, sent * datagram.len() as u64))
}

async fn receive(
    socket: &UdpSocket,
    to: SocketAddr,
    number: [u8; HEADER],
    time: Duration,
) -> Result<(u64, u64)> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut pace = Pace::new(0, time);
    let (mut datagrams, mut bytes) = (0, 0);
    while pace.next(0).await {
        if datagrams == 0 {
            socket.send_to(&number, to).await?;
        }
        if let Ok(received) = task::timeout(AGAIN, socket.recv_from(&mut buffer)).await {
            datagrams += 1;
            bytes += received?.0 as u64;
        }
    }
    Ok((datagrams, bytes))
}

fn two(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) | u128::from(second) << 64).to_le_bytes()
}

fn from_two(bytes: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*bytes);
    (both as u64, (both >> 64) as u64)
}
