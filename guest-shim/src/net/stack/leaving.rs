//! Datagram sockets that nobody holds any more, kept for what they have still to send.

use alloc::collections::VecDeque;
use core::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp;

use crate::time::Instant;

/// Sockets that are kept: each has its buffers still.
const MOST: usize = 16;

/// How long one is kept: longer than it takes to find a neighbour.
const PATIENCE: Duration = Duration::from_secs(3);

/// The sockets of a link that leave, the oldest first, and since when.
#[derive(Debug, Default)]
pub(super) struct Leaving(VecDeque<(SocketHandle, Instant)>);

impl Leaving {
    /// Lets a socket leave, at once if it has nothing to send.
    pub(super) fn add(
        &mut self,
        handle: SocketHandle,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) {
        if sockets.get::<udp::Socket<'_>>(handle).send_queue() == 0 {
            sockets.remove(handle);
            return;
        }
        self.0.push_back((handle, now));
        if self.0.len() > MOST
            && let Some((oldest, _)) = self.0.pop_front()
        {
            sockets.remove(oldest);
        }
    }

    /// Makes way for a new socket at a port: what comes there is not for one that leaves.
    pub(super) fn forget_port(&mut self, port: u16, sockets: &mut SocketSet<'static>) {
        self.forget(sockets, |socket, _| socket.endpoint().port == port);
    }

    /// Forgets those that have sent all, and those that could not for too long.
    pub(super) fn tend(&mut self, sockets: &mut SocketSet<'static>, now: Instant) {
        self.forget(sockets, |socket, since| {
            socket.send_queue() == 0 || now >= since + PATIENCE
        });
    }

    /// When to look at them at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|(_, since)| *since + PATIENCE)
    }

    fn forget(
        &mut self,
        sockets: &mut SocketSet<'static>,
        is_over: impl Fn(&udp::Socket<'_>, Instant) -> bool,
    ) {
        self.0.retain(|&(handle, since)| {
            let over = is_over(sockets.get(handle), since);
            if over {
                sockets.remove(handle);
            }
            !over
        });
    }
}
