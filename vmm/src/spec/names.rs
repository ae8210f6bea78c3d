//! Names of slivers and slices, and lines that people write about themselves.

use serde::Serialize;
use slice_abi::info::NAME_BYTES;

/// Name of a sliver: 1 to 63 of `a-z A-Z 0-9 . _ -`, beginning with a letter or digit, so that it
/// can be a file name anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SliverName(String);

/// Name of a slice, PlanetLab's form: `site_name`, matching `^[a-z0-9.]+_[a-zA-Z0-9_.]+$`, at most
/// 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SliceName(String);

impl SliverName {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let valid = text.len() < NAME_BYTES
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a sliver name: 1 to {} of a-z A-Z 0-9 . _ -, beginning with a \
                 letter or digit",
                NAME_BYTES - 1
            ))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SliceName {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let valid = text.len() < NAME_BYTES
            && text.split_once('_').is_some_and(|(site, rest)| {
                !site.is_empty()
                    && site
                        .chars()
                        .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.'))
                    && !rest.is_empty()
                    && rest
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'))
            });
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a slice name: SITE_NAME, SITE of a-z 0-9 . and NAME of \
                 a-z A-Z 0-9 . _, at most {} bytes",
                NAME_BYTES - 1
            ))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text of one line, not empty, of at most `max` bytes.
pub(super) fn one_line(text: &str, max: usize) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("is empty".to_owned())
    } else if text.len() > max {
        Err(format!("has {} bytes, {max} are allowed", text.len()))
    } else if text.chars().any(char::is_control) {
        Err("contains a control character".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
