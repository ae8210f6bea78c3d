//! What only a computer's devices can be asked to bear.

use super::{lines, ports};
use crate::cases::verdict::Verdict;
use crate::cases::virtio::Device;

/// Does what `case` names; `None` if it is not known.
pub fn run(device: &Device, case: &[u8]) -> Option<Verdict> {
    lines::run(device, case).or_else(|| ports::run(device, case))
}
