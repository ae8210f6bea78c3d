//! What a sliver's guard lets through, as the flags say it: a mode, or a file with all of it.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::RecordArgs;
use crate::problem::Problem;

/// The spec's `guard`, but for what is blocked.
pub(super) fn read(args: &RecordArgs, problems: &mut Vec<Problem>) -> Value {
    let mut guard = match args.guard.as_deref() {
        None => json!({}),
        Some(mode @ ("enforce" | "report" | "off")) => json!({ "mode": mode }),
        Some(file) => from_file(Path::new(file)).unwrap_or_else(|why| {
            let problem = Problem::new(format!("--guard {file}"), why);
            problems.push(problem.mend("enforce, report, off, or a file with a JSON object"));
            json!({})
        }),
    };
    if args.strict_audit {
        guard["strict_audit"] = json!(true);
        if args.audit.as_deref() == Some("none") {
            let why = "lets nothing pass that is not written down, and --audit none writes nothing";
            problems.push(Problem::new("--strict-audit", why).mend("leave one of them out"));
        }
    }
    guard
}

fn from_file(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    match serde_json::from_str(&text) {
        Ok(guard @ Value::Object(_)) => Ok(guard),
        Ok(_) => Err("has no JSON object".to_owned()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}
