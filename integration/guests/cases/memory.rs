//! What the devices that give and take memory must not do: the balloon and the entropy source.

use slice_abi::device::device_id;
use slice_abi::layout::PAGE_SIZE;

use super::verdict::Verdict;
use super::virtio::{Desc, Device};

/// Bytes that an entropy source is asked for in each chain, together more than it has at once.
const GREED: u32 = 64 << 10;

/// Does what `case` names; `None` if it is not about these.
pub fn run(device: &Device, case: &[u8]) -> Option<Verdict> {
    match device.entry.id {
        device_id::BALLOON => balloon(device, case),
        device_id::ENTROPY => entropy(device, case),
        _ => None,
    }
}

/// Pages that are not the guest's to give up. Its text is: who runs on shows that it is there.
fn balloon(device: &Device, case: &[u8]) -> Option<Verdict> {
    let text = device.guest.text();
    let end = device.guest.heap().end();
    let data = device.data();
    let pages: &[u64] = match case {
        b"pages-of-text" => &[text.start, text.start + PAGE_SIZE],
        b"pages-beyond-ram" => &[end, end + PAGE_SIZE],
        b"pages-below-ram" => &[0, PAGE_SIZE],
        b"pages-of-a-window" => &[device.entry.window],
        b"the-last-pages-there-are" => &[(1 << 44) - PAGE_SIZE],
        b"part-of-a-number" => {
            device.start();
            device.submit(&[Desc::text(data, 3)]);
            return Some(Verdict::Refused(device.await_used(1)));
        }
        _ => return None,
    };
    device.start();
    for (at, page) in (0..).zip(pages) {
        device.fill(data + 4 * at, &((page / PAGE_SIZE) as u32).to_le_bytes());
    }
    device.submit(&[Desc::text(data, 4 * pages.len() as u32)]);
    Some(Verdict::Refused(device.await_used(1)))
}

/// Too much of what is random.
fn entropy(device: &Device, case: &[u8]) -> Option<Verdict> {
    match case {
        b"greed" => {
            device.start();
            device.describe(0, &Desc::room(device.data(), GREED));
            for _ in 0..device.size() {
                device.queue_one(0);
            }
            device.notify();
            Some(Verdict::Refused(device.used_idx() < device.size()))
        }
        _ => None,
    }
}
