//! `slicectl doctor`: is everything on this host that slivers need?
//!
//! [`facts`] looks, [`report`] judges: the judgement touches nothing and is tested with hosts
//! that are made up.

pub mod facts;
pub mod report;
#[cfg(test)]
mod tests;

use serde_json::json;

use crate::cli::JsonArgs;
use crate::problem::{FAILED, Failure};
use crate::report::{print, print_json};
use crate::text::printable;

use report::{Check, Grade};

/// Runs the command; the exit code.
pub fn run(args: &JsonArgs) -> Result<u8, Failure> {
    let checks = report::judge(&facts::gather());
    let worst = checks.iter().map(|check| check.status).max();
    if args.json {
        print_json(&json!({ "status": worst, "checks": checks }))?;
    } else {
        print(describe(&checks))?;
    }
    Ok(if worst == Some(Grade::Fail) {
        FAILED
    } else {
        0
    })
}

fn describe(checks: &[Check]) -> String {
    let mut out = String::new();
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    for check in checks {
        let grade = match check.status {
            Grade::Ok => "ok  ",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        out.push_str(&format!(
            "{grade}  {:<width$}  {}\n",
            check.name,
            printable(&check.explanation)
        ));
        if let Some(mend) = &check.mend {
            out.push_str(&format!("      {:<width$}  -> {}\n", "", printable(mend)));
        }
    }
    out
}
