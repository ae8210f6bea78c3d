//! Two stacks on one cable of memory, with a clock that jumps to what happens next.

mod bulk;
mod cable;
mod connections;
mod datagrams;

use core::net::SocketAddr;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::listen::ListenerId;
use super::*;
use crate::net::{Result, TcpOptions};
use cable::{Cable, End, Quality};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(600);

/// A frame's way from one end to the other.
const WAY: Duration = Duration::from_micros(20);

struct World {
    server: Stack,
    client: Stack,
    cable: Cable,
    now: Instant,
}

fn addressing(host: u16) -> Addressing {
    Addressing {
        v4: Some(([192, 0, 2, host as u8].into(), 24)),
        v6: Some(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into(), 64)),
        ..Addressing::default()
    }
}

/// The server, over one family or the other.
const V4: &str = "192.0.2.1:80";
const V6: &str = "[2001:db8::1]:80";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    fn new(quality: Quality) -> Self {
        Self::with_memory(quality, 64 << 20)
    }

    fn with_memory(quality: Quality, server_memory: usize) -> Self {
        let cable = Cable::new(quality);
        let now = Instant::from_nanos(1);
        let mut server = Stack::new(server_memory, 7);
        let mut client = Stack::new(1 << 30, 8);
        server.add("net0", cable.end(End::Server), addressing(1), now);
        client.add("net0", cable.end(End::Client), addressing(2), now);
        Self {
            server,
            client,
            cable,
            now,
        }
    }

    /// Lets time pass until `done` says so.
    fn run<R>(&mut self, mut done: impl FnMut(&mut Self, &mut Context<'_>) -> Option<R>) -> R {
        let end = self.now + LONG;
        let mut context = Context::from_waker(Waker::noop());
        loop {
            self.server.poll(self.now);
            self.client.poll(self.now);
            if let Some(result) = done(self, &mut context) {
                self.server.ring();
                self.client.ring();
                return result;
            }
            let deadlines = [
                self.server.deadline(self.now),
                self.client.deadline(self.now),
            ];
            self.now = if self.cable.is_busy() {
                self.now + WAY
            } else {
                let next = deadlines.into_iter().flatten().min();
                next.expect("nothing will ever happen")
                    .max(self.now + Duration::from_micros(1))
            };
            assert!(self.now < end, "it takes too long");
        }
    }

    /// Lets some time pass.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.server.poll(self.now);
            self.client.poll(self.now);
            let deadlines = [
                self.server.deadline(self.now),
                self.client.deadline(self.now),
            ];
            let next = deadlines.into_iter().flatten().min().unwrap_or(end);
            let least = if self.cable.is_busy() {
                WAY
            } else {
                Duration::from_micros(1)
            };
            let next = if self.cable.is_busy() { self.now } else { next };
            self.now = next.clamp(self.now + least, end.max(self.now + least));
        }
        self.server.poll(self.now);
        self.client.poll(self.now);
    }

    fn listen(&mut self, text: &str, options: TcpOptions) -> ListenerId {
        self.server.listen(address(text), options).unwrap()
    }

    /// Connects and accepts: the client's connection and the server's.
    fn connection(
        &mut self,
        listener: ListenerId,
        to: &str,
        options: &TcpOptions,
    ) -> (SocketId, SocketId) {
        let near = self.client.connect(address(to), options).unwrap();
        self.run(|world, context| connected(world, near, context))
            .unwrap();
        let (far, from) = self.run(|world, context| accepted(world, listener, context));
        assert_eq!(from.ip().is_ipv4(), address(to).is_ipv4());
        (near, far)
    }
}

/// Somebody who counts how often they are woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn ready<R>(poll: Poll<R>) -> Option<R> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn connected(world: &mut World, id: SocketId, context: &mut Context<'_>) -> Option<Result<()>> {
    ready(world.client.poll_connected(id, Duration::ZERO, context))
}

fn accepted(
    world: &mut World,
    listener: ListenerId,
    context: &mut Context<'_>,
) -> Option<(SocketId, SocketAddr)> {
    ready(world.server.poll_accept(listener, context)).map(Result::unwrap)
}

/// Writes all that is left of `bytes` and can be written now.
fn push(stack: &mut Stack, id: SocketId, bytes: &mut &[u8], context: &mut Context<'_>) {
    while !bytes.is_empty()
        && let Poll::Ready(written) = stack.poll_write(id, bytes, context)
    {
        *bytes = &bytes[written.unwrap()..];
    }
}

/// Reads all that has come. Whether that was the end.
fn pull(stack: &mut Stack, id: SocketId, into: &mut Vec<u8>, context: &mut Context<'_>) -> bool {
    let mut buffer = [0; 5000];
    while let Poll::Ready(read) = stack.poll_read(id, &mut buffer, context) {
        match read.unwrap() {
            0 => return true,
            read => into.extend(&buffer[..read]),
        }
    }
    false
}

/// Bytes among which a lost or doubled one shows.
fn noise(length: usize) -> Vec<u8> {
    let mut random = Random(42);
    (0..length).map(|_| random.next() as u8).collect()
}
