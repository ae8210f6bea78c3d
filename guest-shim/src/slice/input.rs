//! What people type: the receive queue of the console's device (virtio 1.2, 5.3).
#![allow(unsafe_code, reason = "a device fills buffers that the driver names")]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use slice_abi::device::device_id;

use super::console;
use super::device::{self, Registers};
use super::task;
use crate::block::Buffer;
use crate::console::WindowSize;
use crate::console::typed::Typed;
use crate::sync::Mutex;
use crate::task::Poller;
use crate::task::crowd::add_waker;
use crate::time::Instant;
use crate::virtio::mmio::{Device, F_VERSION_1};
use crate::virtio::ring::Parts;
use crate::virtio::state::Config;
use crate::virtio::virtq::{self, Queue, Tell};

/// Buffers for what comes in, and bytes of each.
const BUFFERS: u32 = 8;
const BUFFER: usize = 512;

/// Feature bit: the configuration tells the size of the window (5.3.3).
const F_SIZE: u64 = 1 << 0;

/// The driver, or that there is no console.
static INPUT: Mutex<Option<Option<&'static Input>>> = Mutex::new(None);

pub(crate) async fn read_line() -> Option<String> {
    let input = (*INPUT.lock().get_or_insert_with(Input::start))?;
    poll_fn(|context| {
        let mut inner = input.inner.lock();
        if let Some(line) = inner.typed.line(BUFFER) {
            return Poll::Ready(Some(line));
        }
        add_waker(&mut inner.readers, context);
        Poll::Pending
    })
    .await
}

pub(crate) fn window_size() -> Option<WindowSize> {
    let found = device::find(device_id::CONSOLE).next()?;
    if found.entry.features & F_SIZE == 0 {
        return None;
    }
    let config = Config::read(found.state());
    Some(WindowSize {
        columns: config.u16(0),
        rows: config.u16(2),
    })
}

struct Input {
    device: Device<Registers>,
    inner: Mutex<Inner>,
}

struct Inner {
    queue: Queue,
    /// The buffer of each chain that the device has.
    buffers: Vec<Option<Buffer>>,
    /// Buffers that wait until what came in is read.
    spare: Vec<Buffer>,
    typed: Typed,
    readers: Vec<Waker>,
}

impl Input {
    fn start() -> Option<&'static Self> {
        let queue = Queue::new(Parts::on_heap(BUFFERS), F_VERSION_1);
        let device = console::receive_into(queue.ring())?;
        let size = queue.ring().size();
        let input: &'static Self = Box::leak(Box::new(Self {
            device,
            inner: Mutex::new(Inner {
                buffers: (0..size).map(|_| None).collect(),
                spare: (0..size).map(|_| Buffer::zeroed(BUFFER)).collect(),
                queue,
                typed: Typed::default(),
                readers: Vec::new(),
            }),
        }));
        task::register(input);
        Some(input)
    }
}

impl Inner {
    /// Takes in what there is room for, and gives back as many buffers as there is room for.
    fn turn(&mut self) {
        loop {
            while let Some(done) = self.queue.pop() {
                if let Some(buffer) = self.buffers[usize::from(done.head)].take() {
                    self.typed.extend(&buffer[..done.written as usize]);
                    self.spare.push(buffer);
                    self.readers.drain(..).for_each(Waker::wake);
                }
            }
            let out = self.buffers.iter().flatten().count();
            for more in out + 1.. {
                if !self.typed.has_room_for(more * BUFFER) {
                    break;
                }
                let Some(buffer) = self.spare.pop() else {
                    break;
                };
                self.add(buffer);
            }
            self.queue.publish();
            if !self.queue.ask(Tell::AT_NEXT) {
                return;
            }
        }
    }

    fn add(&mut self, buffer: Buffer) {
        let chain = [virtq::Buffer {
            address: buffer.address(),
            length: BUFFER as u32,
            device_writes: true,
        }];
        // SAFETY: the buffer stays in the list, untouched, until the chain is popped.
        if let Ok(head) = unsafe { self.queue.add(&chain) } {
            self.buffers[usize::from(head)] = Some(buffer);
        }
    }
}

impl Poller for Input {
    fn poll(&self) {
        self.inner.lock().turn();
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn ring(&self) {
        if self.inner.lock().queue.wants_doorbell() {
            console::notify_receive(self.device);
        }
    }
}
