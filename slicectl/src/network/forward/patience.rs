//! Connecting to a guest that may not be there yet.
//!
//! A guest boots while the first clients knock already, and a small network stack refuses
//! connections while all its listeners are busy. Both pass: a connection is held and tried again
//! for a while before its client is told that nobody answers.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// How long a client is held before the guest has ever answered.
const WHILE_BOOTING: Duration = Duration::from_secs(15);

/// How long a client is held by a guest that has answered before.
const WHILE_BUSY: Duration = Duration::from_secs(3);

/// How long the first attempt may take. The kernel would repeat a lost request only after a
/// second; a guest is up sooner.
const FIRST_ATTEMPT: Duration = Duration::from_millis(100);

/// The first pause after a refusal, and the longest: each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// How patient to be with a guest.
#[derive(Debug, Default)]
pub(super) struct Patience {
    has_answered: AtomicBool,
}

impl Patience {
    /// Connects, again and again if need be.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let held = match self.has_answered.load(Ordering::Relaxed) {
            true => WHILE_BUSY,
            false => WHILE_BOOTING,
        };
        let deadline = Instant::now() + held;
        let mut attempt = FIRST_ATTEMPT;
        let mut pause = FIRST_PAUSE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match timeout(attempt.min(left), connect_once(to)).await {
                Ok(Ok(stream)) => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    return Ok(stream);
                }
                Ok(Err(error)) => error,
                Err(elapsed) => elapsed.into(),
            };
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            attempt *= 2;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn connect_once(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.connect(to).await
}
