//! A client of HTTP/1.1 for tests: what is sent is the test's, what comes back is checked.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::tcp;

/// A connection.
#[derive(Debug)]
pub struct Http(BufReader<TcpStream>);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// Its content.
    pub body: Vec<u8>,
}

impl Http {
    /// Connects.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        tcp::connect(to).map(Self)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Asks for a path and waits for the answer.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())?;
        self.receive(true)
    }

    /// The next answer; `with_body` says whether its content follows, which it does not after a
    /// HEAD.
    pub fn receive(&mut self, with_body: bool) -> io::Result<Answer> {
        let first = self.line()?;
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer: {first:?}")))?;
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let wrong = || io::Error::other(format!("no header field: {line:?}"));
            let (name, value) = line.split_once(": ").ok_or_else(wrong)?;
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Answer {
            status,
            fields,
            body: Vec::new(),
        };
        if with_body {
            let length = answer
                .field("content-length")
                .and_then(|length| length.parse().ok());
            let length: usize = length.ok_or_else(|| io::Error::other("no length"))?;
            answer.body.resize(length, 0);
            self.0.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }

    /// Whether the other end has ended the connection, after waiting for it to.
    pub fn is_at_end(&mut self) -> bool {
        matches!(self.0.fill_buf(), Ok([]))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line
            .strip_suffix("\r\n")
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(line.to_owned())
    }
}

impl Answer {
    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(of, _)| of == name)
            .map(|(_, value)| value.as_str())
    }
}
