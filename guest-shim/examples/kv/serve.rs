//! A client's connection: reads requests, answers them in their order.
//!
//! Changes that come together are made together; what is read after a change shows it.

use alloc::sync::Arc;
use core::mem;
use core::time::Duration;

use guest_shim::alloc;
use guest_shim::net::TcpStream;
use guest_shim::prelude::*;
use guest_shim::task;

use crate::log::{Change, Reader};
use crate::resp::{Replies, parse};
use crate::storage::Storage;
use crate::writer::{Outcome, Writer};

/// How long a client may be silent, or not take its answers.
const PATIENCE: Duration = Duration::from_secs(300);

/// Bytes of answers that are gathered before they are sent.
const GATHERED: usize = 64 << 10;

/// Keys of one step of a scan, unless told otherwise.
const SCAN_STEP: usize = 10;

/// The most keys of one step.
const MAX_SCAN_STEP: usize = 1000;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Store<S> {
    pub(crate) reader: Reader<S>,
    pub(crate) writer: Writer,
}

/// A connection.
struct Session<S> {
    store: Arc<Store<S>>,
    stream: TcpStream,
    replies: Replies,
    /// Changes that are asked for and not made yet, and how each request is to be answered.
    changes: Vec<Change>,
    answers: Vec<Answer>,
}

/// How a request that changes something is answered.
enum Answer {
    /// With a word, when the change is made.
    Done,
    /// With how many of this many changes found something.
    Count(usize),
}

/// Whether the connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Close,
}

/// Serves a client until it goes, asks for nonsense or is silent for too long.
pub(crate) async fn serve<S: Storage>(stream: TcpStream, store: Arc<Store<S>>) {
    let mut session = Session {
        store,
        stream,
        replies: Replies::default(),
        changes: Vec::new(),
        answers: Vec::new(),
    };
    // Whatever ends the connection, there is nobody left to tell.
    let _ = session.run().await;
}

/// The client is gone.
struct Gone;

impl<S: Storage> Session<S> {
    async fn run(&mut self) -> Result<(), Gone> {
        let mut input = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = task::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            match read {
                Ok(Ok(read)) if read > 0 => input.extend(&buffer[..read]),
                _ => return Ok(()),
            }
            let next = self.answer_all(&mut input).await?;
            self.make_changes().await;
            self.send().await?;
            if next == Next::Close {
                return Ok(());
            }
        }
    }

    /// Answers all requests that have come whole.
    async fn answer_all(&mut self, input: &mut Vec<u8>) -> Result<Next, Gone> {
        let mut used = 0;
        loop {
            let request = parse(&input[used..]);
            match request {
                Ok(None) => break,
                Ok(Some((words, length))) => {
                    used += length;
                    if self.request(&words).await == Next::Close {
                        return Ok(Next::Close);
                    }
                }
                Err(wrong) => {
                    self.make_changes().await;
                    self.replies.error(&format!("Protocol error: {wrong}"));
                    return Ok(Next::Close);
                }
            }
            if self.replies.0.len() >= GATHERED {
                self.send().await?;
            }
        }
        input.drain(..used);
        Ok(Next::GoOn)
    }

    async fn request(&mut self, words: &[&[u8]]) -> Next {
        let Some((command, args)) = words.split_first() else {
            return Next::GoOn;
        };
        let command = command.to_ascii_uppercase();
        match (command.as_slice(), args) {
            (b"SET", [key, value]) => {
                let (key, value) = (key.to_vec(), value.to_vec());
                self.changes.push(Change::Set { key, value });
                self.answers.push(Answer::Done);
                return Next::GoOn;
            }
            (b"DEL", [_, ..]) => {
                let remove = args.iter().map(|key| Change::Remove { key: key.to_vec() });
                self.changes.extend(remove);
                self.answers.push(Answer::Count(args.len()));
                return Next::GoOn;
            }
            _ => {}
        }
        // What was asked for before comes first.
        self.make_changes().await;
        match (command.as_slice(), args) {
            (b"GET", [key]) => match self.store.reader.get(key).await {
                Ok(Some(value)) => self.replies.bulk(&value),
                Ok(None) => self.replies.null(),
                Err(error) => self.replies.error(&error.to_string()),
            },
            (b"EXISTS", [_, ..]) => {
                let present = args.iter().filter(|key| self.store.reader.has(key));
                self.replies.integer(present.count());
            }
            (b"SCAN", [cursor, options @ ..]) => match scan_step(cursor, options) {
                Some((cursor, count)) => self.scan(cursor, count),
                None => self
                    .replies
                    .error("SCAN takes a cursor and, if you like, COUNT n"),
            },
            (b"DBSIZE", []) => self.replies.integer(self.store.writer.figures().1.keys),
            (b"STATS" | b"INFO", _) => self.replies.bulk(self.stats().as_bytes()),
            (b"PING", []) => self.replies.simple("PONG"),
            (b"PING" | b"ECHO", [word]) => self.replies.bulk(word),
            // What clients ask to offer help.
            (b"COMMAND", _) => self.replies.array(0),
            (b"QUIT", _) => {
                self.replies.simple("OK");
                return Next::Close;
            }
            _ => {
                let command: String = command.escape_ascii().take(40).map(char::from).collect();
                self.replies.error(&format!(
                    "'{command}' is not known or takes other arguments: there are GET, SET, DEL, \
                     EXISTS, SCAN, DBSIZE, STATS, PING, ECHO and QUIT"
                ));
            }
        }
        Next::GoOn
    }

    fn scan(&mut self, cursor: u64, count: usize) {
        let (cursor, keys) = self.store.reader.scan(cursor, count);
        self.replies.array(2);
        self.replies.bulk(cursor.to_string().as_bytes());
        self.replies.array(keys.len());
        keys.iter().for_each(|key| self.replies.bulk(key));
    }

    fn stats(&self) -> String {
        let (counts, usage) = self.store.writer.figures();
        let lines = [
            ("keys", usage.keys as u64),
            ("record_bytes", usage.live),
            ("record_bytes_room", usage.room),
            ("commits", counts.commits),
            ("changes", counts.changes),
            ("compactions", counts.compactions),
        ];
        let lines = lines.map(|(name, figure)| format!("{name}:{figure}\r\n"));
        format!("# kv\r\n{}", lines.concat())
    }

    /// Has the changes made that are asked for, and answers.
    async fn make_changes(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let outcomes = self.store.writer.make(mem::take(&mut self.changes)).await;
        let mut outcomes = outcomes.into_iter();
        for answer in mem::take(&mut self.answers) {
            let count = match answer {
                Answer::Done => 1,
                Answer::Count(count) => count,
            };
            let share: Result<Vec<bool>, _> = outcomes
                .by_ref()
                .take(count)
                .collect::<Vec<Outcome>>()
                .into_iter()
                .collect();
            match (share, answer) {
                (Err(error), _) => self.replies.error(&error.to_string()),
                (Ok(_), Answer::Done) => self.replies.simple("OK"),
                (Ok(found), Answer::Count(_)) => {
                    self.replies
                        .integer(found.into_iter().filter(|found| *found).count());
                }
            }
        }
    }

    async fn send(&mut self) -> Result<(), Gone> {
        let replies = mem::take(&mut self.replies.0);
        let sent = task::timeout(PATIENCE, self.stream.write_all(&replies)).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}

/// Cursor and number of keys of a SCAN.
fn scan_step(cursor: &[u8], options: &[&[u8]]) -> Option<(u64, usize)> {
    let number = |word: &[u8]| core::str::from_utf8(word).ok()?.parse::<u64>().ok();
    let count = match options {
        [] => SCAN_STEP,
        [name, count] if name.eq_ignore_ascii_case(b"COUNT") => {
            (number(count)? as usize).clamp(1, MAX_SCAN_STEP)
        }
        _ => return None,
    };
    Some((number(cursor)?, count))
}
