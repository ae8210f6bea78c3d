//! The control window: four write-only registers of 8 bytes in a page of their own.
//!
//! Its address is in [`InfoPage::control`](crate::info::InfoPage::control). Each register takes
//! one aligned 8-byte write. Reads give 0. A narrower or misaligned write, and one to any other
//! offset, is ignored and counted; a wider one counts as several of 8 bytes.

/// Bytes of the control window.
pub const CONTROL_WINDOW_SIZE: u64 = 4096;

/// `IDLE`: write an absolute deadline in nanoseconds of the sliver's monotonic clock, or 0 for
/// none. The write first counts as a doorbell for every queue of every device: what was made
/// available is served. Then the vCPU sleeps, at no cost, until one of these:
///
/// - a device moves a used ring and the driver has not asked to be left alone (virtio 1.2, 2.7.7:
///   `VIRTQ_AVAIL_F_NO_INTERRUPT`, or `used_event` where `VIRTIO_F_EVENT_IDX` was negotiated),
/// - a [`DeviceState`](crate::device::DeviceState) changes,
/// - another vCPU names this one in [`WAKE`],
/// - the deadline passes.
///
/// If one of the first three happened since this vCPU's last `IDLE` returned (or since the vCPU
/// started), the write returns at once. So a guest that looks at its rings and then idles cannot
/// miss what moved in between. `IDLE` may return early for no reason: look again.
pub const IDLE: u64 = 0x00;

/// `EXIT`: write a status. The sliver ends, with all its vCPUs; the write does not return. The low
/// 8 bits are the status that people see, 0 for success.
pub const EXIT: u64 = 0x08;

/// `YIELD`: write anything. Lets other work on the host's processor go first, once.
pub const YIELD: u64 = 0x10;

/// `WAKE`: write the index of a vCPU. Its present or next `IDLE` returns. The first `WAKE` of a
/// vCPU that has not run yet starts it at the image's entry point. An index that does not exist is
/// ignored and counted.
pub const WAKE: u64 = 0x18;

/// The largest status [`EXIT`] passes on.
pub const EXIT_STATUS_MASK: u64 = 0xff;
