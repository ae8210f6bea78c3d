//! Connections and those who accept them.

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::time::Duration;

use super::{Error, Result, backend};

/// How a connection is to be, given before it begins.
///
/// ```
/// use guest_shim::net::TcpOptions;
///
/// let bulk = TcpOptions {
///     receive_buffer: 1 << 20,
///     send_buffer: 1 << 20,
///     ..TcpOptions::default()
/// };
/// assert!(bulk.nodelay);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Bytes that can have come and not been read, 64 KiB. What is under way over a long or fast
    /// path fits in here, or the path is not used fully. A desktop leaves it to its kernel.
    pub receive_buffer: usize,
    /// Bytes that can have been written and not been acknowledged, 64 KiB. A desktop leaves it to
    /// its kernel.
    pub send_buffer: usize,
    /// Small segments leave at once, also while others are under way (no Nagle): yes.
    pub nodelay: bool,
    /// How often a silent other end is asked whether it is still there; four questions without an
    /// answer end the connection. Never. A desktop leaves it to its kernel.
    pub keep_alive: Option<Duration>,
    /// Connections of a listener that can wait to be accepted, 128. A desktop leaves it to its
    /// kernel.
    pub backlog: usize,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            receive_buffer: 64 << 10,
            send_buffer: 64 << 10,
            nodelay: true,
            keep_alive: None,
            backlog: 128,
        }
    }
}

/// Accepts connections.
#[derive(Debug)]
pub struct TcpListener(backend::Listener);

impl TcpListener {
    /// Listens on `address`; port 0 stands for any that is free.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        Self::bind_with(address, TcpOptions::default()).await
    }

    /// Listens on `address`, for connections that are as `options` say.
    pub async fn bind_with(address: SocketAddr, options: TcpOptions) -> Result<Self> {
        backend::Listener::bind(address, options).map(Self)
    }

    /// Waits for a connection. Its other end comes with it.
    pub async fn accept(&self) -> Result<(TcpStream, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((TcpStream(Arc::new(stream)), from))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection. When it is dropped, what was written is sent, and then the connection ends.
#[derive(Debug)]
pub struct TcpStream(Arc<backend::Stream>);

impl TcpStream {
    /// Connects to `to`.
    pub async fn connect(to: SocketAddr) -> Result<Self> {
        Self::connect_with(to, TcpOptions::default()).await
    }

    /// Connects to `to`, as `options` say.
    pub async fn connect_with(to: SocketAddr, options: TcpOptions) -> Result<Self> {
        let stream = backend::Stream::connect(to, options).await?;
        Ok(Self(Arc::new(stream)))
    }

    /// Reads what has come, or waits for something. 0 when the other end will send no more.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.read(buffer).await
    }

    /// Fills `buffer`, or fails with [`Error::UnexpectedEnd`].
    pub async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        read_exact(&self.0, buffer).await
    }

    /// Takes bytes to send, as many as there is room for, at least one.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes).await
    }

    /// Takes all of `bytes` to send.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(&self.0, bytes).await
    }

    /// Does nothing: what is written leaves by itself. For code that works on any stream.
    pub async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ends this direction: after what was written the other end sees that nothing more comes.
    pub async fn shutdown(&mut self) -> Result<()> {
        self.0.shutdown()
    }

    /// Ends the connection at once. What was written may be lost, and the other end is told so.
    pub fn abort(self) {
        self.0.abort();
    }

    /// Whether small segments leave at once.
    pub fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        self.0.set_nodelay(nodelay)
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// The address of this end.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Its two directions, to be used at the same time.
    ///
    /// ```no_run
    /// # use guest_shim::net::{Result, TcpStream};
    /// # async fn example(mut stream: TcpStream) -> Result<()> {
    /// let (mut from, mut to) = stream.split();
    /// let mut buffer = [0; 4096];
    /// loop {
    ///     let read = from.read(&mut buffer).await?;
    ///     if read == 0 {
    ///         return Ok(());
    ///     }
    ///     to.write_all(&buffer[..read]).await?;
    /// }
    /// # }
    /// ```
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(&self.0), WriteHalf(&self.0))
    }

    /// Its two directions, each for a task of its own. When the writing half is dropped its
    /// direction ends; when both are the connection does.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        (OwnedReadHalf(Arc::clone(&self.0)), OwnedWriteHalf(self.0))
    }
}

/// The direction of a [`TcpStream`] that comes in.
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a backend::Stream);

/// The direction of a [`TcpStream`] that goes out.
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a backend::Stream);

/// The direction of a [`TcpStream`] that comes in, for a task of its own.
#[derive(Debug)]
pub struct OwnedReadHalf(Arc<backend::Stream>);

/// The direction of a [`TcpStream`] that goes out, for a task of its own.
#[derive(Debug)]
pub struct OwnedWriteHalf(Arc<backend::Stream>);

impl ReadHalf<'_> {
    /// As [`TcpStream::read`].
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.read(buffer).await
    }

    /// As [`TcpStream::read_exact`].
    pub async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        read_exact(self.0, buffer).await
    }
}

impl WriteHalf<'_> {
    /// As [`TcpStream::write`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes).await
    }

    /// As [`TcpStream::write_all`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(self.0, bytes).await
    }

    /// As [`TcpStream::shutdown`].
    pub async fn shutdown(&mut self) -> Result<()> {
        self.0.shutdown()
    }
}

impl OwnedReadHalf {
    /// As [`TcpStream::read`].
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.read(buffer).await
    }

    /// As [`TcpStream::read_exact`].
    pub async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        read_exact(&self.0, buffer).await
    }
}

impl OwnedWriteHalf {
    /// As [`TcpStream::write`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes).await
    }

    /// As [`TcpStream::write_all`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(&self.0, bytes).await
    }

    /// As [`TcpStream::shutdown`].
    pub async fn shutdown(&mut self) -> Result<()> {
        self.0.shutdown()
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        // A connection that has ended already needs no other end.
        let _ = self.0.shutdown();
    }
}

async fn read_exact(stream: &backend::Stream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(Error::UnexpectedEnd),
            read => filled += read,
        }
    }
    Ok(())
}

async fn write_all(stream: &backend::Stream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let written = stream.write(bytes).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}
