//! A client's connection: requests in, answers out, in the same order.

use core::time::Duration;

use guest_shim::net::TcpStream;
use guest_shim::prelude::*;
use guest_shim::task;

use crate::request::{Refusal, Request, parse};
use crate::stats::Stats;

/// The page.
const PAGE: &str = include_str!("page.html");

/// How long the client may take to send a request, or to take an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience(pub(crate) Duration);

/// Bytes of answers that are gathered before they are sent.
const GATHERED: usize = 16 << 10;

/// An answer that is not sent yet.
#[derive(Debug, Clone, Copy)]
struct Answer<'a> {
    status: &'a str,
    kind: &'a str,
    body: &'a str,
    /// Whether the client wants only to know what it would get.
    head: bool,
    keep_alive: bool,
}

/// Answers a client until it goes, wants no more, asks for nonsense or takes too long.
pub(crate) async fn serve(mut stream: TcpStream, patience: Patience, stats: &Stats) {
    let mut input = Vec::new();
    let mut buffer = [0; 2048];
    let mut output = Vec::new();
    loop {
        let keep_alive = answer_all(&mut input, &mut output, &mut stream, patience, stats).await;
        if !send(&mut stream, &mut output, patience).await || !keep_alive {
            break;
        }
        // However slowly it comes: a request must be whole when the time is up.
        let request = task::timeout(patience.0, async {
            loop {
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                input.extend(&buffer[..read]);
                if read == 0 || parse(&input) != Ok(None) {
                    return read > 0;
                }
            }
        });
        if request.await != Ok(true) {
            break;
        }
    }
    // What is still under way is read, for a while: a connection that is closed with something
    // unread is reset, and the client might not see its answer.
    if stream.shutdown().await.is_ok() {
        let rest = async { while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
        let _ = task::timeout(Duration::from_secs(1).min(patience.0), rest).await;
    }
}

/// Answers all requests that have come whole. Whether the connection goes on.
async fn answer_all(
    input: &mut Vec<u8>,
    output: &mut Vec<u8>,
    stream: &mut TcpStream,
    patience: Patience,
    stats: &Stats,
) -> bool {
    let mut used = 0;
    let keep_alive = loop {
        match parse(&input[used..]) {
            Ok(None) => break true,
            Ok(Some(request)) => {
                stats.request();
                used += request.length;
                answer(&request, output, stats);
                if !request.keep_alive {
                    break false;
                }
            }
            Err(refusal) => {
                stats.request();
                refuse(refusal, output);
                break false;
            }
        }
        if output.len() >= GATHERED && !send(stream, output, patience).await {
            break false;
        }
    };
    input.drain(..used);
    keep_alive
}

fn answer(request: &Request, output: &mut Vec<u8>, stats: &Stats) {
    let figures;
    let (status, kind, body) = match request.path.as_str() {
        "/" | "/index.html" => ("200 OK", "text/html; charset=utf-8", PAGE),
        "/stats" => {
            figures = stats.to_string();
            ("200 OK", "application/json", figures.as_str())
        }
        _ => ("404 Not Found", "text/plain", "there is nothing here\n"),
    };
    let (head, keep_alive) = (request.head, request.keep_alive);
    let answer = Answer {
        status,
        kind,
        body,
        head,
        keep_alive,
    };
    answer.write(output);
}

fn refuse(refusal: Refusal, output: &mut Vec<u8>) {
    let body = format!("{}\n", refusal.status());
    let answer = Answer {
        status: refusal.status(),
        kind: "text/plain",
        body: &body,
        head: false,
        keep_alive: false,
    };
    answer.write(output);
}

impl Answer<'_> {
    fn write(&self, output: &mut Vec<u8>) {
        let length = self.body.len();
        let connection = if self.keep_alive {
            "keep-alive"
        } else {
            "close"
        };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {length}\r\nAllow: GET, HEAD\r\n\
             Cache-Control: no-cache\r\nConnection: {connection}\r\n\r\n",
            self.status, self.kind
        );
        output.extend(head.bytes());
        if !self.head {
            output.extend(self.body.bytes());
        }
    }
}

/// Sends what is gathered. Whether the client has taken it.
async fn send(stream: &mut TcpStream, output: &mut Vec<u8>, patience: Patience) -> bool {
    let sent = task::timeout(patience.0, stream.write_all(output)).await;
    output.clear();
    sent == Ok(Ok(()))
}
