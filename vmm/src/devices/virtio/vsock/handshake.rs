//! How a program on the host asks for a port of the guest: `CONNECT PORT\n` on the socket that is
//! shared by all ports, answered with `OK HOST-PORT\n` before the stream begins. Pure.

/// The longest line, its end included.
pub const LONGEST_LINE: usize = 32;

/// What the first bytes of a client say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// It asks for this port, in a line of so many bytes.
    Port {
        /// The port.
        port: u32,
        /// Bytes of the line with its end.
        line: usize,
    },
    /// Its line has not ended yet.
    Incomplete,
    /// Nothing that is understood.
    Nonsense,
}

/// Reads the first bytes of a client.
pub fn parse(bytes: &[u8]) -> Ask {
    let start = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = start.iter().position(|&byte| byte == b'\n') else {
        return if start.len() < LONGEST_LINE {
            Ask::Incomplete
        } else {
            Ask::Nonsense
        };
    };
    let port = start[..end]
        .strip_prefix(b"CONNECT ")
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok());
    match port {
        Some(port) => Ask::Port {
            port,
            line: end + 1,
        },
        None => Ask::Nonsense,
    }
}

/// The answer to a client whose connection the guest has accepted.
pub fn answer(host_port: u32) -> String {
    format!("OK {host_port}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_port_is_understood_and_what_follows_is_left() {
        let line = Ask::Port {
            port: 4294967295,
            line: 19,
        };
        assert_eq!(parse(b"CONNECT 4294967295\nhello"), line);
        assert_eq!(parse(b"CONNECT 0\n"), Ask::Port { port: 0, line: 10 });
    }

    #[test]
    fn a_line_is_waited_for_until_it_is_too_long() {
        for len in 0..LONGEST_LINE {
            assert_eq!(
                parse(&b"CONNECT 1000000000000000000000000"[..len]),
                Ask::Incomplete
            );
        }
        assert_eq!(parse(&[b' '; LONGEST_LINE]), Ask::Nonsense);
        assert_eq!(parse(&[b' '; 1000]), Ask::Nonsense);
    }

    #[test]
    fn anything_else_is_nonsense() {
        let lines = [
            "\n",
            "CONNECT\n",
            "CONNECT \n",
            "CONNECT -1\n",
            "CONNECT +1\n",
            "CONNECT 1 \n",
            "CONNECT 4294967296\n",
            "connect 1\n",
            "CONNECT 1\r\n",
            "CONNECT \u{661}\n",
        ];
        for line in lines {
            assert_eq!(parse(line.as_bytes()), Ask::Nonsense, "{line:?}");
        }
    }
}
