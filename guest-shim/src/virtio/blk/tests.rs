use super::*;
use crate::virtio::mmio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};
use crate::virtio::simulated::{SeenBuffer, SimulatedDevice};
use crate::virtio::state::tests::state;
use slice_abi::device::STATUS_NEEDS_RESET;
use std::cell::RefCell;
use std::pin::pin;
use std::sync::atomic::AtomicU32;

const CACHE_AND_MORE: u64 = 1 << 9 | 1 << 13 | 1 << 14;
const SECTORS: usize = 64;

/// Counts doorbells and does what the status register does.
#[derive(Clone, Copy)]
struct Registers {
    state: &'static DeviceState,
    doorbells: &'static AtomicU32,
}

impl Window for Registers {
    fn write(&self, offset: u64, value: u32) {
        match offset {
            0x70 => self.state.status.store(value, Ordering::Relaxed),
            0x50 => drop(self.doorbells.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

/// A device with its disk, and the driver.
struct Bench {
    blk: Blk<Registers>,
    device: RefCell<SimulatedDevice>,
    disk: RefCell<Vec<u8>>,
    /// Requests that it was given: their types, sectors and bytes.
    seen: RefCell<Vec<(u32, u64, u32)>>,
    doorbells: &'static AtomicU32,
}

fn bench(features: u64, queue_size: u32) -> Bench {
    let state: &'static DeviceState = Box::leak(Box::new(state()));
    state.config[0].store(SECTORS as u32, Ordering::Relaxed);
    state.config[2].store(4096, Ordering::Relaxed);
    state.config[9].store(8, Ordering::Relaxed);
    state.status.store(0, Ordering::Relaxed);
    let doorbells: &'static AtomicU32 = Box::leak(Box::default());
    let features = features | F_VERSION_1;
    let blk = Blk::new(Registers { state, doorbells }, state, features, queue_size);
    let ring = blk.inner.lock().queue.ring();
    Bench {
        device: RefCell::new(SimulatedDevice::new(ring, features)),
        disk: RefCell::new((0..SECTORS * 512).map(|i| (i / 512) as u8).collect()),
        seen: RefCell::default(),
        blk,
        doorbells,
    }
}

fn read(buffer: &SeenBuffer, at: usize) -> u64 {
    assert!(!buffer.2);
    // SAFETY: the driver names memory that is valid until the chain is given back.
    unsafe { ((buffer.0 as *const u8).add(at) as *const u64).read_unaligned() }
}

fn bytes(buffer: SeenBuffer) -> &'static mut [u8] {
    // SAFETY: as above, and only the device touches what it may write.
    unsafe { std::slice::from_raw_parts_mut(buffer.0 as *mut u8, buffer.1 as usize) }
}

impl Bench {
    /// Carries out one request, with this status in the end.
    fn serve_one(&self, status: u8) -> bool {
        let mut device = self.device.borrow_mut();
        let Some((head, chain)) = device.take() else {
            device.rest();
            return false;
        };
        let (kind, sector) = (read(&chain[0], 0) as u32, read(&chain[0], 8));
        let data = &chain[1..chain.len() - 1];
        let end = chain.last().unwrap();
        assert_eq!((chain[0].1, end.1, end.2), (HEADER, 1, true));
        let len = data.iter().map(|data| data.1).sum();
        self.seen.borrow_mut().push((kind, sector, len));
        let mut written = 1;
        let mut disk = self.disk.borrow_mut();
        for data in data.iter().filter(|_| status == 0) {
            let at = sector as usize * 512;
            match kind {
                kind::IN => bytes(*data).copy_from_slice(&disk[at..][..data.1 as usize]),
                kind::OUT => disk[at..][..data.1 as usize].copy_from_slice(bytes(*data)),
                kind::GET_ID => bytes(*data)[..6].copy_from_slice(b"serial"),
                kind::WRITE_ZEROES => {
                    let (at, count) = (read(data, 0) as usize * 512, read(data, 8) as u32);
                    disk[at..][..count as usize * 512].fill(0);
                }
                _ => {}
            }
            assert_eq!(data.2, matches!(kind, kind::IN | kind::GET_ID));
            written += if data.2 { data.1 } else { 0 };
        }
        bytes(*end)[0] = status;
        device.give_back(head.into(), written);
        true
    }

    /// Runs a future to its end against the device.
    fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            self.blk.poll();
            while self.serve_one(0) {}
            self.blk.poll();
        }
    }
}

fn poll_once(future: Pin<&mut impl Future>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    future.poll(&mut context).is_ready()
}

#[test]
fn what_is_written_is_read_back_with_and_without_tables_and_indices() {
    for features in [
        0,
        F_EVENT_IDX,
        F_INDIRECT_DESC,
        F_EVENT_IDX | F_INDIRECT_DESC,
    ] {
        let bench = bench(features, 16);
        let bytes: Vec<u8> = (0..1024).map(|i| i as u8).collect();
        let write = bench
            .blk
            .transfer(Direction::Write, 1024, Buffer::from(&bytes[..]));
        assert_eq!(bench.run(write).0, Ok(()));
        let read = bench
            .blk
            .transfer(Direction::Read, 512, Buffer::zeroed(2048));
        let (result, buffer) = bench.run(read);
        assert_eq!(result, Ok(()));
        assert_eq!(buffer[..512], [1; 512]);
        assert_eq!(buffer[512..1536], bytes);
        assert_eq!(buffer[1536..], [4; 512]);
    }
}

#[test]
fn a_request_beyond_the_limits_goes_in_pieces() {
    let bench = bench(CACHE_AND_MORE | 1 << 1, 16);
    let read = bench
        .blk
        .transfer(Direction::Read, 0, Buffer::zeroed(10_240));
    bench.run(read).0.unwrap();
    bench.run(bench.blk.discard(512, 20 * 512)).unwrap();
    bench.run(bench.blk.write_zeroes(1024, 512)).unwrap();
    let seen = bench.seen.borrow();
    let reads = [(0, 0, 4096), (0, 8, 4096), (0, 16, 2048)];
    assert_eq!(seen[..3], reads);
    assert_eq!(
        seen[3..],
        [(11, 0, 16), (11, 0, 16), (11, 0, 16), (13, 0, 16)]
    );
    assert_eq!(
        bench.disk.borrow()[1023..1537],
        [&[1][..], &[0; 512], &[3]].concat()
    );
}

#[test]
fn what_a_device_does_not_offer_is_not_asked_of_it() {
    let bench = bench(0, 16);
    assert_eq!(bench.run(bench.blk.flush()), Ok(()));
    let unsupported = |result| matches!(result, Err(ErrorKind::Unsupported(_)));
    assert!(unsupported(bench.run(bench.blk.discard(0, 512))));
    assert!(unsupported(bench.run(bench.blk.write_zeroes(0, 512))));
    assert!(bench.seen.borrow().is_empty());
    assert_eq!(&bench.run(bench.blk.serial()).unwrap()[..7], b"serial\0");
}

#[test]
fn an_error_is_told_and_leaves_the_queue_in_order() {
    for (status, expected) in [
        (1, ErrorKind::Io),
        (2, ErrorKind::Unsupported("flush")),
        (status::MISSING, ErrorKind::Io),
    ] {
        let bench = bench(CACHE_AND_MORE, 16);
        let mut flush = pin!(bench.blk.flush());
        assert!(!poll_once(flush.as_mut()));
        bench.blk.poll();
        assert!(bench.serve_one(status));
        assert_eq!(bench.run(flush), Err(expected));
        assert_eq!(bench.run(bench.blk.flush()), Ok(()));
    }
}

#[test]
fn a_read_that_the_device_cut_short_is_an_error() {
    let bench = bench(0, 16);
    let mut read = pin!(bench.blk.transfer(Direction::Read, 0, Buffer::zeroed(512)));
    assert!(!poll_once(read.as_mut()));
    bench.blk.poll();
    let (head, chain) = bench.device.borrow_mut().take().unwrap();
    bytes(chain[2])[0] = 0;
    bench.device.borrow_mut().give_back(head.into(), 100);
    assert_eq!(bench.run(read).0, Err(ErrorKind::Io));
}

#[test]
fn a_batch_of_requests_has_one_doorbell_and_a_rest_needs_none() {
    let bench = bench(F_EVENT_IDX | F_INDIRECT_DESC, 256);
    let mut reads: Vec<_> = (0..200)
        .map(|_| Box::pin(bench.blk.transfer(Direction::Read, 0, Buffer::zeroed(512))))
        .collect();
    reads
        .iter_mut()
        .for_each(|read| assert!(!poll_once(read.as_mut())));
    bench.blk.poll();
    assert_eq!(bench.doorbells.load(Ordering::Relaxed), 0);
    bench.blk.ring();
    bench.blk.ring();
    assert_eq!(bench.doorbells.load(Ordering::Relaxed), 1);
    while bench.serve_one(0) {}
    bench.blk.poll();
    assert!(reads.iter_mut().all(|read| poll_once(read.as_mut())));
}

#[test]
fn a_full_queue_makes_requests_wait_their_turn() {
    for features in [0, F_INDIRECT_DESC] {
        let bench = bench(features, 4);
        let mut reads: Vec<_> = (0..50)
            .map(|_| {
                Box::pin(
                    bench
                        .blk
                        .transfer(Direction::Read, 512, Buffer::zeroed(512)),
                )
            })
            .collect();
        let mut left = reads.len();
        for _ in 0..1000 {
            reads.retain_mut(|read| !poll_once(read.as_mut()));
            bench.blk.poll();
            bench.serve_one(0);
            bench.blk.poll();
            left = reads.len();
        }
        assert_eq!(left, 0);
    }
}

#[test]
fn the_buffer_of_a_request_given_up_stays_until_the_device_is_done_with_it() {
    let bench = bench(0, 4);
    let out = || {
        let inner = bench.blk.inner.lock();
        let slots = inner.slots.iter();
        slots
            .filter(|slot| matches!(slot.progress, Progress::Out(..)))
            .count()
    };
    let mut read = Box::pin(
        bench
            .blk
            .transfer(Direction::Read, 512, Buffer::zeroed(512)),
    );
    assert!(!poll_once(read.as_mut()));
    bench.blk.poll();
    drop(read);
    assert_eq!(out(), 1);
    assert!(bench.serve_one(0));
    bench.blk.poll();
    assert_eq!(out(), 0);
    // One that is given up when it has ended already.
    let mut read = Box::pin(
        bench
            .blk
            .transfer(Direction::Read, 512, Buffer::zeroed(512)),
    );
    assert!(!poll_once(read.as_mut()));
    bench.blk.poll();
    assert!(bench.serve_one(0));
    bench.blk.poll();
    drop(read);
    assert_eq!(bench.blk.inner.lock().free.len(), 4);
}

#[test]
fn a_device_that_fails_ends_its_requests_and_is_started_anew() {
    let lies: [fn(&Bench); 2] = [
        |bench| bench.device.borrow_mut().pretend(9),
        |bench| {
            let state = bench.blk.state;
            state.status.fetch_or(STATUS_NEEDS_RESET, Ordering::Relaxed);
        },
    ];
    for lie in lies {
        let bench = bench(CACHE_AND_MORE, 4);
        let mut lost = pin!(bench.blk.flush());
        assert!(!poll_once(lost.as_mut()));
        bench.blk.poll();
        lie(&bench);
        bench.blk.poll();
        let ring = bench.blk.inner.lock().queue.ring();
        *bench.device.borrow_mut() = SimulatedDevice::new(ring, 0);
        assert_eq!(bench.run(lost), Err(ErrorKind::DeviceFailed));
        assert_eq!(bench.run(bench.blk.flush()), Ok(()));
    }
}

#[test]
fn a_device_is_known_by_its_features_and_its_configuration() {
    let offered = bench(CACHE_AND_MORE | 1 << 5 | 1 << 1 | 1 << 40, 16);
    let limits = offered.blk.limits();
    assert_eq!(limits.size, 64 * 512);
    assert_eq!((limits.data_max, limits.block_size), (4096, 512));
    assert_eq!(limits.discard_max, Some(8));
    assert_eq!(limits.write_zeroes_max, Some(u32::MAX.into()));
    assert!(limits.read_only && limits.has_cache);
    assert_eq!(limits.features & 1 << 40, 0, "nobody knows what that is");
    let plain = bench(0, 16);
    let limits = plain.blk.limits();
    assert_eq!((limits.data_max, limits.discard_max), (1 << 20, None));
    assert!(!limits.read_only && !limits.has_cache);
}
