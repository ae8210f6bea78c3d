//! Reads a JSON object field by field and collects every mistake on the way.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::say::shown;

use super::{MAX_SPEC_BYTES, Mistake, SpecError};

/// Mistakes that are told one by one.
const MAX_MISTAKES: usize = 32;

/// Bytes of a field's name or of a problem that are shown, about.
const MAX_SHOWN: usize = 300;

pub(crate) struct Fields {
    /// Where the object is in the document: empty, or such as `disks[1].`.
    path: String,
    object: Map<String, Value>,
    known: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
}

impl Fields {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, SpecError> {
        let whole = |problem: String| SpecError {
            mistakes: vec![Mistake {
                field: "spec".to_owned(),
                problem,
            }],
        };
        if text.len() > MAX_SPEC_BYTES {
            return Err(whole(format!("has more than {MAX_SPEC_BYTES} bytes")));
        }
        match serde_json::from_slice(text) {
            Ok(Value::Object(object)) => Ok(Self::of(String::new(), object)),
            Ok(other) => Err(whole(format!("is {}, not an object", kind(&other)))),
            Err(error) => Err(whole(format!("is not JSON: {error}"))),
        }
    }

    fn of(path: String, object: Map<String, Value>) -> Self {
        Self {
            path,
            object,
            known: BTreeSet::new(),
            mistakes: Vec::new(),
        }
    }

    /// Notes a mistake. What a document holds is shown in one line and cut: it may be anything.
    pub(crate) fn mistake(&mut self, field: &str, problem: String) {
        self.mistakes.push(Mistake {
            field: shown(&format!("{}{field}", self.path), MAX_SHOWN),
            problem: shown(&problem, MAX_SHOWN),
        });
    }

    /// Ends reading: what is left over is a mistake, too.
    pub(crate) fn finish(mut self) -> Vec<Mistake> {
        self.refuse_others();
        if self.mistakes.len() > MAX_MISTAKES {
            let more = self.mistakes.len() - MAX_MISTAKES;
            self.mistakes.truncate(MAX_MISTAKES);
            self.mistake("spec", format!("has {more} more mistakes"));
        }
        self.mistakes
    }

    fn refuse_others(&mut self) {
        let known = &self.known;
        let mut others: Vec<String> = self.object.keys().cloned().collect();
        others.retain(|key| !known.contains(key.as_str()));
        for key in others {
            self.mistake(&key, "is not a known field".to_owned());
        }
    }

    /// Has `read` read the object that is this field's value, if there is one.
    pub(crate) fn object<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let value = self.get(field)?;
        self.part(field, value, read)
    }

    /// Has `read` read each of the objects in the list that is this field's value. Objects that are
    /// none, or wrong, are left out; of a list with more than `max`, the rest is not looked at.
    pub(crate) fn objects<T>(
        &mut self,
        field: &'static str,
        max: usize,
        mut read: impl FnMut(&mut Self, usize) -> Option<T>,
    ) -> Vec<T> {
        let list = match self.get(field) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => {
                self.wrong_type(field, "a list of objects", &other);
                return Vec::new();
            }
        };
        if list.len() > max {
            self.mistake(field, format!("has {}, {max} are allowed", list.len()));
        }
        let mut parts = Vec::with_capacity(list.len().min(max));
        for (i, item) in list.into_iter().take(max).enumerate() {
            let part = self.part(&format!("{field}[{i}]"), item, |part| read(part, i));
            parts.extend(part.flatten());
        }
        parts
    }

    fn part<T>(
        &mut self,
        field: &str,
        value: Value,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let Value::Object(object) = value else {
            self.wrong_type(field, "an object", &value);
            return None;
        };
        let mut part = Self::of(format!("{}{field}.", self.path), object);
        let read = read(&mut part);
        part.refuse_others();
        self.mistakes.append(&mut part.mistakes);
        Some(read)
    }

    fn get(&mut self, field: &'static str) -> Option<Value> {
        self.known.insert(field);
        match self.object.get(field) {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.clone()),
        }
    }

    fn required(&mut self, field: &'static str) -> Option<Value> {
        let value = self.get(field);
        if value.is_none() {
            self.mistake(field, "is missing".to_owned());
        }
        value
    }

    fn wrong_type(&mut self, field: &str, wanted: &str, value: &Value) {
        self.mistake(field, format!("is {}, not {wanted}", kind(value)));
    }

    pub(crate) fn required_u64(&mut self, field: &'static str) -> Option<u64> {
        let value = self.required(field)?;
        self.as_u64(field, &value)
    }

    fn as_u64(&mut self, field: &'static str, value: &Value) -> Option<u64> {
        let number = value.as_u64();
        if number.is_none() {
            self.wrong_type(field, "a whole number of at least 0", value);
        }
        number
    }

    pub(crate) fn required_parsed<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.required(field)?;
        self.parsed(field, &value, parse)
    }

    pub(crate) fn optional_parsed<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.get(field)?;
        self.parsed(field, &value, parse)
    }

    fn parsed<T>(
        &mut self,
        field: &str,
        value: &Value,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value.as_str() else {
            self.wrong_type(field, "a string", value);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.mistake(field, problem);
                None
            }
        }
    }

    pub(crate) fn optional_u64(&mut self, field: &'static str) -> Option<u64> {
        let value = self.get(field)?;
        self.as_u64(field, &value)
    }

    /// What `read` makes of the field's value, which is to be what `wanted` says.
    pub(crate) fn optional_with<T>(
        &mut self,
        field: &'static str,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(field)?;
        let read = read(&value);
        if read.is_none() {
            self.wrong_type(field, wanted, &value);
        }
        read
    }

    pub(crate) fn optional_ranged_u64(
        &mut self,
        field: &'static str,
        min: u64,
        max: u64,
    ) -> Option<u64> {
        let number = self.optional_u64(field)?;
        if !(min..=max).contains(&number) {
            self.mistake(field, format!("is {number}, allowed are {min} to {max}"));
            return None;
        }
        Some(number)
    }

    pub(crate) fn ranged_u64(
        &mut self,
        field: &'static str,
        min: u64,
        max: u64,
        default: u64,
    ) -> u64 {
        self.optional_ranged_u64(field, min, max).unwrap_or(default)
    }

    pub(crate) fn bool(&mut self, field: &'static str, default: bool) -> bool {
        match self.get(field) {
            None => default,
            Some(Value::Bool(value)) => value,
            Some(other) => {
                self.wrong_type(field, "true or false", &other);
                default
            }
        }
    }

    pub(crate) fn strings(&mut self, field: &'static str) -> Vec<String> {
        let list = match self.get(field) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => {
                self.wrong_type(field, "a list of strings", &other);
                return Vec::new();
            }
        };
        let mut strings = Vec::with_capacity(list.len());
        for (i, item) in list.into_iter().enumerate() {
            match item {
                Value::String(text) => strings.push(text),
                other => self.wrong_type(&format!("{field}[{i}]"), "a string", &other),
            }
        }
        strings
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
