//! What a client asks for: the head of an HTTP/1.1 request (RFC 9112), and why one is refused.

use guest_shim::prelude::*;

/// The longest head of a request, in bytes.
pub(crate) const MAX_HEAD: usize = 8 << 10;

/// The most header fields.
const MAX_FIELDS: usize = 64;

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Whether only the head of the answer is wanted.
    pub(crate) head: bool,
    /// What is asked for, without what follows a question mark.
    pub(crate) path: String,
    /// Whether the client wants to ask more on the same connection.
    pub(crate) keep_alive: bool,
    /// Bytes of the request.
    pub(crate) length: usize,
}

/// Why a request is refused. The connection ends then: where the next request would begin is
/// not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is no request.
    BadRequest,
    /// It wants something else than to read.
    MethodNotAllowed,
    /// Its head is too long.
    HeadTooLong,
    /// It has content, and nobody wants any.
    ContentTooLarge,
}

impl Refusal {
    /// The status that says it.
    pub(crate) const fn status(self) -> &'static str {
        match self {
            Self::BadRequest => "400 Bad Request",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::HeadTooLong => "431 Request Header Fields Too Large",
            Self::ContentTooLarge => "413 Content Too Large",
        }
    }
}

/// The first request in `bytes`; `None` if its head has not come whole.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Request>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLong),
        Err(_) => return Err(Refusal::BadRequest),
    };
    let of_name = |name| {
        let named = move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        head.headers.iter().filter(named).map(|field| field.value)
    };
    let newer = head.version == Some(1);
    let hosts = of_name("host").count();
    if hosts > 1 || newer && hosts == 0 {
        return Err(Refusal::BadRequest);
    }
    let is_head = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Refusal::MethodNotAllowed),
    };
    let content = of_name("content-length").any(|length| length != b"0");
    if content || of_name("transfer-encoding").next().is_some() {
        return Err(Refusal::ContentTooLarge);
    }
    let wants = |option: &str| {
        let mut options = of_name("connection").flat_map(|value| value.split(|byte| *byte == b','));
        options.any(|value| value.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    };
    let keep_alive = !wants("close") && (newer || wants("keep-alive"));
    let target = head.path.ok_or(Refusal::BadRequest)?;
    let path = target.split('?').next().unwrap_or(target);
    Ok(Some(Request {
        head: is_head,
        path: path.to_owned(),
        keep_alive,
        length,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(path: &str, keep_alive: bool, length: usize) -> Result<Option<Request>, Refusal> {
        Ok(Some(Request {
            head: false,
            path: path.to_owned(),
            keep_alive,
            length,
        }))
    }

    #[test]
    fn a_request_ends_where_the_next_begins() {
        let two = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(parse(two), get("/a", true, 32));
        assert_eq!(parse(&two[32..]), get("/b", true, 28));
        for end in 0..32 {
            assert_eq!(parse(&two[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn a_connection_is_kept_as_its_client_wants() {
        for (text, keep_alive) in [
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", true),
            (
                "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
                false,
            ),
            (
                "GET / HTTP/1.1\r\nhost: x\r\nconnection: te, Close\r\n\r\n",
                false,
            ),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(
                parse(text.as_bytes()),
                get("/", keep_alive, text.len()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_answered_is_refused_for_its_reason() {
        let long = format!(
            "GET / HTTP/1.1\r\nhost: x\r\nlong: {}",
            "y".repeat(MAX_HEAD)
        );
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_FIELDS + 1)
        );
        for (text, refusal) in [
            ("nonsense\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/2.0\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/1.1\r\n\r\n", Refusal::BadRequest),
            (
                "GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
                Refusal::BadRequest,
            ),
            (
                "PUT / HTTP/1.1\r\nhost: x\r\n\r\n",
                Refusal::MethodNotAllowed,
            ),
            (
                "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n",
                Refusal::ContentTooLarge,
            ),
            (&long, Refusal::HeadTooLong),
            (&many, Refusal::HeadTooLong),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(refusal), "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
