//! Streams to the host over the sliver's socket device.

use alloc::boxed::Box;
use core::fmt;
use core::future::poll_fn;

use slice_abi::device::device_id;

use super::device::{self, Registers};
use super::task;
use crate::net::{Error, Result};
use crate::sync::Mutex;
use crate::virtio::vsock::Vsock;
use crate::vsock::mux::Key;

/// The first socket device of the table; it comes up when first used.
fn device() -> Result<&'static Vsock<Registers>> {
    static DEVICE: Mutex<Option<&'static Vsock<Registers>>> = Mutex::new(None);
    let mut device = DEVICE.lock();
    if let Some(device) = *device {
        return Ok(device);
    }
    let found = device::find(device_id::VSOCK).next();
    let found = found.ok_or(Error::Unreachable)?;
    let entry = found.entry;
    let started: &'static Vsock<Registers> = Box::leak(Box::new(Vsock::new(
        found.registers(),
        found.state(),
        entry.features,
        entry.queue_size_max,
    )));
    task::register(started);
    *device = Some(started);
    Ok(started)
}

/// A port that is listened on.
pub(crate) struct Listener {
    device: &'static Vsock<Registers>,
    port: u32,
}

impl Listener {
    pub(crate) fn bind(port: u32) -> Result<Self> {
        let device = device()?;
        device.mux().listen(port)?;
        Ok(Self { device, port })
    }

    pub(crate) async fn accept(&self) -> Result<Stream> {
        let key = poll_fn(|context| self.device.mux().accept(self.port, context)).await;
        Ok(Stream {
            device: self.device,
            key,
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.device.mux().unlisten(self.port);
        task::attend();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.port)
    }
}

/// A connection.
pub(crate) struct Stream {
    device: &'static Vsock<Registers>,
    key: Key,
}

impl Stream {
    pub(crate) async fn connect(port: u32) -> Result<Self> {
        let device = device()?;
        let key = device.mux().connect(port);
        // From here on it is closed if nobody waits for it.
        let stream = Self { device, key };
        poll_fn(|context| device.mux().connected(key, context)).await?;
        Ok(stream)
    }

    pub(crate) async fn read(&self, bytes: &mut [u8]) -> Result<usize> {
        poll_fn(|context| self.device.mux().read(self.key, bytes, context)).await
    }

    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<usize> {
        poll_fn(|context| self.device.mux().write(self.key, bytes, context)).await
    }

    pub(crate) fn shutdown(&self) -> Result<()> {
        self.device.mux().shut_down(self.key)?;
        task::attend();
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.device.mux().close(self.key);
        task::attend();
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?})", self.key)
    }
}
