//! Tells how cases went: a line for each, what is behind a failure, and the same for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Failure, Outcome};

impl Outcome {
    /// For people: a line, and everything known if it failed.
    pub fn text(&self) -> String {
        let verdict = match &self.result {
            Ok(_) => "ok",
            Err(_) => "FAILED",
        };
        let seconds = self.took.as_secs_f64();
        let mut text = format!("{:<14} {verdict:<7} {seconds:>6.1} s\n", self.case);
        match &self.result {
            Ok(figures) => {
                for (name, samples) in figures {
                    let median = median(samples);
                    let count = samples.len();
                    let _ = writeln!(text, "    {name}: median {median:.2} of {count}");
                }
            }
            Err(failure) => text.push_str(&failure.text()),
        }
        if let Some((place, command)) = &self.kept {
            let _ = writeln!(text, "    files: {}", place.display());
            let _ = writeln!(text, "    again: {command}");
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let (figures, failure) = match &self.result {
            Ok(figures) => (Some(figures), None),
            Err(failure) => (None, Some(failure)),
        };
        json!({
            "case": self.case,
            "ok": failure.is_none(),
            "seconds": self.took.as_secs_f64(),
            "figures": figures,
            "reason": failure.map(|failure| &failure.reason),
            "guests": failure.map(|failure| &failure.guests),
            "host": failure.map(|failure| &failure.host),
        })
    }
}

impl Failure {
    fn text(&self) -> String {
        let mut text = format!("    {}\n", self.reason);
        for (title, content) in [("guests", &self.guests), ("host", &self.host)] {
            let _ = writeln!(text, "    -- {title}:");
            for line in content.lines() {
                let _ = writeln!(text, "    | {}", line.trim_end().escape_debug());
            }
        }
        text
    }
}

/// The one in the middle.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
