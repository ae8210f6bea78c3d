//! The network of a slice: its stack, on the cards in its device table.
//!
//! It comes up when it is first used. Whoever waits for something is woken by the executor's polls.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::task::{Context, Poll};
use core::time::Duration;

use slice_abi::device::device_id;
use slice_abi::info::NetConfig;

use super::device;
use super::identity::info;
use crate::net::driver::{Offer, VirtioCard};
use crate::net::stack::dns::Query;
use crate::net::stack::listen::ListenerId;
use crate::net::stack::ping::PingId;
use crate::net::stack::udp::UdpId;
use crate::net::stack::{Addressing, SocketId, Stack};
use crate::net::{Error, Interface, Result, TcpOptions};
use crate::rand;
use crate::sync::Mutex;
use crate::task::{self, Poller};
use crate::time::Instant;

static NET: Mutex<Option<Stack>> = Mutex::new(None);

/// Has the stack polled.
struct Driver;

static DRIVER: Driver = Driver;

impl Poller for Driver {
    fn poll(&self) {
        with_running(|stack| stack.poll(Instant::now()));
    }

    fn deadline(&self) -> Option<Instant> {
        with_running(|stack| stack.deadline(Instant::now())).flatten()
    }

    fn ring(&self) {
        with_running(Stack::ring);
    }
}

/// Uses the stack, and sets it going first if nobody has used it before.
fn with<R>(action: impl FnOnce(&mut Stack) -> R) -> R {
    let mut net = NET.lock();
    let is_new = net.is_none();
    let result = action(net.get_or_insert_with(open));
    drop(net);
    if is_new {
        task::register(&DRIVER);
    } else {
        // A stream may be dropped where nothing is polled.
        task::attend();
    }
    result
}

fn with_running<R>(action: impl FnOnce(&mut Stack) -> R) -> Option<R> {
    NET.lock().as_mut().map(action)
}

/// A stack with all cards. Half of the heap is for buffers of connections.
fn open() -> Stack {
    let page = info();
    let now = Instant::now();
    let seed = rand::u64();
    let mut stack = Stack::new((page.heap.len / 2) as usize, seed);
    let configs = &page.nets[..page.net_count as usize];
    for found in device::find(device_id::NET) {
        let named = |config: &&NetConfig| config.device as usize == found.index;
        let addressing = configs.iter().find(named).map(Addressing::of);
        let offer = Offer {
            features: found.entry.features,
            queue_size_max: found.entry.queue_size_max,
            state: found.state(),
        };
        let card = Box::new(VirtioCard::open(found.registers(), &offer, seed));
        stack.add(found.tag(), card, addressing.unwrap_or_default(), now);
    }
    stack
}

/// Waits for something that the stack has.
async fn wait<R>(mut poll: impl FnMut(&mut Stack, &mut Context<'_>) -> Poll<R>) -> R {
    poll_fn(|context| with(|stack| poll(stack, context))).await
}

#[derive(Debug)]
pub(crate) struct Listener(ListenerId);

impl Listener {
    pub(crate) fn bind(address: SocketAddr, options: TcpOptions) -> Result<Self> {
        with(|stack| stack.listen(address, options)).map(Self)
    }

    pub(crate) async fn accept(&self) -> Result<(Stream, SocketAddr)> {
        loop {
            let (id, from) = wait(|stack, context| stack.poll_accept(self.0, context)).await?;
            // One that was reset in between is no reason to accept no other.
            if let Ok(stream) = Stream::new(id) {
                return Ok((stream, from));
            }
        }
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        with(|stack| stack.listener_address(self.0)).ok_or(Error::Closed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        with(|stack| stack.end_listener(self.0, Instant::now()));
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    id: SocketId,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Stream {
    /// Of a connection that is complete.
    fn new(id: SocketId) -> Result<Self> {
        let ends = with(|stack| {
            let ends = stack.ends(id);
            if ends.is_none() {
                stack.release(id, Instant::now());
            }
            ends
        });
        let (local, peer) = ends.ok_or(Error::ConnectionReset)?;
        Ok(Self { id, local, peer })
    }

    pub(crate) async fn connect(to: SocketAddr, options: TcpOptions) -> Result<Self> {
        let connecting = Connecting(Some(with(|stack| stack.connect(to, &options))?));
        let start = Instant::now();
        connecting.complete(start).await
    }

    pub(crate) async fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        wait(|stack, context| stack.poll_read(self.id, buffer, context)).await
    }

    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<usize> {
        wait(|stack, context| stack.poll_write(self.id, bytes, context)).await
    }

    pub(crate) fn shutdown(&self) -> Result<()> {
        with(|stack| stack.shut_down(self.id, Instant::now()));
        Ok(())
    }

    pub(crate) fn abort(&self) {
        with(|stack| stack.abort(self.id));
    }

    pub(crate) fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        with(|stack| stack.set_nodelay(self.id, nodelay));
        Ok(())
    }

    pub(crate) fn peer_addr(&self) -> Result<SocketAddr> {
        Ok(self.peer)
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.local)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        with(|stack| stack.release(self.id, Instant::now()));
    }
}

/// A connection that is not complete: given up when it is dropped.
struct Connecting(Option<SocketId>);

impl Connecting {
    async fn complete(mut self, start: Instant) -> Result<Stream> {
        if let Some(id) = self.0 {
            wait(|stack, context| stack.poll_connected(id, start.elapsed(), context)).await?;
        }
        self.0.take().map_or(Err(Error::Closed), Stream::new)
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            with(|stack| stack.give_up(id, Instant::now()));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Udp(UdpId);

impl Udp {
    pub(crate) fn bind(address: SocketAddr) -> Result<Self> {
        with(|stack| stack.bind_udp(address)).map(Self)
    }

    pub(crate) async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        wait(|stack, context| stack.poll_send(self.0, datagram, to, context)).await
    }

    pub(crate) async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        wait(|stack, context| stack.poll_receive(self.0, buffer, context)).await
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        with(|stack| stack.udp_address(self.0)).ok_or(Error::Closed)
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        with(|stack| stack.end_udp(self.0, Instant::now()));
    }
}

pub(crate) async fn ping(to: IpAddr) -> Result<Duration> {
    struct Pinging(PingId);
    impl Drop for Pinging {
        fn drop(&mut self) {
            with(|stack| stack.end_ping(self.0));
        }
    }
    let start = Instant::now();
    let pinging = Pinging(with(|stack| stack.ping(SocketAddr::new(to, 0)))?);
    wait(|stack, context| stack.poll_pong(pinging.0, context)).await;
    Ok(start.elapsed())
}

pub(crate) async fn lookup(host: &str) -> Result<Vec<IpAddr>> {
    struct Asking(Query);
    impl Drop for Asking {
        fn drop(&mut self) {
            with(|stack| stack.end_query(&mut self.0));
        }
    }
    let mut asking = Asking(with(|stack| stack.ask(host))?);
    wait(|stack, context| stack.poll_answer(&mut asking.0, context)).await
}

pub(crate) fn interfaces() -> Vec<Interface> {
    with(|stack| stack.interfaces())
}

pub(crate) async fn wait_configured() {
    wait(Stack::poll_configured).await;
}
