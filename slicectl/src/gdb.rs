//! `slicectl run --gdb`: lets gdb debug a sliver, over the control socket of its monitor.
//!
//! One gdb at a time. When it detaches, the sliver runs on and another may connect; when it kills,
//! the sliver ends; when its connection breaks, the sliver stays as it is until the next one comes.

mod arch;
mod breakpoints;
mod connection;
mod session;
mod target;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use vmm::control::proto::Op;

use crate::client::Client;
use crate::problem::Problem;
use crate::report::{note, say};
use crate::text::shell_word;

use session::{Outcome, Session};
use target::SliverTarget;

/// Parses `:1234`, `1234`, `127.0.0.1:1234`, `[::1]:1234` or `localhost:1234`.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("{text:?} is not an address such as :1234 or 127.0.0.1:1234");
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let local = |prefix| text.strip_prefix(prefix);
    let port = local(":").or(local("localhost:")).unwrap_or(text);
    // Names of other hosts are not looked up: that can take long, and one listens here only.
    match port.parse() {
        Ok(port) => Ok(loopback(port)),
        Err(_) => text.parse().map_err(|_| wrong()),
    }
}

/// The server, in a thread of its own.
#[derive(Debug)]
pub struct Server {
    thread: JoinHandle<()>,
    ended: Arc<Ended>,
}

/// How the server hears that the sliver has ended.
#[derive(Debug)]
struct Ended {
    event: OwnedFd,
    status: AtomicU8,
}

impl Ended {
    fn status(&self) -> u8 {
        self.status.load(Ordering::Acquire)
    }
}

impl Server {
    /// Tells gdb that the sliver has ended with this exit code, and ends.
    pub fn finish(self, status: u8) {
        self.ended.status.store(status, Ordering::Release);
        let told = rustix::io::write(&self.ended.event, &1u64.to_ne_bytes());
        if told.is_ok() {
            let _ = self.thread.join();
        }
    }
}

/// Serves gdb on `listener` for the sliver with this control socket, and says how to connect.
pub fn serve(
    listener: &TcpListener,
    control: &Path,
    image: &Path,
    vcpus: usize,
) -> Result<Server, Problem> {
    let what = |error: std::io::Error| Problem::new("gdb", error.to_string());
    let listener = listener.try_clone().map_err(what)?;
    let address = listener.local_addr().map_err(what)?;
    let event = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| what(error.into()))?;
    let ended = Arc::new(Ended {
        event,
        status: AtomicU8::new(0),
    });
    let server = Listening {
        listener,
        control: control.to_owned(),
        vcpus,
        ended: Arc::clone(&ended),
    };
    let thread = std::thread::Builder::new().name("gdb".to_owned());
    let thread = thread.spawn(move || server.run()).map_err(what)?;
    note(format_args!(
        "gdb: waiting on {address}; connect with: gdb {} -ex 'target remote {address}'\n",
        shell_word(image)
    ));
    Ok(Server { thread, ended })
}

struct Listening {
    listener: TcpListener,
    control: PathBuf,
    vcpus: usize,
    ended: Arc<Ended>,
}

impl Listening {
    fn run(self) {
        while self.somebody_comes() {
            let Ok((stream, _)) = self.listener.accept() else {
                continue;
            };
            let mut target = match SliverTarget::attach(&self.control, self.vcpus) {
                Ok(target) => target,
                Err(error) => {
                    say(format!("gdb: {error}"));
                    continue;
                }
            };
            match Session::new(stream, &self.ended).run(&mut target) {
                Ok(Outcome::Detached) => {
                    if let Err(error) = target.release() {
                        say(format!("gdb: cannot let the sliver run on: {error}"));
                    }
                }
                Ok(Outcome::Killed) => stop(&self.control, "killed by gdb"),
                Ok(Outcome::Lost) => {
                    target.forget_breakpoints();
                    say("gdb: the connection is lost; the sliver stays as it is; connect again");
                }
                Ok(Outcome::Ended) => return,
                Err(problem) => say(problem),
            }
        }
    }

    /// Waits for a connection; false when the sliver has ended first.
    fn somebody_comes(&self) -> bool {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.ended.event.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return false,
                Ok(_) => return fds[0].revents().is_empty(),
            }
        }
    }
}

/// Ends the sliver with this control socket.
pub fn stop(control: &Path, reason: &str) {
    let reason = reason.to_owned();
    let stopped = Client::connect(control).and_then(|mut client| client.order(Op::Stop { reason }));
    if let Err(error) = stopped {
        say(format!("gdb: cannot kill the sliver: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_host_is_the_loopback() {
        for text in [":1234", "1234", "127.0.0.1:1234", "localhost:1234"] {
            assert_eq!(
                parse_address(text).map(|a| a.to_string()).as_deref(),
                Ok("127.0.0.1:1234")
            );
        }
        assert_eq!(
            parse_address("[::1]:1").map(|a| a.to_string()).as_deref(),
            Ok("[::1]:1")
        );
        assert!(parse_address("0.0.0.0:1").is_ok_and(|a| !a.ip().is_loopback()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":",
            "host",
            "host:1234",
            ":99999",
            "-1",
            "1.2.3.4",
            "[::1]",
            "::1:99999999",
        ] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
