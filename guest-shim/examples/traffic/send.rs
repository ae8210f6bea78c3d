//! Does what a schedule says, and counts what came of it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use guest_shim::net::{Error, Result, TcpStream, UdpSocket};
use guest_shim::prelude::*;
use guest_shim::task;
use guest_shim::time::Instant;

use crate::options::Options;
use crate::schedule::{Profile, Schedule, Step};

/// Steps after which others get a turn, when there is nothing to wait for.
const TURN: u64 = 32;

/// What was sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) bytes: u64,
    sends: u64,
    connections: u64,
    /// What the schedule had until the end.
    due_bytes: u64,
    due_sends: u64,
    /// Steps that could not be done, and why the last could not.
    failed: u64,
    error: Option<Error>,
    /// How late the latest step was.
    latest: Duration,
    time: Duration,
}

/// Where steps go.
enum Way {
    Streams {
        to: SocketAddr,
        open: Option<(u64, TcpStream)>,
    },
    Datagrams {
        to: SocketAddr,
        calls: Vec<UdpSocket>,
    },
}

/// Sends until the time is over.
pub(crate) async fn send(options: &Options) -> Sent {
    let schedule = Schedule::new(options.profile, options.rate_kbit * 1000, options.seed);
    let mut steps = schedule.take_while(|step| step.at < options.time);
    let mut way = Way::new(options);
    let mut sent = Sent::default();
    let buffer: Vec<u8> = (0..=u8::MAX).cycle().take(64 << 10).collect();
    let start = Instant::now();
    for step in steps.by_ref() {
        sent.due(&step);
        match step.at.checked_sub(start.elapsed()) {
            Some(early) => task::sleep(early).await,
            None if sent.due_sends.is_multiple_of(TURN) => task::yield_now().await,
            None => {}
        }
        sent.latest = sent.latest.max(start.elapsed().saturating_sub(step.at));
        let left = options.time.saturating_sub(start.elapsed());
        match task::timeout(left, way.take(&step, &buffer, &mut sent)).await {
            Ok(Ok(())) => sent.sends += 1,
            Ok(Err(error)) => {
                sent.failed += 1;
                sent.error = Some(error);
            }
            Err(_) => break,
        }
    }
    steps.for_each(|step| sent.due(&step));
    sent.time = start.elapsed();
    sent
}

impl Way {
    fn new(options: &Options) -> Self {
        let to = options.to;
        match options.profile {
            Profile::Web | Profile::Bulk => Self::Streams { to, open: None },
            Profile::Voip => Self::Datagrams {
                to,
                calls: Vec::new(),
            },
        }
    }

    async fn take(&mut self, step: &Step, buffer: &[u8], sent: &mut Sent) -> Result<()> {
        match self {
            Self::Streams { to, open } => {
                // Taken out: one that fails, or is left in the middle, is not used again.
                let mut stream = match open.take() {
                    Some((flow, stream)) if flow == step.flow => stream,
                    _ => {
                        let stream = TcpStream::connect(*to).await?;
                        sent.connections += 1;
                        stream
                    }
                };
                let mut left = step.bytes;
                while left > 0 {
                    let written = stream.write(&buffer[..left.min(buffer.len())]).await?;
                    sent.bytes += written as u64;
                    left -= written;
                }
                if step.last {
                    stream.shutdown().await?;
                } else {
                    *open = Some((step.flow, stream));
                }
            }
            Self::Datagrams { to, calls } => {
                let call = step.flow as usize;
                // Calls begin in the order of their numbers, each from a port of its own.
                while calls.len() <= call {
                    calls.push(UdpSocket::bind(SocketAddr::new(unspecified(*to), 0)).await?);
                    sent.connections += 1;
                }
                calls[call].send_to(&buffer[..step.bytes], *to).await?;
                sent.bytes += step.bytes as u64;
            }
        }
        Ok(())
    }
}

impl Sent {
    fn due(&mut self, step: &Step) {
        self.due_bytes += step.bytes as u64;
        self.due_sends += 1;
    }

    fn kbit_per_second(&self) -> f64 {
        let seconds = self.time.as_secs_f64();
        if seconds > 0.0 {
            self.bytes as f64 * 8.0 / 1000.0 / seconds
        } else {
            0.0
        }
    }

    /// The summary for people.
    pub(crate) fn line(&self, options: &Options) -> String {
        let mut line = format!(
            "{} to {}, seed {}: sent {} of {} bytes in {} of {} pieces over {} flows in {:.1} s, \
             {:.0} kbit/s; latest {} ms late, {} failed",
            options.profile.name(),
            options.to,
            options.seed,
            self.bytes,
            self.due_bytes,
            self.sends,
            self.due_sends,
            self.connections,
            self.time.as_secs_f64(),
            self.kbit_per_second(),
            self.latest.as_millis(),
            self.failed,
        );
        if let Some(error) = &self.error {
            line.push_str(&format!(" ({error})"));
        }
        line
    }

    /// The summary for programs.
    pub(crate) fn json(&self, options: &Options) -> String {
        format!(
            "{{\"profile\":\"{}\",\"to\":\"{}\",\"rate_kbit\":{},\"seed\":{},\"due_bytes\":{},\
             \"due_sends\":{},\"sent_bytes\":{},\"sends\":{},\"flows\":{},\"failed\":{},\
             \"latest_ms\":{},\"seconds\":{:.6},\"kbit_per_second\":{:.3}}}",
            options.profile.name(),
            options.to,
            options.rate_kbit,
            options.seed,
            self.due_bytes,
            self.due_sends,
            self.bytes,
            self.sends,
            self.connections,
            self.failed,
            self.latest.as_millis(),
            self.time.as_secs_f64(),
            self.kbit_per_second(),
        )
    }
}

/// Any address of this program's, of the kind that `to` is of.
fn unspecified(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
