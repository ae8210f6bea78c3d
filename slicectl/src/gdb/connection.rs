//! The connection to gdb: whole packets in one write, and reads that never block.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use gdbstub::conn::Connection;

/// A buffered connection.
#[derive(Debug)]
pub(super) struct GdbConnection {
    stream: TcpStream,
    input: VecDeque<u8>,
    output: Vec<u8>,
}

impl GdbConnection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: VecDeque::new(),
            output: Vec::new(),
        }
    }

    /// A byte that has been received already.
    pub(super) fn pending(&mut self) -> Option<u8> {
        self.input.pop_front()
    }

    /// Receives what is there, when there is something; false if gdb has closed the connection.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        let len = self.stream.read(&mut chunk)?;
        self.input.extend(&chunk[..len]);
        Ok(len > 0)
    }
}

impl AsFd for GdbConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection for GdbConnection {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.output.push(byte);
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        Write::write_all(&mut self.stream, &output)
    }

    fn on_session_start(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)
    }
}
