//! Why a guest ends early. Status 0 says that the monitor bore what it did as it must.

pub const NO_DEVICE: u64 = 10;
pub const FEATURES_REFUSED: u64 = 11;
pub const NO_NEEDS_RESET: u64 = 12;
pub const RESET_HAD_NO_EFFECT: u64 = 13;
pub const NOT_PRINTED: u64 = 14;
pub const BAD_QUEUE_ACCEPTED: u64 = 17;
pub const UNKNOWN_CASE: u64 = 18;
pub const STATE_LAGS: u64 = 21;
pub const DOES_NOT_WORK_AGAIN: u64 = 22;
pub const NOT_TAKEN: u64 = 23;
