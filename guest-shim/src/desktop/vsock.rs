//! The host of a slice, played by a directory of unix sockets: `SLICE_VSOCK_DIR`.

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::fs;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_io::Async;

use crate::net::{Error, Result};
use crate::task::{self, timeout};

/// Time that somebody who connects has to say where to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longer than any `CONNECT PORT`.
const LINE_MAX: usize = 32;

/// Who listens, and whether the socket that leads to them is open.
static PORTS: Mutex<Ports> = Mutex::new(Ports {
    open: false,
    listeners: BTreeMap::new(),
});

struct Ports {
    open: bool,
    listeners: BTreeMap<u32, Arrivals>,
}

#[derive(Default)]
struct Arrivals {
    streams: VecDeque<Stream>,
    waiter: Option<Waker>,
}

fn ports() -> MutexGuard<'static, Ports> {
    PORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn directory() -> Result<PathBuf> {
    let path = env::var_os("SLICE_VSOCK_DIR").ok_or(Error::Unreachable)?;
    Ok(path.into())
}

/// A port that is listened on.
#[derive(Debug)]
pub(crate) struct Listener(u32);

impl Listener {
    pub(crate) fn bind(port: u32) -> Result<Self> {
        Self::bind_in(directory, port)
    }

    fn bind_in(directory: impl FnOnce() -> Result<PathBuf>, port: u32) -> Result<Self> {
        let mut ports = ports();
        if ports.listeners.contains_key(&port) {
            return Err(Error::AddressInUse);
        }
        if !ports.open {
            let path = directory()?.join("guest.sock");
            // One that an earlier process has left.
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error.into());
            }
            let socket = Async::new(UnixListener::bind(path)?)?;
            drop(task::spawn(welcome(socket)));
            ports.open = true;
        }
        ports.listeners.insert(port, Arrivals::default());
        Ok(Self(port))
    }

    pub(crate) async fn accept(&self) -> Result<Stream> {
        poll_fn(|context| {
            let mut ports = ports();
            let Some(arrivals) = ports.listeners.get_mut(&self.0) else {
                return Poll::Ready(Err(Error::Closed));
            };
            if let Some(stream) = arrivals.streams.pop_front() {
                return Poll::Ready(Ok(stream));
            }
            arrivals.waiter = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        ports().listeners.remove(&self.0);
    }
}

/// Lets in whoever connects, each at its own pace.
async fn welcome(socket: Async<UnixListener>) {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => drop(task::spawn(timeout(PATIENCE, introduce(stream)))),
            // Too many files are open, most likely: some will be closed.
            Err(_) => task::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Learns where somebody wants to, and leads them there.
async fn introduce(stream: Async<UnixStream>) -> Option<()> {
    static COUNT: AtomicU32 = AtomicU32::new(1 << 30);
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        let count = stream.read_with(|mut stream| stream.read(&mut byte));
        if count.await.ok()? == 0 || line.len() == LINE_MAX {
            return None;
        }
        line.push(byte[0]);
    }
    let line = str::from_utf8(&line).ok()?;
    let port = line.strip_prefix("CONNECT ")?.trim_end().parse().ok()?;
    if !ports().listeners.contains_key(&port) {
        return None;
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let answer = format!("OK {number}\n");
    let written = stream.write_with(|mut stream| stream.write(answer.as_bytes()));
    if written.await.ok()? != answer.len() {
        return None;
    }
    let mut ports = ports();
    let arrivals = ports.listeners.get_mut(&port)?;
    arrivals.streams.push_back(Stream(stream));
    arrivals.waiter.take()?.wake();
    Some(())
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Stream(Async<UnixStream>);

impl Stream {
    pub(crate) async fn connect(port: u32) -> Result<Self> {
        Self::connect_in(directory()?, port).await
    }

    async fn connect_in(directory: PathBuf, port: u32) -> Result<Self> {
        let path = directory.join(format!("{port}.sock"));
        match Async::<UnixStream>::connect(path).await {
            Ok(stream) => Ok(Self(stream)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::ConnectionRefused),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn read(&self, bytes: &mut [u8]) -> Result<usize> {
        Ok(self.0.read_with(|mut stream| stream.read(bytes)).await?)
    }

    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<usize> {
        Ok(self.0.write_with(|mut stream| stream.write(bytes)).await?)
    }

    pub(crate) fn shutdown(&self) -> Result<()> {
        Ok(self.0.get_ref().shutdown(Shutdown::Write)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn a_directory_leads_both_ways() {
        let name = format!("guest-shim-vsock-{}", std::process::id());
        let directory = env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let at = || Ok(directory.clone());
        task::block_on(async {
            // From the guest to the host.
            let refused = Stream::connect_in(directory.clone(), 9).await;
            assert_eq!(refused.unwrap_err(), Error::ConnectionRefused);
            let host = UnixListener::bind(directory.join("9.sock")).unwrap();
            let guest = Stream::connect_in(directory.clone(), 9).await.unwrap();
            assert_eq!(guest.write(b"hello").await, Ok(5));
            guest.shutdown().unwrap();
            let mut heard = String::new();
            let (mut stream, _) = host.accept().unwrap();
            stream.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "hello");
            // From the host to the guest.
            let listener = Listener::bind_in(at, 7).unwrap();
            assert_eq!(Listener::bind_in(at, 7).unwrap_err(), Error::AddressInUse);
            let path = directory.join("guest.sock");
            let host = std::thread::spawn(move || {
                let mut nowhere = UnixStream::connect(&path).unwrap();
                nowhere.write_all(b"CONNECT 8\n").unwrap();
                assert_eq!(nowhere.read(&mut [0]).unwrap(), 0);
                let mut stream = UnixStream::connect(&path).unwrap();
                stream.write_all(b"CONNECT 7\nhello").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = String::new();
                BufReader::new(stream).read_line(&mut answer).unwrap();
                answer
            });
            let stream = listener.accept().await.unwrap();
            let mut bytes = [0; 10];
            assert_eq!(stream.read(&mut bytes).await, Ok(5));
            assert_eq!(bytes[..5], *b"hello");
            assert!(host.join().unwrap().starts_with("OK "));
        });
        fs::remove_dir_all(&directory).unwrap();
    }
}
