//! A client of the example `kv`, for tests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::tcp;

/// A connection.
#[derive(Debug)]
pub struct Kv(BufReader<TcpStream>);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A word.
    Simple(String),
    /// What is wrong.
    Error(String),
    /// A number.
    Integer(i64),
    /// Bytes, or nothing.
    Bulk(Option<Vec<u8>>),
    /// Several answers.
    Array(Vec<Reply>),
}

impl Kv {
    /// Connects.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        tcp::connect(to).map(Self)
    }

    /// Asks without waiting.
    pub fn send(&mut self, words: &[&[u8]]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(format!("${}\r\n", word.len()).bytes());
            request.extend(*word);
            request.extend(b"\r\n");
        }
        self.0.get_mut().write_all(&request)
    }

    /// The next answer.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line
            .strip_suffix("\r\n")
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let wrong = || io::Error::other(format!("no answer: {line:?}"));
        let (kind, rest) = line.split_at_checked(1).ok_or_else(wrong)?;
        let number = || rest.parse::<i64>().map_err(|_| wrong());
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number()?),
            "$" => Reply::Bulk(match usize::try_from(number()?) {
                Ok(length) => Some(self.bytes(length)?),
                Err(_) => None,
            }),
            "*" => Reply::Array(
                (0..number()?)
                    .map(|_| self.receive())
                    .collect::<Result<_, _>>()?,
            ),
            _ => return Err(wrong()),
        })
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, words: &[&[u8]]) -> io::Result<Reply> {
        self.send(words)?;
        self.receive()
    }

    /// The value of a key.
    ///
    /// # Panics
    /// If the answer is none.
    pub fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        match self.ask(&[b"GET", key]) {
            Ok(Reply::Bulk(value)) => value,
            other => panic!("{}: {other:?}", key.escape_ascii()),
        }
    }

    /// All keys, by a scan in steps.
    ///
    /// # Panics
    /// If an answer is none.
    pub fn keys(&mut self) -> Vec<Vec<u8>> {
        let (mut cursor, mut all) = (b"0".to_vec(), Vec::new());
        loop {
            let reply = self.ask(&[b"SCAN", &cursor, b"COUNT", b"100"]);
            let Ok(Reply::Array(parts)) = reply else {
                panic!("{reply:?}");
            };
            let [Reply::Bulk(Some(next)), Reply::Array(keys)] = parts.as_slice() else {
                panic!("{parts:?}");
            };
            all.extend(keys.iter().filter_map(|key| match key {
                Reply::Bulk(key) => key.clone(),
                _ => None,
            }));
            if next == b"0" {
                return all;
            }
            cursor.clone_from(next);
        }
    }

    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}
