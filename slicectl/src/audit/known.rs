//! What the audit knows of a slice when a sliver of it begins: what it has sent today, and where it
//! may not send. A sliver that is made anew goes on where the last one stopped.

use std::path::Path;

use serde_json::{Value, json};
use vmm::net::prefix::Prefix;
use vmm::spec::SliverSpec;

use crate::store::{Store, StoreError, Used, now_ms};

/// Milliseconds in a day.
const DAY: u64 = 86_400_000;

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// What the slice has sent on the day, counted since 1970 (UTC).
    pub used: (u64, Used),
    /// Where its slivers may not send.
    pub blocked: Vec<Prefix>,
}

impl Known {
    /// What an audit, which may be new, knows of the slice of `spec` at a moment.
    pub fn of(spec: &SliverSpec, audit: &Path) -> Result<Self, StoreError> {
        Self::at(spec.slice(), &Store::create(audit)?, now_ms())
    }

    fn at(slice: &str, store: &Store, now_ms: u64) -> Result<Self, StoreError> {
        let day = now_ms / DAY;
        Ok(Self {
            used: (day, store.usage(slice, day)?),
            blocked: store.blocked(slice, now_ms)?,
        })
    }

    /// Puts it into a spec.
    pub fn describe(&self, document: &mut Value) {
        let (day, used) = self.used;
        if used != Used::default() {
            document["net_used_today"] = json!({
                "day": day, "bytes": used.bytes, "exempt_bytes": used.exempt_bytes,
            });
        }
        if !self.blocked.is_empty() {
            document["guard"]["blocked"] = json!(self.blocked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Block;

    /// Some time on the second day.
    const NOW: u64 = DAY + 5;

    #[test]
    fn what_a_slice_has_sent_today_and_where_it_may_not_send_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::create(&dir.path().join("audit")).unwrap();
        let used = |bytes| Used {
            bytes,
            exempt_bytes: 1,
        };
        store.add_usage("a_b", 0, used(7)).unwrap();
        store.add_usage("a_b", 1, used(100)).unwrap();
        store.add_usage("a_b", 1, used(11)).unwrap();
        store.add_usage("a_c", 1, used(1000)).unwrap();
        let block = |prefix: &str, slice: Option<&str>| Block {
            prefix: prefix.parse().unwrap(),
            slice: slice.map(str::to_owned),
            reason: String::new(),
            by: String::new(),
            since_ms: 0,
            until_ms: None,
        };
        for block in [block("192.0.2.0/24", None), block("::/0", Some("a_c"))] {
            store.add_block(&block).unwrap();
        }
        let known = Known::at("a_b", &store, NOW).unwrap();
        let (day, used) = known.used;
        assert_eq!((day, used.bytes, used.exempt_bytes), (1, 111, 2));
        let mut document = json!({ "guard": { "mode": "off" } });
        known.describe(&mut document);
        assert_eq!(
            document,
            json!({
                "guard": { "mode": "off", "blocked": ["192.0.2.0/24"] },
                "net_used_today": { "day": 1, "bytes": 111, "exempt_bytes": 2 },
            })
        );
    }

    #[test]
    fn of_a_new_slice_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(&dir.path().join("audit")).unwrap();
        let mut document = json!({});
        Known::at("a_b", &store, NOW)
            .unwrap()
            .describe(&mut document);
        assert_eq!(document, json!({}));
    }
}
