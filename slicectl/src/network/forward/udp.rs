//! Datagrams: those of each client are a flow, with a socket of its own towards the guest, so that
//! answers find their way back. A flow ends when nothing has come or gone for a while.
//!
//! Nothing waits to send: a datagram that the kernel has no room for is lost, as on any network.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{SendFlags, send, sendto};
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

/// Flows at once, of all ports together. The datagrams of further clients are lost until one ends.
pub(super) const MAX_FLOWS: usize = 1024;

/// A flow without a datagram for this long has ended.
const IDLE: Duration = Duration::from_secs(60);

/// The largest datagram.
const MAX_DATAGRAM: usize = 65_535;

/// How long to wait after an error that is not about one datagram.
const SHORTAGE: Duration = Duration::from_millis(50);

/// A published port for datagrams.
#[derive(Debug)]
struct Port {
    /// The host's socket, to all clients.
    socket: UdpSocket,
    flows: Mutex<HashMap<SocketAddr, Arc<Flow>>>,
    /// Room for one datagram on its way back: there is one thread, which never waits with it.
    datagram: Mutex<Vec<u8>>,
}

/// The datagrams between one client and the guest.
#[derive(Debug)]
struct Flow {
    guest: UdpSocket,
    used: Mutex<Instant>,
    _place: OwnedSemaphorePermit,
}

/// Carries datagrams for ever between the clients of `socket` and the guest's port `to`.
pub(super) async fn carry_all(socket: UdpSocket, to: SocketAddr, places: Arc<Semaphore>) {
    let port = Arc::new(Port {
        socket,
        flows: Mutex::default(),
        datagram: Mutex::new(vec![0; MAX_DATAGRAM]),
    });
    let mut datagram = vec![0; MAX_DATAGRAM];
    loop {
        match port.socket.recv_from(&mut datagram).await {
            Ok((len, client)) => {
                if let Ok(flow) = flow_of(&port, client, to, &places) {
                    *lock(&flow.used) = Instant::now();
                    let _ = send(&flow.guest, &datagram[..len], SendFlags::DONTWAIT);
                }
            }
            Err(_) => sleep(SHORTAGE).await,
        }
    }
}

/// The flow of a client, which begins if there is room for one.
fn flow_of(
    port: &Arc<Port>,
    client: SocketAddr,
    to: SocketAddr,
    places: &Arc<Semaphore>,
) -> io::Result<Arc<Flow>> {
    if let Some(flow) = lock(&port.flows).get(&client) {
        return Ok(Arc::clone(flow));
    }
    let place = Arc::clone(places).try_acquire_owned();
    let flow = Arc::new(Flow {
        _place: place.map_err(io::Error::other)?,
        guest: connected(to)?,
        used: Mutex::new(Instant::now()),
    });
    lock(&port.flows).insert(client, Arc::clone(&flow));
    tokio::spawn(bring_back(Arc::clone(port), client, Arc::clone(&flow)));
    Ok(flow)
}

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Carries a flow's answers to its client until the flow has been idle for long enough.
async fn bring_back(port: Arc<Port>, client: SocketAddr, flow: Arc<Flow>) {
    loop {
        let until = *lock(&flow.used) + IDLE;
        match timeout_at(until, flow.guest.readable()).await {
            Ok(_) => {
                let mut datagram = lock(&port.datagram);
                // An error here is a message that a datagram was refused; the next may not be.
                if let Ok(len) = flow.guest.try_recv(&mut datagram) {
                    *lock(&flow.used) = Instant::now();
                    let _ = sendto(&port.socket, &datagram[..len], SendFlags::DONTWAIT, &client);
                }
            }
            Err(_) if Instant::now() >= *lock(&flow.used) + IDLE => break,
            Err(_) => {}
        }
    }
    lock(&port.flows).remove(&client);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
