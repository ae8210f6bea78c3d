//! The host's side of a sliver's network: taps in a network namespace of the sliver's own, and a
//! forwarder that carries published ports into it.
//!
//! One thread enters the new namespace, makes the taps, and from then on carries connections: the
//! listening sockets it was given stay in the host's namespace, what it opens itself is in the
//! sliver's. The namespace has no name and is mounted nowhere: it is gone when the last process
//! with a descriptor in it is, however that ended. Of the host's own network nothing changes but
//! the ports that are published, and the [way out](nat) of slivers that have one.

pub mod forward;
pub mod nat;
mod netlink;
mod private;
pub mod publish;
pub mod tap;

pub use private::Card;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::problem::Problem;
use nat::{Public, WayOut};
use publish::Listening;

/// What a sliver's network shall be.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Cards whose taps are made in a namespace of the sliver's own; without any there is none.
    pub cards: Vec<Card>,
    /// Ports of the host that lead to the sliver.
    pub listening: Vec<Listening>,
    /// The sliver's address.
    pub target: Option<IpAddr>,
    /// The way out for cards that lead out.
    pub nat: Option<nat::Wanted>,
}

/// The host's side of a sliver's network, until it is dropped or [`finish`](Network::finish)ed.
#[derive(Debug)]
pub struct Network {
    taps: Vec<(usize, OwnedFd)>,
    namespace: Option<OwnedFd>,
    begin: Option<mpsc::Sender<()>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Duration>>,
    way_out: Option<WayOut>,
}

/// What the thread has made before it carries anything.
#[derive(Debug)]
struct Made {
    taps: Vec<(usize, OwnedFd)>,
    namespace: Option<OwnedFd>,
    link: Option<nat::Link>,
}

impl Network {
    /// Makes namespace and taps. Nothing is carried before [`begin`](Self::begin).
    pub fn set_up(wanted: Wanted) -> Result<Self, Problem> {
        let (made, is_made) = mpsc::channel();
        let (begin, may_begin) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || {
                let carrying = !wanted.listening.is_empty();
                let result = make(&wanted.cards, wanted.nat.as_ref());
                let go_on = result.is_ok() && carrying;
                // Not to have been heard is no reason to go on.
                if made.send(result).is_ok() && go_on && may_begin.recv().is_ok() {
                    forward::run(wanted.listening, wanted.target, ended);
                }
                processor_time()
            })
            .map_err(|error| Problem::new("--net", format!("no thread can be started: {error}")))?;
        let made: Made = is_made
            .recv()
            .unwrap_or_else(|_| Err(Problem::new("--net", "the thread that makes it panicked")))?;
        let mut network = Self {
            taps: made.taps,
            namespace: made.namespace,
            begin: Some(begin),
            end: Some(end),
            thread: Some(thread),
            way_out: None,
        };
        // This thread is still in the host's namespace.
        network.way_out = made.link.map(WayOut::open).transpose()?;
        Ok(network)
    }

    /// What the outside sees of the sliver, if it has a way out.
    pub fn public(&self) -> Option<Public> {
        self.way_out.as_ref().map(|way_out| way_out.public)
    }

    /// The taps, each with the index of its card, until they are [let go](Self::let_go_of_taps).
    pub fn taps(&self) -> Vec<(usize, BorrowedFd<'_>)> {
        let taps = self.taps.iter();
        taps.map(|(index, tap)| (*index, tap.as_fd())).collect()
    }

    /// Closes the taps: from now on they live as long as the monitor that has inherited them.
    pub fn let_go_of_taps(&mut self) {
        self.taps.clear();
    }

    /// The sliver's own namespace, if it has one.
    pub fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.namespace.as_ref().map(AsFd::as_fd)
    }

    /// Begins to carry what comes to the published ports.
    pub fn begin(&mut self) {
        if let Some(begin) = self.begin.take() {
            let _ = begin.send(());
        }
    }

    /// Stops carrying; the processor time that all of it took.
    pub fn finish(mut self) -> Duration {
        self.end_thread()
    }

    fn end_thread(&mut self) -> Duration {
        self.begin.take();
        self.end.take();
        let thread = self.thread.take();
        thread.map_or(Duration::ZERO, |thread| thread.join().unwrap_or_default())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.end_thread();
    }
}

fn make(cards: &[Card], nat: Option<&nat::Wanted>) -> Result<Made, Problem> {
    if cards.is_empty() {
        return Ok(Made {
            taps: Vec::new(),
            namespace: None,
            link: None,
        });
    }
    let outside = match nat {
        Some(wanted) => Some((nat::Outside::here()?, wanted)),
        None => None,
    };
    private::enter_new_namespace()?;
    let taps = cards.iter().map(|card| Ok((card.index, card.make_tap()?)));
    let taps = taps.collect::<Result<_, Problem>>()?;
    let namespace = private::current_namespace()
        .map_err(|error| Problem::new("--net tap", format!("the namespace is lost: {error}")))?;
    let link =
        outside.map(|(outside, wanted)| nat::connect(outside, namespace.as_fd(), wanted, cards));
    Ok(Made {
        taps,
        link: link.transpose()?,
        namespace: Some(namespace),
    })
}

/// Processor time of the calling thread.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// What an error of the kernel means, without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
