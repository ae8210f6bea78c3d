//! TCP sockets with their buffers, used again and again.
//!
//! The first touch of memory is dear, so a socket that has ended keeps its buffers and is given to
//! the next connection. What all buffers together take is limited: a flood of connections is
//! turned away before it takes the memory of everything else.

use alloc::vec::Vec;
use core::time::Duration;

use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};

use crate::net::TcpOptions;

/// Sockets that wait for use.
const SPARE: usize = 64;

/// Sockets, spare and limited.
#[derive(Debug)]
pub(super) struct Pool {
    spare: Vec<Socket<'static>>,
    /// Bytes that buffers may still take.
    left: usize,
}

impl Pool {
    /// For sockets whose buffers take at most `memory` bytes.
    pub(super) fn new(memory: usize) -> Self {
        Self {
            spare: Vec::new(),
            left: memory,
        }
    }

    /// A closed socket, or `None` if there is no memory for it.
    pub(super) fn take(&mut self, options: &TcpOptions) -> Option<Socket<'static>> {
        let fits = |socket: &Socket<'_>| {
            socket.recv_capacity() == options.receive_buffer
                && socket.send_capacity() == options.send_buffer
        };
        let mut socket = match self.spare.iter().rposition(fits) {
            Some(index) => self.spare.swap_remove(index),
            None => self.make(options)?,
        };
        socket.set_nagle_enabled(!options.nodelay);
        // The order of polls delays acknowledgements just as long as is useful.
        socket.set_ack_delay(None);
        socket.set_timeout(None);
        socket.set_keep_alive(options.keep_alive.map(micros));
        socket.set_hop_limit(None);
        // A new controller: the old one knows another path.
        socket.set_congestion_control(CongestionControl::Reno);
        Some(socket)
    }

    /// Takes a socket back that is not in use any more.
    pub(super) fn give_back(&mut self, mut socket: Socket<'static>) {
        socket.abort();
        if self.spare.len() < SPARE {
            self.spare.push(socket);
        } else {
            self.left += size(&socket);
        }
    }

    fn make(&mut self, options: &TcpOptions) -> Option<Socket<'static>> {
        let size = options.receive_buffer.checked_add(options.send_buffer)?;
        while self.left < size {
            // Spare ones of other sizes are in the way.
            self.left += self.spare.pop().as_ref().map(self::size)?;
        }
        let receive = buffer(options.receive_buffer)?;
        let send = buffer(options.send_buffer)?;
        self.left -= size;
        Some(Socket::new(receive, send))
    }
}

/// A duration as `smoltcp` has it.
pub(super) fn micros(duration: Duration) -> smoltcp::time::Duration {
    smoltcp::time::Duration::from_micros(duration.as_micros() as u64)
}

fn size(socket: &Socket<'_>) -> usize {
    socket.recv_capacity() + socket.send_capacity()
}

fn buffer(size: usize) -> Option<SocketBuffer<'static>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).ok()?;
    bytes.resize(size, 0);
    Some(SocketBuffer::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kib: usize) -> TcpOptions {
        TcpOptions {
            receive_buffer: kib << 10,
            send_buffer: kib << 10,
            ..TcpOptions::default()
        }
    }

    #[test]
    fn buffers_take_no_more_than_is_allowed() {
        let mut pool = Pool::new(10 << 10);
        let held: Vec<_> = core::iter::from_fn(|| pool.take(&options(1))).collect();
        assert_eq!(held.len(), 5);
        held.into_iter().for_each(|socket| pool.give_back(socket));
        assert!(pool.take(&options(1)).is_some());
    }

    #[test]
    fn spare_buffers_of_another_size_make_room() {
        let mut pool = Pool::new(8 << 10);
        let held: Vec<_> = core::iter::from_fn(|| pool.take(&options(1))).collect();
        held.into_iter().for_each(|socket| pool.give_back(socket));
        let large = pool.take(&options(4));
        assert_eq!(large.map(|socket| socket.recv_capacity()), Some(4 << 10));
        assert!(pool.take(&options(1)).is_none());
    }
}
