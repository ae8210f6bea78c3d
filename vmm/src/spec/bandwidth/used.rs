//! What a slice has sent today before its sliver begins, as a spec tells it.

use crate::net::shaper::UsedToday;
use crate::spec::fields::Fields;

/// Days that can be told: up to the year 5000 or so.
const LAST_DAY: u64 = 1_100_000;

/// Reads `"net_used_today": { "day": 20780, "bytes": 1000000, "exempt_bytes": 0 }`, the day counted
/// since 1970 (UTC). What was sent on another day than that on which the sliver begins is forgotten
/// by the shaper.
pub(in crate::spec) fn read(fields: &mut Fields) -> UsedToday {
    let used = fields.object("net_used_today", |fields| UsedToday {
        day: fields.ranged_u64("day", 0, LAST_DAY, 0),
        bytes: fields.ranged_u64("bytes", 0, u64::MAX, 0),
        exempt_bytes: fields.ranged_u64("exempt_bytes", 0, u64::MAX, 0),
    });
    used.unwrap_or_default()
}
