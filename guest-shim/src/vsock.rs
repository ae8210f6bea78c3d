//! Streams between this sliver and its host, without any network: a port is all the address there
//! is.
//!
//! ```no_run
//! use guest_shim::task;
//! use guest_shim::vsock::{VsockListener, VsockStream};
//!
//! task::block_on(async {
//!     let mut log = VsockStream::connect(514).await?;
//!     log.write_all(b"started\n").await?;
//!
//!     let mut listener = VsockListener::bind(7).await?;
//!     loop {
//!         let mut stream = listener.accept().await?;
//!         task::spawn(async move {
//!             let mut bytes = [0; 4096];
//!             while let Ok(count @ 1..) = stream.read(&mut bytes).await {
//!                 if stream.write_all(&bytes[..count]).await.is_err() {
//!                     break;
//!                 }
//!             }
//!         });
//!     }
//!     # #[allow(unreachable_code)]
//!     # Ok::<(), guest_shim::net::Error>(())
//! })
//! # .unwrap();
//! ```
//!
//! On a desktop the directory `SLICE_VSOCK_DIR` stands for the host, as it does on the host of a
//! slice: a program that listens on its socket `PORT.sock` is reached by a connect to that port, and
//! one that connects to its socket `guest.sock`, writes `CONNECT PORT` and a line end, and reads
//! `OK` and a number, has reached who listens here.

#[cfg(any(test, not(feature = "desktop")))]
pub(crate) mod mux;
#[cfg(any(test, not(feature = "desktop")))]
pub(crate) mod wire;

use crate::backend::vsock as backend;
use crate::net::{Error, Result};

/// Takes connections that programs on the host make to a port.
#[derive(Debug)]
pub struct VsockListener {
    backend: backend::Listener,
    port: u32,
}

impl VsockListener {
    /// Listens on `port` until it is dropped.
    pub async fn bind(port: u32) -> Result<Self> {
        let backend = backend::Listener::bind(port)?;
        Ok(Self { backend, port })
    }

    /// The next connection.
    pub async fn accept(&mut self) -> Result<VsockStream> {
        self.backend.accept().await.map(VsockStream)
    }

    /// The port it listens on.
    pub fn port(&self) -> u32 {
        self.port
    }
}

/// A connection. Dropping it closes it, after what was written has been sent.
#[derive(Debug)]
pub struct VsockStream(backend::Stream);

impl VsockStream {
    /// Connects to who listens on `port` of the host.
    pub async fn connect(port: u32) -> Result<Self> {
        backend::Stream::connect(port).await.map(Self)
    }

    /// Reads what has come, at least one byte; 0 when the other end sends no more.
    pub async fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.0.read(bytes).await
    }

    /// Fills `bytes`.
    pub async fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.0.read(&mut bytes[filled..]).await? {
                0 => return Err(Error::UnexpectedEnd),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Sends some of `bytes`, at least one; how many.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes).await
    }

    /// Sends all of `bytes`.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(&self.0, bytes).await
    }

    /// Tells the other end that nothing more will be sent. Reading goes on.
    pub async fn shutdown(&mut self) -> Result<()> {
        self.0.shutdown()
    }

    /// Both directions, to be used at the same time.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(&self.0), WriteHalf(&self.0))
    }
}

/// The incoming direction of a [`VsockStream`].
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a backend::Stream);

impl ReadHalf<'_> {
    /// As [`VsockStream::read`].
    pub async fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.0.read(bytes).await
    }
}

/// The outgoing direction of a [`VsockStream`].
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a backend::Stream);

impl WriteHalf<'_> {
    /// As [`VsockStream::write_all`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(self.0, bytes).await
    }

    /// As [`VsockStream::shutdown`].
    pub async fn shutdown(&mut self) -> Result<()> {
        self.0.shutdown()
    }
}

async fn write_all(stream: &backend::Stream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let count = stream.write(bytes).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}
