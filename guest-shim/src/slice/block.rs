//! Disks of a slice: virtio block devices of the device table.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use slice_abi::device::device_id;

use super::device::{self, Found, Registers};
use super::{control, task};
use crate::block::{About, Buffer, Direction, ErrorKind};
use crate::sync::Mutex;
use crate::task::Poller;
use crate::virtio::blk::Blk;

/// A block device that the executor polls.
pub(crate) struct Disk {
    about: About,
    device: &'static Blk<Registers>,
}

/// All of them; they come up when one is first asked for.
pub(crate) fn disks() -> Vec<Arc<Disk>> {
    static DISKS: Mutex<Option<Vec<Arc<Disk>>>> = Mutex::new(None);
    let mut disks = DISKS.lock();
    disks
        .get_or_insert_with(|| {
            let found = device::find(device_id::BLOCK);
            found.map(|found| Arc::new(Disk::start(found))).collect()
        })
        .clone()
}

impl Disk {
    fn start(found: Found) -> Self {
        let entry = found.entry;
        let device: &'static Blk<Registers> = Box::leak(Box::new(Blk::new(
            found.registers(),
            found.state(),
            entry.features,
            entry.queue_size_max,
        )));
        task::register(device);
        let limits = device.limits();
        Self {
            about: About {
                name: found.tag().into(),
                serial: serial(device),
                size: limits.size,
                block_size: limits.block_size,
                read_only: limits.read_only,
            },
            device,
        }
    }

    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    pub(crate) async fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        buffer: Buffer,
    ) -> (Result<(), ErrorKind>, Buffer) {
        self.device.transfer(direction, offset, buffer).await
    }

    pub(crate) async fn flush(&self) -> Result<(), ErrorKind> {
        self.device.flush().await
    }

    pub(crate) async fn discard(&self, offset: u64, len: u64) -> Result<(), ErrorKind> {
        self.device.discard(offset, len).await
    }

    pub(crate) async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), ErrorKind> {
        self.device.write_zeroes(offset, len).await
    }
}

impl core::fmt::Debug for Disk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Disk")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

/// Asks for the serial and waits for it, resting: this happens once per disk, and not
/// asynchronously, so that a disk is complete when anybody first sees it.
fn serial(device: &Blk<Registers>) -> String {
    let mut question = pin!(device.serial());
    let mut context = Context::from_waker(Waker::noop());
    let answer = loop {
        if let Poll::Ready(answer) = question.as_mut().poll(&mut context) {
            break answer;
        }
        device.poll();
        if let Poll::Ready(answer) = question.as_mut().poll(&mut context) {
            break answer;
        }
        control::idle(None);
        device.poll();
    };
    let bytes = answer.unwrap_or_default();
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim_end().into()
}
