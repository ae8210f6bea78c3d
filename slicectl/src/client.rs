//! A client of a sliver's control socket.
//!
//! Connecting and asking are bounded in time: a monitor that stands still is reported, not waited
//! for. Waits ([`Op::WaitStop`], [`Op::Step`]) are sent with [`Client::send`] and their replies
//! received when the descriptor is readable.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use vmm::control::proto::{Answer, Op, Outcome, PROTOCOL_VERSION, Reply, Request, Status};
use vmm::control::proto::{read_frame, write_frame};
use vmm::spec::{Limits, LimitsChange};

/// How long a monitor may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a monitor.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    patience: Duration,
    last_id: u64,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection cannot be made or broke.
    #[error("the control socket failed: {0}")]
    Io(io::Error),
    /// No reply came in time.
    #[error("the monitor does not answer")]
    Silent,
    /// The monitor went away.
    #[error("the monitor has closed the connection")]
    Closed,
    /// The monitor will not.
    #[error("the monitor refuses: {0}")]
    Refused(String),
    /// The reply does not fit the request.
    #[error("the monitor's reply makes no sense: {0}")]
    Nonsense(String),
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::InvalidData => Self::Nonsense(error.to_string()),
            _ => Self::Io(error),
        }
    }
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_with_patience(path, PATIENCE)
    }

    /// The same for somebody who waits so long for each answer.
    pub fn connect_with_patience(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        // Without NONBLOCK a monitor that no longer accepts would block the connect for ever.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(io::Error::from)?;
        let address = SocketAddrUnix::new(path).map_err(io::Error::from)?;
        rustix::net::connect(&socket, &address).map_err(io::Error::from)?;
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self {
            stream,
            patience,
            last_id: 0,
        })
    }

    /// Sends a request; its reply will carry the id that this returns.
    pub fn send(&mut self, op: Op) -> Result<u64, ClientError> {
        self.last_id += 1;
        let request = Request {
            v: PROTOCOL_VERSION,
            id: self.last_id,
            op,
        };
        write_frame(&self.stream, &request)?;
        Ok(self.last_id)
    }

    /// Receives the next reply, whatever it belongs to.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        let bounded = Bounded {
            stream: &self.stream,
            until: Instant::now() + self.patience,
        };
        read_frame(bounded)?.ok_or(ClientError::Closed)
    }

    /// Asks and waits for the answer.
    pub fn call(&mut self, op: Op) -> Result<Answer, ClientError> {
        let id = self.send(op)?;
        loop {
            let reply = self.receive()?;
            if reply.id == id {
                return outcome(reply);
            }
        }
    }

    /// Asks for something that has nothing to tell but that it was done.
    pub fn order(&mut self, op: Op) -> Result<(), ClientError> {
        match self.call(op)? {
            Answer::Done => Ok(()),
            other => Err(nonsense(&other)),
        }
    }

    /// Asks how the sliver does.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.call(Op::Status)? {
            Answer::Status(status) => Ok(*status),
            other => Err(nonsense(&other)),
        }
    }

    /// Changes limits; those that are then in force.
    pub fn set_limits(&mut self, change: LimitsChange) -> Result<Limits, ClientError> {
        match self.call(Op::SetLimits(change))? {
            Answer::Limits(limits) => Ok(*limits),
            other => Err(nonsense(&other)),
        }
    }

    /// The process at the other end, whether it answers or not.
    pub fn process(&self) -> Option<i32> {
        let peer = rustix::net::sockopt::socket_peercred(&self.stream).ok()?;
        let pid = peer.pid.as_raw_nonzero().get();
        // One in another process namespace has no number here.
        let known = Path::new("/proc").join(pid.to_string()).is_dir();
        known.then_some(pid)
    }

    /// Waits, at most `time`, until the monitor closes the connection; whether it did.
    pub fn closes_within(&mut self, time: Duration) -> bool {
        self.patience = time;
        matches!(self.receive(), Err(ClientError::Closed))
    }
}

/// Reads up to a moment, however little comes at a time.
struct Bounded<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Read for Bounded<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(bytes)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The answer in a reply.
pub fn outcome(reply: Reply) -> Result<Answer, ClientError> {
    match reply.result {
        Outcome::Ok(answer) => Ok(answer),
        Outcome::Error(why) => Err(ClientError::Refused(why)),
    }
}

/// The error for an answer of another kind than was asked for.
pub fn nonsense(answer: &Answer) -> ClientError {
    let text = format!("{answer:?}");
    ClientError::Nonsense(crate::text::shortened(&text, 80))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn serve(replies: impl FnOnce(Request) -> Vec<Reply> + Send + 'static) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("bound");
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let request = read_frame(&stream).expect("a frame").expect("a request");
            for reply in replies(request) {
                write_frame(&stream, &reply).expect("written");
            }
        });
        dir
    }

    fn reply(id: u64, result: Outcome) -> Reply {
        Reply {
            v: PROTOCOL_VERSION,
            id,
            result,
        }
    }

    #[test]
    fn a_reply_to_something_else_is_passed_over() {
        let dir = serve(|request| {
            vec![
                reply(request.id + 7, Outcome::Error("other".to_owned())),
                reply(request.id, Outcome::Ok(Answer::Done)),
            ]
        });
        let mut client = Client::connect(&dir.path().join("s")).expect("connected");
        client.order(Op::Pause).expect("done");
        assert!(client.closes_within(Duration::from_secs(5)));
    }

    #[test]
    fn a_monitor_that_answers_a_byte_at_a_time_is_silent() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("bound");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let long = 1_000_000_u32.to_le_bytes();
            io::Write::write_all(&mut stream, &long).expect("written");
            while io::Write::write_all(&mut stream, b" ").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let patience = Duration::from_millis(100);
        let client = Client::connect_with_patience(&dir.path().join("s"), patience);
        let result = client.expect("connected").order(Op::Pause);
        assert!(matches!(result, Err(ClientError::Silent)), "{result:?}");
    }

    #[test]
    fn refusals_and_wrong_kinds_of_answers_are_errors() {
        let dir = serve(|request| vec![reply(request.id, Outcome::Error("no".to_owned()))]);
        let mut client = Client::connect(&dir.path().join("s")).expect("connected");
        assert!(matches!(client.order(Op::Pause), Err(ClientError::Refused(why)) if why == "no"));

        let dir = serve(|request| vec![reply(request.id, Outcome::Ok(Answer::Done))]);
        let mut client = Client::connect(&dir.path().join("s")).expect("connected");
        assert!(matches!(client.status(), Err(ClientError::Nonsense(_))));
    }

    #[test]
    fn a_monitor_that_hangs_up_is_told_from_one_that_is_not_there() {
        let dir = serve(|_| Vec::new());
        let mut client = Client::connect(&dir.path().join("s")).expect("connected");
        assert!(matches!(client.status(), Err(ClientError::Closed)));
        assert!(matches!(
            Client::connect(&dir.path().join("absent")),
            Err(ClientError::Io(_))
        ));
    }
}
