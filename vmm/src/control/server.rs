//! The control thread: takes in the clients of the control socket and has them served, watches the
//! tie, the signals and the time limit.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::desk::Desk;
use super::endings::{Endings, timespec};
use super::post::Post;
use super::proto::{Notice, State, write_frame};
use super::sessions::Sessions;
use crate::exit::Exit;
use crate::machine::Machine;
use crate::machine::native::FOLLOW_EVERY;
use crate::resident;
use crate::sched::seat::Seat;
use crate::spec::SliverSpec;

/// For how long nobody is let in when the system would not let anybody in.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A quiet moment of this length tells that the start is over.
const SETTLE_AFTER: Duration = Duration::from_millis(100);

/// Everything the control thread looks after.
#[derive(Debug)]
pub(crate) struct Server {
    machine: Arc<Machine>,
    desk: Desk,
    post: Post,
    endings: Endings,
    sessions: Sessions,
    settled: bool,
    accept_from: Instant,
    seat: Option<Seat>,
}

impl Server {
    pub(crate) fn new(
        machine: Arc<Machine>,
        spec: SliverSpec,
        started: Instant,
        (post, endings): (Post, Endings),
        seat: Option<Seat>,
    ) -> Self {
        Self {
            seat,
            desk: Desk::new(Arc::clone(&machine), spec, started, &post),
            machine,
            post,
            endings,
            sessions: Sessions::default(),
            settled: false,
            accept_from: started,
        }
    }

    /// Serves until the sliver has ended, then gives back what outlives it.
    pub(crate) fn serve(mut self) -> (Post, Endings) {
        if let Some(tie) = self.endings.tie() {
            let control = self.post.control().to_owned();
            // If nobody is there, the next turn finds out.
            let _ = write_frame(tie, &Notice::Started { control });
        }
        while self.machine.lifecycle.state() != State::Ended {
            if let Err(error) = self.turn() {
                self.machine
                    .end(Exit::error(format!("the control thread failed: {error}")));
            }
        }
        self.sessions.send_answers(&self.desk);
        (self.post, self.endings)
    }

    /// Waits for something to happen and does what follows.
    fn turn(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let timeouts = [
            self.endings.time_left(),
            (!self.settled).then_some(SETTLE_AFTER),
            (self.accept_from > now).then(|| self.accept_from - now),
            self.machine.is_busy().then_some(FOLLOW_EVERY),
        ];
        let ready = self.wait(timeouts.into_iter().flatten().min())?;
        self.machine.follow_host_time();
        if let Some(seat) = &mut self.seat {
            seat.keep(self.machine.governor(), self.machine.uplink());
        }
        if !self.settled && now.elapsed() >= SETTLE_AFTER {
            self.settled = true;
            resident::shed_startup_code();
        }
        if ready.bell {
            self.machine.bell.silence();
        }
        if let Some(exit) = self.endings.due() {
            self.machine.end(exit);
        }
        for index in ready.clients {
            self.sessions.receive(index);
        }
        if ready.listener {
            self.accept();
        }
        self.sessions.serve(&mut self.desk);
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>) -> io::Result<Ready> {
        let listen = if Instant::now() < self.accept_from {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.machine.bell.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.post.listener(), listen),
        ];
        let first_client = fds.len();
        fds.extend(self.sessions.poll_fds());
        fds.extend(self.endings.poll_fds());
        match poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let clients = first_client..first_client + self.sessions.len();
        Ok(Ready {
            bell: is_ready(&fds[0]),
            listener: is_ready(&fds[1]),
            clients: clients
                .filter(|&i| is_ready(&fds[i]))
                .map(|i| i - first_client)
                .collect(),
        })
    }

    /// Takes in a client. Who may connect, the socket's file says.
    fn accept(&mut self) {
        let stream = match self.post.accept() {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                // Most likely no descriptors are left. The listener stays ready: look away.
                self.accept_from = Instant::now() + ACCEPT_AGAIN_AFTER;
                return;
            }
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        self.sessions.add(stream, &mut self.desk);
    }
}

/// What has something to do.
struct Ready {
    bell: bool,
    listener: bool,
    clients: Vec<usize>,
}
