//! The protocol, a part of Redis's RESP2: requests are arrays of strings, or words on a line.

use guest_shim::prelude::*;

use crate::log::MAX_VALUE;

/// The most words of a request.
const MAX_WORDS: usize = 1024;

/// The longest line.
const MAX_LINE: usize = 4 << 10;

/// The longest request in all.
const MAX_REQUEST: usize = 2 * MAX_VALUE;

/// A request: its words and the bytes it takes.
pub(crate) type Request<'a> = (Vec<&'a [u8]>, usize);

/// Why what has come is no request. Nothing that follows can be understood.
pub(crate) type Wrong = &'static str;

/// The first request in `bytes`, `None` if it has not come whole.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Request<'_>>, Wrong> {
    let Some((line, mut used)) = line(bytes)? else {
        return Ok(None);
    };
    let Some(count) = line.strip_prefix(b"*") else {
        let words = line.split(u8::is_ascii_whitespace);
        return Ok(Some((
            words.filter(|word| !word.is_empty()).collect(),
            used,
        )));
    };
    let count = number(count).filter(|count| *count <= MAX_WORDS);
    let count = count.ok_or("invalid multibulk length")?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let Some((word, length)) = word(&bytes[used..])? else {
            return if used > MAX_REQUEST {
                Err("too long a request")
            } else {
                Ok(None)
            };
        };
        words.push(word);
        used += length;
        if used > MAX_REQUEST {
            return Err("too long a request");
        }
    }
    Ok(Some((words, used)))
}

/// A word with its length before it, and the bytes that both take.
fn word(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Wrong> {
    let Some((line, used)) = line(bytes)? else {
        return Ok(None);
    };
    let length = line.strip_prefix(b"$").ok_or("expected '$'")?;
    let length = number(length).filter(|length| *length <= MAX_VALUE);
    let length = length.ok_or("invalid bulk length")?;
    let Some(word) = bytes.get(used..used + length + 2) else {
        return Ok(None);
    };
    let word = word
        .strip_suffix(b"\r\n")
        .ok_or("a word is longer than it says")?;
    Ok(Some((word, used + length + 2)))
}

/// The first line without its end, and the bytes it takes.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Wrong> {
    let beginning = &bytes[..bytes.len().min(MAX_LINE)];
    match beginning.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = &bytes[..end];
            Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1)))
        }
        None if bytes.len() >= MAX_LINE => Err("too long a line"),
        None => Ok(None),
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .filter(|_| plain)
}

/// Answers, one after another.
#[derive(Debug, Default)]
pub(crate) struct Replies(pub(crate) Vec<u8>);

impl Replies {
    /// A short word that says that all is well.
    pub(crate) fn simple(&mut self, word: &str) {
        self.0.extend(format!("+{word}\r\n").bytes());
    }

    /// What is wrong, in one line.
    pub(crate) fn error(&mut self, message: &str) {
        self.0.extend(format!("-ERR {message}\r\n").bytes());
    }

    /// A number.
    pub(crate) fn integer(&mut self, number: usize) {
        self.0.extend(format!(":{number}\r\n").bytes());
    }

    /// Any bytes.
    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        self.0.extend(format!("${}\r\n", bytes.len()).bytes());
        self.0.extend(bytes);
        self.0.extend(b"\r\n");
    }

    /// Nothing where something could be.
    pub(crate) fn null(&mut self) {
        self.0.extend(b"$-1\r\n");
    }

    /// The beginning of an array; its `length` elements follow.
    pub(crate) fn array(&mut self, length: usize) {
        self.0.extend(format!("*{length}\r\n").bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(words: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Replies::default();
        bytes.array(words.len());
        words.iter().for_each(|word| bytes.bulk(word));
        bytes.0
    }

    proptest! {
        #[test]
        fn a_request_is_understood_once_it_is_whole(
            words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6),
            rest in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = request(&words);
            let length = bytes.len();
            for end in 0..length {
                prop_assert_eq!(parse(&bytes[..end]), Ok(None));
            }
            bytes.extend(rest);
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(parse(&bytes), Ok(Some((words, length))));
        }

        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn a_line_of_words_is_a_request() {
        let words = [b"set".as_slice(), b"a", b"1"];
        assert_eq!(parse(b"set a  1 \r\n"), Ok(Some((words.to_vec(), 11))));
        assert_eq!(parse(b"\r\n"), Ok(Some((Vec::new(), 2))));
    }

    #[test]
    fn what_promises_too_much_is_refused_at_once() {
        for bytes in [
            "*1025\r\n",
            "*-1\r\n",
            "*+1\r\n",
            "*1\r\n:5\r\n",
            "*1\r\n$65537\r\n",
        ] {
            assert!(parse(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(parse(&[b'a'; MAX_LINE]).is_err());
        let many = [
            b"*1024\r\n".to_vec(),
            request(&vec![vec![0; 60_000]; 3])[4..].to_vec(),
        ];
        assert!(parse(&many.concat()).is_err());
        assert!(parse(b"*1\r\n$1\r\nab\r\n").is_err());
    }
}
