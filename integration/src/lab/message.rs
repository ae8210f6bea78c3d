//! What the inside of the lab tells the outside: a line of JSON each, on the second serial port.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a case measured: samples by name.
pub type Figures = BTreeMap<String, Vec<f64>>;

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Where the case is.
    Step(String),
    /// A guest or its monitor printed this.
    Output(String),
    /// The case has ended well.
    Passed(Figures),
    /// The case has failed, for this reason.
    Failed(String),
}
