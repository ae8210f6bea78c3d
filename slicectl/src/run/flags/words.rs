//! Values made of words between commas: `tap=t0,addr=10.0.0.2/24,dhcp`.

/// One of the words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// What is before the equals sign, or all of it.
    pub(super) key: String,
    /// What is behind the equals sign, if there is one.
    pub(super) value: Option<String>,
}

/// Splits text at its commas; two of them together stand for one that does not split.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words
}

impl Word {
    /// Reads one word.
    pub(super) fn read(text: &str) -> Self {
        match text.split_once('=') {
            Some((key, value)) => Self {
                key: key.to_owned(),
                value: Some(value.to_owned()),
            },
            None => Self {
                key: text.to_owned(),
                value: None,
            },
        }
    }

    /// The value, which this word must have.
    pub(super) fn wanted(&self, example: &str) -> Result<&str, String> {
        let value = self.value.as_deref().filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("{} needs a value, such as {}={example}", self.key, self.key))
    }

    /// Refuses a value.
    pub(super) fn bare(&self) -> Result<(), String> {
        match &self.value {
            None => Ok(()),
            Some(_) => Err(format!("{} takes no value", self.key)),
        }
    }
}
