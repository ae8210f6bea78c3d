//! One client's connection to the control socket: bytes in, whole frames out, and back.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::PollFlags;
use serde_json::Value;

use super::proto::{PROTOCOL_VERSION, Reply, Request, encode_frame, frame_length};
use super::sessions::Standing;

/// Unsent answers of one client, in bytes, beyond which nothing more is taken from it: who does not
/// read the answers has to wait with its questions.
const ENOUGH_UNSENT: usize = 64 << 10;

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    /// Its number among all clients there have been.
    pub(super) number: u64,
    /// When it last sent something.
    pub(super) last_heard: Instant,
    /// The connection.
    pub(super) stream: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// What it is beside one that asks.
    pub(super) standing: Standing,
    /// Whether the connection is over.
    pub(super) gone: bool,
}

impl Client {
    /// A client that has just connected over a non-blocking stream.
    pub(super) fn new(number: u64, stream: UnixStream) -> Self {
        Self {
            number,
            last_heard: Instant::now(),
            stream,
            received: Vec::new(),
            unsent: Vec::new(),
            standing: Standing::default(),
            gone: false,
        }
    }

    /// What to wait for on its connection.
    pub(super) fn interest(&self) -> PollFlags {
        if self.unsent.is_empty() {
            PollFlags::IN
        } else if self.is_congested() {
            PollFlags::OUT
        } else {
            PollFlags::IN | PollFlags::OUT
        }
    }

    fn is_congested(&self) -> bool {
        self.unsent.len() > ENOUGH_UNSENT
    }

    /// Takes in what the client has sent.
    pub(super) fn receive(&mut self) {
        if self.is_congested() {
            return;
        }
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.gone = true,
                Ok(n) => {
                    self.last_heard = Instant::now();
                    self.received.extend_from_slice(&buffer[..n]);
                    // One buffer a turn: a client that sends without end gets its share only.
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.gone = true,
            }
            return;
        }
    }

    /// Whether [`next_frame`](Self::next_frame) has something to give, or to say.
    pub(super) fn has_frame(&self) -> bool {
        let Some(head) = self.received.first_chunk::<4>() else {
            return false;
        };
        let whole = frame_length(*head).map_or(0, |len| 4 + len);
        !self.gone && !self.is_congested() && self.received.len() >= whole
    }

    /// The next whole frame's body. A frame that is too long ends the connection: what follows it
    /// could not be understood.
    pub(super) fn next_frame(&mut self) -> Option<Vec<u8>> {
        if self.is_congested() {
            return None;
        }
        let head = <[u8; 4]>::try_from(self.received.get(..4)?).ok()?;
        let Ok(len) = frame_length(head) else {
            self.gone = true;
            return None;
        };
        let body = self.received.get(4..4 + len)?.to_vec();
        self.received.drain(..4 + len);
        Some(body)
    }

    /// Puts a reply behind those that wait to be sent.
    pub(super) fn queue(&mut self, reply: &Reply) {
        match encode_frame(reply) {
            Ok(frame) => self.unsent.extend(frame),
            Err(_) => self.gone = true,
        }
    }

    /// Sends as much as the client takes.
    pub(super) fn send(&mut self) {
        while !self.unsent.is_empty() && !self.gone {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
        }
    }
}

/// A request, or the id to answer and what is wrong. The version is looked at first: a request of
/// another version may look different otherwise.
pub(super) fn parse(frame: &[u8]) -> Result<Request, (u64, String)> {
    let value: Value =
        serde_json::from_slice(frame).map_err(|e| (0, format!("the request is not JSON: {e}")))?;
    let id = value.get("id").and_then(Value::as_u64).unwrap_or(0);
    match value.get("v").and_then(Value::as_u64) {
        Some(version) if version == u64::from(PROTOCOL_VERSION) => {}
        Some(version) => {
            let problem = format!(
                "the request has protocol version {version}, this monitor speaks {PROTOCOL_VERSION}"
            );
            return Err((id, problem));
        }
        None => return Err((id, "the request has no protocol version `v`".to_owned())),
    }
    serde_json::from_value(value).map_err(|e| (id, format!("the request is not understood: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::Op;

    #[test]
    fn requests_that_are_not_understood_are_told_why() {
        for (text, id, says) in [
            ("", 0, "not JSON"),
            ("[]", 0, "no protocol version"),
            (r#"{"v":2,"id":7,"op":"status"}"#, 7, "version 2"),
            (r#"{"v":1,"id":8,"op":"fly"}"#, 8, "not understood"),
            (r#"{"v":1,"id":9,"op":"step"}"#, 9, "not understood"),
        ] {
            let (told_id, problem) = parse(text.as_bytes()).unwrap_err();
            assert_eq!(told_id, id, "{text}");
            assert!(problem.contains(says), "{text}: {problem}");
        }
        assert_eq!(
            parse(br#"{"v":1,"id":3,"op":"pause"}"#).unwrap().op,
            Op::Pause
        );
    }
}
