//! `--detach-keys ctrl-]` or `ctrl-a,d`: keys, one after the other, that end a guest's hold of the
//! terminal.

use super::Console;

/// The most keys: nobody remembers more.
const MAX_KEYS: usize = 8;

/// Keys as the bytes that a terminal sends; none if nothing gives the terminal back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::run) struct DetachKeys(Vec<u8>);

/// Reads the flag. It needs a terminal whose keys can be taken.
pub(super) fn read(text: &str, console: &Console, terminal: bool) -> Result<DetachKeys, String> {
    let keys = DetachKeys::parse(text)?;
    if *console != Console::Stdio {
        return Err("needs --console stdio: without it the guest gets no keys".to_owned());
    }
    match terminal {
        true => Ok(keys),
        false => Err("standard input is no terminal".to_owned()),
    }
}

impl Default for DetachKeys {
    /// `ctrl-]`, as telnet and virsh have it.
    fn default() -> Self {
        Self(vec![0x1d])
    }
}

impl DetachKeys {
    /// Reads keys with commas between them, or `none`.
    fn parse(text: &str) -> Result<Self, String> {
        if matches!(text, "" | "none") {
            return Ok(Self(Vec::new()));
        }
        let keys: Vec<u8> = text.split(',').map(key).collect::<Result<_, _>>()?;
        match keys.len() > MAX_KEYS {
            true => Err(format!("has {} keys, {MAX_KEYS} are allowed", keys.len())),
            false => Ok(Self(keys)),
        }
    }

    /// The bytes.
    pub(in crate::run) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How they are told to people: `Ctrl-A D`.
    pub(in crate::run) fn told(&self) -> String {
        let told = |byte: &u8| match byte {
            0..0x20 => format!("Ctrl-{}", char::from(byte + 0x40)),
            other => char::from(*other).to_string(),
        };
        let keys: Vec<String> = self.0.iter().map(told).collect();
        keys.join(" ")
    }
}

fn key(text: &str) -> Result<u8, String> {
    let wrong = || format!("{text:?} is no key such as ctrl-] or d");
    if let &[byte @ b'!'..=b'~'] = text.as_bytes() {
        return Ok(byte);
    }
    let name = text.strip_prefix("ctrl-").ok_or_else(wrong)?;
    match name.as_bytes() {
        // ASCII: a control character is its letter without the two highest bits.
        &[byte @ (b'@'..=b'_' | b'a'..=b'z')] => Ok(byte & 0x1f),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_bytes_that_a_terminal_sends() {
        let bytes = |text| DetachKeys::parse(text).map(|keys| keys.0);
        assert_eq!(bytes("ctrl-]"), Ok(vec![0x1d]));
        assert_eq!(bytes("ctrl-a,d"), Ok(vec![1, b'd']));
        assert_eq!(bytes("ctrl-P,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(bytes("~,."), Ok(b"~.".to_vec()));
        assert_eq!(bytes("none"), Ok(Vec::new()));
        assert_eq!(DetachKeys::parse("ctrl-]"), Ok(DetachKeys::default()));
    }

    #[test]
    fn what_no_terminal_sends_is_no_key() {
        for text in [
            "ctrl-",
            "ctrl-ab",
            "alt-x",
            "ä",
            "a,,b",
            " ",
            "a,b,c,d,e,f,g,h,i",
        ] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn they_are_told_as_people_write_them() {
        assert_eq!(DetachKeys::default().told(), "Ctrl-]");
        assert_eq!(DetachKeys(vec![1, b'd']).told(), "Ctrl-A d");
    }

    #[test]
    fn keys_that_cannot_be_taken_are_refused() {
        assert!(read("ctrl-]", &Console::Stdio, true).is_ok());
        assert!(read("ctrl-]", &Console::Stdio, false).is_err());
        assert!(read("ctrl-]", &Console::Stdout, true).is_err());
    }
}
