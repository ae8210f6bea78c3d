//! A client of a sliver's control socket, for tests: right requests, and raw bytes for wrong ones.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use vmm::control::proto::{
    Answer, Op, Outcome, PROTOCOL_VERSION, Reply, Request, State, Status, encode_frame, read_frame,
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
        let answer = self.try_ask(op);
        answer.expect("the monitor answers before it closes")
    }

    /// The same of a monitor that may have ended: `None` if it has.
    ///
    /// # Panics
    /// If the reply belongs to another request.
    pub fn try_ask(&mut self, op: Op) -> Option<Result<Answer, String>> {
        let (id, frame) = self.frame(op);
        // A refused write shows in the reply that does not come.
        self.send_raw(&frame);
        let reply = self.reply()?;
        assert_eq!((reply.v, reply.id), (PROTOCOL_VERSION, id));
        Some(match reply.result {
            Outcome::Ok(answer) => Ok(answer),
            Outcome::Error(refusal) => Err(refusal),
        })
    }

    /// Asks without waiting; the request's id.
    ///
    /// # Panics
    /// If the connection fails.
    pub fn send(&mut self, op: Op) -> u64 {
        let (id, frame) = self.frame(op);
        self.stream.write_all(&frame).expect("the request is taken");
        id
    }

    /// Asks several things in one write without waiting; the requests' ids.
    ///
    /// # Panics
    /// If the connection fails.
    pub fn send_together(&mut self, ops: impl IntoIterator<Item = Op>) -> Vec<u64> {
        let (ids, frames): (Vec<_>, Vec<_>) = ops.into_iter().map(|op| self.frame(op)).unzip();
        let sent = self.stream.write_all(&frames.concat());
        sent.expect("the requests are taken");
        ids
    }

    /// Asks several things in one write; the outcomes in the order of the requests.
    ///
    /// # Panics
    /// If the connection fails or one of them is not answered.
    pub fn ask_together(&mut self, ops: impl IntoIterator<Item = Op>) -> Vec<Outcome> {
        let ids = self.send_together(ops);
        let reply = |_: &u64| self.reply().expect("an answer to each");
        let mut replies: Vec<Reply> = ids.iter().map(reply).collect();
        replies.sort_by_key(|reply| reply.id);
        let answered: Vec<u64> = replies.iter().map(|reply| reply.id).collect();
        assert_eq!(answered, ids);
        replies.into_iter().map(|reply| reply.result).collect()
    }

    /// Asks the same very often without waiting for answers, but reading those that come. How
    /// many of the requests were refused; `None` if the monitor closed the connection.
    ///
    /// # Panics
    /// If the monitor neither answers nor closes.
    pub fn flood(&mut self, op: &Op, times: usize) -> Option<usize> {
        const AT_ONCE: usize = 1000;
        let some: Vec<u8> = (0..AT_ONCE)
            .flat_map(|_| self.frame(op.clone()).1)
            .collect();
        let (last, frame) = self.frame(Op::Status);
        let mut to = self.stream.try_clone().expect("a socket is copied");
        let writer = std::thread::spawn(move || {
            let sent = (0..times / AT_ONCE).try_for_each(|_| to.write_all(&some));
            // A refused write shows as the end of the replies.
            sent.and_then(|()| to.write_all(&frame))
        });
        let mut refused = 0;
        let outcome = loop {
            match self.reply() {
                None => break None,
                Some(reply) if reply.id == last => break Some(refused),
                Some(reply) => refused += usize::from(matches!(reply.result, Outcome::Error(_))),
            }
        };
        let _ = writer.join().expect("the writer does not panic");
        outcome
    }

    fn frame(&mut self, op: Op) -> (u64, Vec<u8>) {
        let id = self.next_id;
        self.next_id += 1;
        let request = Request {
            v: PROTOCOL_VERSION,
            id,
            op,
        };
        (id, encode_frame(&request).expect("a request fits a frame"))
    }

    /// The next reply, `None` once the monitor has closed.
    ///
    /// # Panics
    /// If none comes in time or it is malformed.
    pub fn reply(&mut self) -> Option<Reply> {
        match read_frame(&self.stream) {
            Ok(reply) => reply,
            Err(error)
                if matches!(
                    error.kind(),
                    // Closed in the middle of a frame, or with requests unread.
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                None
            }
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
