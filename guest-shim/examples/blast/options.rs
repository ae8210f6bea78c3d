//! What is asked for on the command line.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use guest_shim::net::lookup;
use guest_shim::prelude::*;

use crate::flags::{Flags, Wrong};

pub(crate) const USAGE: &str = "\
usage: blast --listen PORT [--mode sink|source|echo]
       blast --connect HOST:PORT [--seconds N] [--rate BITS] [--direction send|receive]
             [--tcp|--udp] [--size BYTES] [--rr]
       blast --disk NAME [--seconds N] [--block BYTES] [--depth N] [--random|--sequential]
             [--read|--write] [--flush-every N]

Moves bytes as fast as it can, or as told, and prints what came of it as JSON.

  --listen PORT      serve whoever connects, over TCP and UDP
  --mode MODE        serve every connection like this, whatever it asks for
  --connect ADDRESS  measure against one that listens
  --disk NAME        measure a disk, by name or serial; --write destroys what is on it
  --seconds N        how long (10)
  --rate BITS        at most so many bits a second; 0: as fast as it goes (0)
  --direction WAY    send to the other end or receive from it (send)
  --size BYTES       bytes that are written or sent at once (65536, datagrams 1200)
  --rr               send one byte and wait for one, again and again
  --block BYTES      bytes of a request (4096)
  --depth N          requests at once (32)
  --flush-every N    a flush after every N writes of each of them (never)
  --think-us N       each of them rests so many microseconds before a request (0)";

/// The longest datagram.
const MAX_DATAGRAM: usize = 65_000;

/// What this program is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    Listen { port: u16, mode: Option<Mode> },
    Connect(Transfer),
    Disk(DiskWork),
}

/// How a connection is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Sink,
    Source,
    Echo,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Send,
    Receive,
}

/// What is moved through the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) peer: &'static str,
    pub(crate) time: Duration,
    pub(crate) rate: u64,
    pub(crate) direction: Direction,
    pub(crate) udp: bool,
    pub(crate) size: usize,
    pub(crate) round_trips: bool,
}

/// What is moved to or from a disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskWork {
    pub(crate) name: &'static str,
    pub(crate) time: Duration,
    pub(crate) block: usize,
    pub(crate) depth: usize,
    pub(crate) random: bool,
    pub(crate) write: bool,
    pub(crate) flush_every: Option<u64>,
    pub(crate) think: Duration,
}

/// All flags, before it is known which of them belong together.
#[derive(Debug, Default)]
struct Given {
    listen: Option<u16>,
    mode: Option<Mode>,
    connect: Option<&'static str>,
    disk: Option<&'static str>,
    seconds: Option<f64>,
    rate: u64,
    receive: bool,
    udp: bool,
    size: Option<usize>,
    round_trips: bool,
    block: Option<usize>,
    depth: Option<usize>,
    random: bool,
    write: bool,
    flush_every: Option<u64>,
    think_us: u64,
}

pub(crate) fn parse() -> Result<Work, Wrong> {
    let mut given = Given::default();
    let mut flags = Flags::of_this_program();
    while let Some(flag) = flags.next() {
        match flag {
            "--listen" => given.listen = Some(flags.value(flag)?),
            "--mode" => given.mode = Some(mode(flags.word(flag)?)?),
            "--connect" => given.connect = Some(flags.word(flag)?),
            "--disk" => given.disk = Some(flags.word(flag)?),
            "--seconds" => given.seconds = Some(flags.value(flag)?),
            "--rate" => given.rate = flags.value(flag)?,
            "--direction" => given.receive = direction(flags.word(flag)?)?,
            "--tcp" => given.udp = false,
            "--udp" => given.udp = true,
            "--size" => given.size = Some(flags.value(flag)?),
            "--rr" => given.round_trips = true,
            "--block" => given.block = Some(flags.value(flag)?),
            "--depth" => given.depth = Some(flags.value(flag)?),
            "--random" => given.random = true,
            "--sequential" => given.random = false,
            "--read" => given.write = false,
            "--write" => given.write = true,
            "--flush-every" => given.flush_every = Some(flags.value(flag)?),
            "--think-us" => given.think_us = flags.value(flag)?,
            _ => return Err(Wrong::unknown(flag)),
        }
    }
    given.work()
}

fn mode(word: &str) -> Result<Mode, Wrong> {
    match word {
        "sink" => Ok(Mode::Sink),
        "source" => Ok(Mode::Source),
        "echo" => Ok(Mode::Echo),
        _ => Err(Wrong::Told(format!(
            "--mode {word}: there are sink, source and echo"
        ))),
    }
}

/// Whether the other end sends.
fn direction(word: &str) -> Result<bool, Wrong> {
    match word {
        "send" => Ok(false),
        "receive" => Ok(true),
        _ => Err(Wrong::Told(format!(
            "--direction {word}: there are send and receive"
        ))),
    }
}

impl Given {
    fn work(self) -> Result<Work, Wrong> {
        let seconds = Duration::try_from_secs_f64(self.seconds.unwrap_or(10.0));
        let time = seconds.map_err(|error| Wrong::Told(format!("--seconds: {error}")))?;
        let flush_every = self.flush_every.filter(|every| *every > 0);
        match (self.listen, self.connect, self.disk) {
            (Some(port), None, None) => Ok(Work::Listen {
                port,
                mode: self.mode,
            }),
            (None, Some(_), None) if self.udp && self.round_trips => {
                Err(Wrong::Told("--rr goes over --tcp".to_owned()))
            }
            (None, Some(peer), None) => Ok(Work::Connect(Transfer {
                peer,
                time,
                rate: self.rate,
                direction: if self.receive {
                    Direction::Receive
                } else {
                    Direction::Send
                },
                udp: self.udp,
                size: self.size()?,
                round_trips: self.round_trips,
            })),
            (None, None, Some(name)) => Ok(Work::Disk(DiskWork {
                name,
                time,
                block: in_range("--block", self.block.unwrap_or(4096), 512, 1 << 20)?,
                depth: in_range("--depth", self.depth.unwrap_or(32), 1, 1024)?,
                random: self.random,
                write: self.write,
                flush_every,
                think: Duration::from_micros(self.think_us),
            })),
            _ => Err(Wrong::Told(
                "one of --listen, --connect and --disk is needed".to_owned(),
            )),
        }
    }

    fn size(&self) -> Result<usize, Wrong> {
        let (usual, max) = if self.udp {
            (1200, MAX_DATAGRAM)
        } else {
            (64 << 10, 1 << 20)
        };
        let min = if self.udp { crate::udp::HEADER } else { 1 };
        in_range("--size", self.size.unwrap_or(usual), min, max)
    }
}

fn in_range(flag: &str, value: usize, min: usize, max: usize) -> Result<usize, Wrong> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(Wrong::Told(format!(
            "{flag} {value}: allowed are {min} to {max}"
        )))
    }
}

impl Transfer {
    /// The address of the other end.
    pub(crate) async fn address(&self) -> Result<SocketAddr, String> {
        if let Ok(address) = self.peer.parse() {
            return Ok(address);
        }
        let wrong = || format!("{:?} is not HOST:PORT", self.peer);
        let (host, port) = self.peer.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let found = lookup(host)
            .await
            .map_err(|error| format!("{host}: {error}"))?;
        let address: IpAddr = found[0];
        Ok(SocketAddr::new(address, port))
    }
}
