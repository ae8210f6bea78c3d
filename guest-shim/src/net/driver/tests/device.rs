use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex};

use slice_abi::device::STATUS_NEEDS_RESET;

use super::*;
use crate::net::merge::tests::device as segment;
use crate::net::vnet::{self, Header, gso};

pub(super) const MAC: [u8; 6] = [2, 1, 2, 3, 4, 5];
pub(super) const MTU: usize = 1400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Two cards and what lies between them.
pub(super) struct Host(Arc<Mutex<[Device; 2]>>);

/// The registers of one of them.
pub(super) struct Registers {
    devices: Arc<Mutex<[Device; 2]>>,
    side: Side,
}

struct Device {
    state: &'static DeviceState,
    status: u32,
    selected: usize,
    features_selected: u32,
    features: u64,
    queues: [Queue; 2],
    resets: usize,
    /// Chains taken, and frames made of them.
    chains: usize,
    frames: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Queue {
    size: u16,
    addresses: [u64; 3],
    next: u16,
    used: u16,
}

impl Host {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new([Device::new(), Device::new()])))
    }

    pub(super) fn window(&self, side: Side) -> Registers {
        let devices = Arc::clone(&self.0);
        Registers { devices, side }
    }

    pub(super) fn offer(&self, side: Side, features: u64) -> Offer {
        Offer {
            features,
            queue_size_max: 256,
            state: self.0.lock().unwrap()[side as usize].state,
        }
    }

    /// Carries all frames to the other side.
    pub(super) fn serve(&self) {
        let mut devices = self.0.lock().unwrap();
        for from in [0, 1] {
            for (header, frame) in devices[from].sent() {
                devices[from].frames += devices[1 - from].receive(&header, &frame);
            }
        }
    }

    pub(super) fn counts(&self, side: Side) -> (usize, usize) {
        let device = &self.0.lock().unwrap()[side as usize];
        (device.chains, device.frames)
    }

    pub(super) fn resets(&self, side: Side) -> usize {
        self.0.lock().unwrap()[side as usize].resets
    }

    /// Breaks a rule, another one each time.
    pub(super) fn lie(&self, side: Side, round: u32) {
        let device = &mut self.0.lock().unwrap()[side as usize];
        if device.status == 0 {
            return;
        }
        let dice = round.wrapping_mul(0x9e37_79b9) >> 8;
        let which = (round & 1) as usize;
        let head = match device.queues[which].take() {
            // One that was never given, now and then.
            _ if round % 99 == 98 => dice,
            Some((head, buffers)) if which == 0 => {
                let mut lies = [0; vnet::LEN];
                lies[10..].copy_from_slice(&[dice as u8 % 5, (dice >> 8) as u8 % 3 / 2]);
                write(buffers[0], &[&lies[..], &[dice as u8; 70]].concat());
                u32::from(head)
            }
            Some((head, _)) => u32::from(head),
            None => return,
        };
        let written = if round.is_multiple_of(3) {
            dice
        } else {
            dice % 82
        };
        device.queues[which].give_back(&[(head, written)]);
    }

    pub(super) fn fail(&self, side: Side) {
        let device = &self.0.lock().unwrap()[side as usize];
        device
            .state
            .status
            .fetch_or(STATUS_NEEDS_RESET, Ordering::Relaxed);
    }
}

impl Window for Registers {
    fn write(&self, offset: u64, value: u32) {
        let device = &mut self.devices.lock().unwrap()[self.side as usize];
        let value64 = u64::from(value);
        let queue = &mut device.queues[device.selected];
        match offset {
            0x20 => device.features |= value64 << (32 * device.features_selected),
            0x24 => device.features_selected = value,
            0x30 => device.selected = value as usize,
            0x38 => queue.size = value as u16,
            0x44 | 0x50 => {}
            0x70 if value == 0 => device.reset(),
            0x70 => device.status = value,
            0x80..0xa8 => {
                let address = &mut queue.addresses[(offset as usize - 0x80) / 16];
                *address |= value64 << (offset % 16 * 8);
            }
            _ => panic!("no register {offset:#x}"),
        }
    }
}

impl Device {
    fn new() -> Self {
        let state = DeviceState {
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            config: [const { AtomicU32::new(0) }; _],
        };
        let [a, b, c, d, e, f] = MAC;
        let [low, high] = (MTU as u16).to_le_bytes();
        let words = [[a, b, c, d], [e, f, 1, 0], [1, 0, low, high]];
        for (to, word) in state.config.iter().zip(words) {
            to.store(u32::from_le_bytes(word), Ordering::Relaxed);
        }
        Self {
            state: Box::leak(Box::new(state)),
            status: 0,
            selected: 0,
            features_selected: 0,
            features: 0,
            queues: Default::default(),
            resets: 0,
            chains: 0,
            frames: 0,
        }
    }

    fn reset(&mut self) {
        self.state.status.store(0, Ordering::Relaxed);
        (self.status, self.selected) = (0, 0);
        (self.features, self.features_selected) = (0, 0);
        self.queues = Default::default();
        self.resets += 1;
    }

    /// What its driver has sent.
    fn sent(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some((head, buffers)) = self.queues[1].take() {
            let bytes: Vec<u8> = buffers.iter().flat_map(|&buffer| read(buffer)).collect();
            let (header, frame) = bytes.split_at(vnet::LEN);
            frames.push((Header::decode(header.try_into().unwrap()), frame.to_vec()));
            self.queues[1].give_back(&[(head.into(), 0)]);
            self.chains += 1;
        }
        frames
    }

    /// Gives its driver a frame, whole if it takes that, else in segments; how many. Without
    /// buffers it is lost.
    fn receive(&mut self, header: &Header, frame: &[u8]) -> usize {
        let needed = match header.gso_type {
            gso::TCPV4 => feature::GUEST_TSO4,
            gso::TCPV6 => feature::GUEST_TSO6,
            _ => feature::GUEST_CSUM,
        };
        if self.features & needed != 0 {
            self.put(header, frame);
            return 1;
        }
        let frames = segment(header, frame);
        for frame in &frames {
            self.put(&Header::default(), frame);
        }
        frames.len()
    }

    fn put(&mut self, header: &Header, frame: &[u8]) {
        let queue = &mut self.queues[0];
        let mut chains = Vec::new();
        let mut room = 0;
        while room < vnet::LEN + frame.len() {
            let Some((head, buffers)) = queue.take() else {
                queue.next = queue.next.wrapping_sub(chains.len() as u16);
                return;
            };
            assert!(buffers.len() == 1 && buffers[0].2);
            room += buffers[0].1 as usize;
            chains.push((head, buffers[0]));
        }
        let header = Header {
            buffers: chains.len() as u16,
            ..*header
        };
        let bytes = [&header.encode()[..], frame].concat();
        let mut rest = &bytes[..];
        let mut done = Vec::new();
        for (head, buffer) in chains {
            let (now, later) = rest.split_at(rest.len().min(buffer.1 as usize));
            write(buffer, now);
            done.push((head.into(), now.len() as u32));
            rest = later;
        }
        queue.give_back(&done);
    }
}

/// Address, length, and whether the device writes.
type Buffer = (u64, u32, bool);

impl Queue {
    fn take(&mut self) -> Option<(u16, Vec<Buffer>)> {
        let [descriptors, available, _] = self.addresses;
        if self.size == 0 || load16(available + 2) == self.next {
            return None;
        }
        fence(Ordering::SeqCst);
        let head = load16(available + 4 + 2 * u64::from(self.next % self.size));
        self.next = self.next.wrapping_add(1);
        let mut buffers = Vec::new();
        let mut at = head;
        loop {
            let descriptor = descriptors + 16 * u64::from(at);
            let flags = load16(descriptor + 12);
            let address = u64::from(load32(descriptor)) | u64::from(load32(descriptor + 4)) << 32;
            buffers.push((address, load32(descriptor + 8), flags & 2 != 0));
            if flags & 1 == 0 {
                return Some((head, buffers));
            }
            at = load16(descriptor + 14);
        }
    }

    fn give_back(&mut self, chains: &[(u32, u32)]) {
        let used = self.addresses[2];
        for &(head, written) in chains {
            let at = used + 4 + 8 * u64::from(self.used % self.size);
            store32(at, head);
            store32(at + 4, written);
            self.used = self.used.wrapping_add(1);
        }
        fence(Ordering::SeqCst);
        // SAFETY: an address of the driver's ring, which lasts.
        unsafe { ((used + 2) as *mut u16).write_volatile(self.used) };
    }
}

fn load16(address: u64) -> u16 {
    // SAFETY: an address of the driver's ring, which lasts.
    unsafe { (address as *const u16).read_volatile() }
}

fn load32(address: u64) -> u32 {
    // SAFETY: as above.
    unsafe { (address as *const u32).read_volatile() }
}

fn store32(address: u64, value: u32) {
    // SAFETY: as above.
    unsafe { (address as *mut u32).write_volatile(value) };
}

fn read((address, length, writable): Buffer) -> Vec<u8> {
    assert!(!writable);
    // SAFETY: the driver leaves the buffer as it is until it is given back.
    unsafe { std::slice::from_raw_parts(address as *const u8, length as usize) }.to_vec()
}

fn write((address, length, writable): Buffer, bytes: &[u8]) {
    assert!(writable && bytes.len() <= length as usize);
    // SAFETY: the driver leaves the buffer alone until it is given back.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
}
