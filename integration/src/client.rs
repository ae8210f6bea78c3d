//! A client of a sliver's control socket, for tests: right requests, and raw bytes for wrong ones.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use vmm::control::proto::{
    Answer, Op, Outcome, PROTOCOL_VERSION, Reply, Request, State, Status, read_frame, write_frame,
};

/// How long an answer may take: long enough for a busy machine, short enough to see a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    next_id: u64,
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, next_id: 1 })
    }

    /// Asks and waits for the answer: the monitor's, or its refusal.
    ///
    /// # Panics
    /// If the connection fails or the reply belongs to another request.
    pub fn ask(&mut self, op: Op) -> Result<Answer, String> {
        let id = self.send(op);
        let reply = self.reply().expect("the monitor answers before it closes");
        assert_eq!((reply.v, reply.id), (PROTOCOL_VERSION, id));
        match reply.result {
            Outcome::Ok(answer) => Ok(answer),
            Outcome::Error(refusal) => Err(refusal),
        }
    }

    /// Asks without waiting; the request's id.
    ///
    /// # Panics
    /// If the connection fails.
    pub fn send(&mut self, op: Op) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let request = Request {
            v: PROTOCOL_VERSION,
            id,
            op,
        };
        write_frame(&self.stream, &request).expect("the request is taken");
        id
    }

    /// The next reply, `None` once the monitor has closed.
    ///
    /// # Panics
    /// If none comes in time or it is malformed.
    pub fn reply(&mut self) -> Option<Reply> {
        match read_frame(&self.stream) {
            Ok(reply) => reply,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no reply: {error}"),
        }
    }

    /// Sends bytes as they are. A monitor that has already closed is no error here.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        // A refused write shows in what the test reads next.
        let _ = self.stream.write_all(bytes);
    }

    /// Sends one frame with this body, whatever it says.
    pub fn send_body(&mut self, body: &str) {
        self.send_raw(&(body.len() as u32).to_le_bytes());
        self.send_raw(body.as_bytes());
    }

    /// The sliver's state and figures.
    ///
    /// # Panics
    /// If the monitor refuses.
    pub fn status(&mut self) -> Status {
        match self.ask(Op::Status) {
            Ok(Answer::Status(status)) => *status,
            other => panic!("asked for the status, got {other:?}"),
        }
    }

    /// Waits until the sliver is in `state`.
    ///
    /// # Panics
    /// If it does not get there in time.
    pub fn wait_for(&mut self, state: State) {
        let deadline = Instant::now() + PATIENCE;
        while self.status().state != state {
            assert!(Instant::now() < deadline, "the sliver never was {state:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
