//! Carries what comes to published ports into the sliver, in the thread that calls it.
//!
//! The sockets it is given may be of another network namespace; those it opens are of the calling
//! thread's. What it does at once is bounded: connections, flows of datagrams, and what each of
//! them holds in memory. Beyond that, connections wait in the kernel and datagrams are lost.

mod patience;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Semaphore, oneshot};

use super::publish::{Listening, Socket};
use crate::problem::Problem;
use crate::report::say;
use patience::Patience;

/// Connections at once.
const MAX_CONNECTIONS: usize = 4096;

/// Descriptors of a connection: one to each side.
const DESCRIPTORS_EACH: u64 = 2;

/// Descriptors for everything else, flows of datagrams among them.
const OTHER_DESCRIPTORS: u64 = 64 + udp::MAX_FLOWS as u64;

/// What all connections share.
#[derive(Debug)]
struct Shared {
    connections: Arc<Semaphore>,
    patience: Patience,
}

/// Carries until `end` is told or dropped.
pub(super) fn run(listening: Vec<Listening>, target: Option<IpAddr>, end: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    let carried = runtime.and_then(|runtime| runtime.block_on(carry(listening, target, end)));
    if let Err(error) = carried {
        say(Problem::new(
            "--publish",
            format!("nothing is carried: {error}"),
        ));
    }
}

async fn carry(
    listening: Vec<Listening>,
    target: Option<IpAddr>,
    end: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let shared = Arc::new(Shared {
        connections: Arc::new(Semaphore::new(make_room())),
        patience: Patience::default(),
    });
    let flows = Arc::new(Semaphore::new(udp::MAX_FLOWS));
    for Listening { socket, guest, .. } in listening {
        let Some(address) = target else { continue };
        let to = SocketAddr::new(address, guest);
        match socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::spawn(tcp::accept_all(listener, to, Arc::clone(&shared)));
            }
            Socket::Udp(socket) => {
                socket.set_nonblocking(true)?;
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                tokio::spawn(udp::carry_all(socket, to, Arc::clone(&flows)));
            }
        }
    }
    // An end that is not told but dropped is one as well.
    let _ = end.await;
    Ok(())
}

/// Raises the limit on descriptors as far as needed and allowed; how many connections fit.
fn make_room() -> usize {
    let wanted = OTHER_DESCRIPTORS + DESCRIPTORS_EACH * MAX_CONNECTIONS as u64;
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = wanted.min(limit.maximum.unwrap_or(u64::MAX)).max(current);
    let set = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        },
    );
    let available = if set.is_ok() { raised } else { current };
    let connections = available.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_EACH;
    (connections as usize).clamp(1, MAX_CONNECTIONS)
}
