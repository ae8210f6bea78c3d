//! Text from elsewhere, made fit for a terminal; columns; hexadecimal digits.

use std::fmt::Write;
use std::path::Path;

/// `text` with control and direction characters escaped: what comes from a file, a guest or
/// another process must neither move the cursor nor start a new line.
pub fn printable(text: &str) -> String {
    vmm::say::shown(text, usize::MAX)
}

/// A path as a word of a shell's command line, for people to copy; still fit for a terminal.
pub fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    printable(&shlex::try_quote(&text).unwrap_or_else(|_| text.clone()))
}

/// At most `max` characters of `text`, marked where something was cut off.
pub fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}

/// Rows in columns two spaces apart, each as wide as its widest cell; the last is not padded.
pub fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            if widths.len() <= i {
                widths.push(0);
            }
            widths[i] = widths[i].max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            if i + 1 == row.len() {
                out.push_str(cell);
            } else {
                let _ = write!(out, "{cell:<width$}  ", width = widths[i]);
            }
        }
        out.push('\n');
    }
    out
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The bytes that hexadecimal digits stand for; `None` if they are not such digits, in pairs.
pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| {
            let high = (pair[0] as char).to_digit(16)?;
            let low = (pair[1] as char).to_digit(16)?;
            Some((high << 4 | low) as u8)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_line_breaks_are_shown_not_sent() {
        assert_eq!(printable("a\x1b[2Jb\n\u{9b}"), r"a\u{1b}[2Jb\n\u{9b}");
        assert_eq!(printable("Grüße <T>"), "Grüße <T>");
        assert_eq!(printable("a\u{202e}b"), r"a\u{202e}b");
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_would_split_it() {
        assert_eq!(shell_word(Path::new("/a/core.1")), "/a/core.1");
        assert_eq!(shell_word(Path::new("my core")), "'my core'");
        assert_eq!(shell_word(Path::new("a\x1b[2J")), r"'a\u{1b}[2J'");
    }

    #[test]
    fn shortening_counts_characters_not_bytes() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöü", 2), "äö...");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["a".to_owned(), "bb".to_owned()],
            vec!["ccc".to_owned(), "d".to_owned()],
        ];
        assert_eq!(columns(&rows), "a    bb\nccc  d\n");
    }

    #[test]
    fn hexadecimal_goes_both_ways_and_refuses_the_rest() {
        assert_eq!(
            from_hex(&to_hex(&[0, 0xab, 0xff])),
            Some(vec![0, 0xab, 0xff])
        );
        assert_eq!(from_hex("AbC"), None);
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("é"), None);
        assert_eq!(from_hex(""), Some(vec![]));
    }
}
