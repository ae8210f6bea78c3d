//! What a block device can do, from its features and its configuration (virtio 1.2, 5.2.3, 5.2.4).
//! Pure.

use crate::block::SECTOR;
use crate::virtio::mmio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};
use crate::virtio::state::Config;

/// Feature bits.
mod feature {
    pub(super) const SIZE_MAX: u64 = 1 << 1;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Features that the driver takes if they are offered.
const WANTED: u64 = F_VERSION_1
    | F_EVENT_IDX
    | F_INDIRECT_DESC
    | feature::SIZE_MAX
    | feature::RO
    | feature::BLK_SIZE
    | feature::FLUSH
    | feature::DISCARD
    | feature::WRITE_ZEROES;

/// Offsets in the configuration space.
mod config {
    pub(super) const CAPACITY: usize = 0;
    pub(super) const SIZE_MAX: usize = 8;
    pub(super) const BLK_SIZE: usize = 20;
    pub(super) const MAX_DISCARD_SECTORS: usize = 36;
    pub(super) const MAX_WRITE_ZEROES_SECTORS: usize = 48;
}

/// The most data of one request if the device sets no limit.
const DATA_MAX: usize = 1 << 20;

/// What it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Features in use.
    pub(crate) features: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes that it reads or writes at least.
    pub(crate) block_size: u32,
    pub(crate) read_only: bool,
    /// Whether writes need a flush to be durable.
    pub(crate) has_cache: bool,
    /// The most bytes in one request: whole sectors.
    pub(crate) data_max: usize,
    /// The most sectors in one request, if it can do it at all.
    pub(crate) discard_max: Option<u64>,
    /// As above.
    pub(crate) write_zeroes_max: Option<u64>,
}

impl Limits {
    /// Of a device that offers these features.
    pub(crate) fn new(offered: u64, config: &Config) -> Self {
        let features = offered & WANTED;
        let has = |feature| features & feature != 0;
        let size_max = match config.u32(config::SIZE_MAX) as usize / SECTOR as usize {
            sectors @ 1.. if has(feature::SIZE_MAX) => sectors * SECTOR as usize,
            _ => DATA_MAX,
        };
        let most = |feature, offset| {
            let most = match config.u32(offset) {
                0 => u32::MAX,
                most => most,
            };
            has(feature).then_some(most.into())
        };
        Self {
            features,
            size: config.u64(config::CAPACITY).saturating_mul(SECTOR),
            block_size: match config.u32(config::BLK_SIZE) {
                size @ 1.. if has(feature::BLK_SIZE) => size,
                _ => SECTOR as u32,
            },
            read_only: has(feature::RO),
            has_cache: has(feature::FLUSH),
            data_max: size_max.min(DATA_MAX),
            discard_max: most(feature::DISCARD, config::MAX_DISCARD_SECTORS),
            write_zeroes_max: most(feature::WRITE_ZEROES, config::MAX_WRITE_ZEROES_SECTORS),
        }
    }
}
