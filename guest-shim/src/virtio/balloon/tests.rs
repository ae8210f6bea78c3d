use super::*;
use crate::virtio::simulated::SimulatedDevice;
use crate::virtio::state::tests::state;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

/// Writes down what the device is told it has.
#[derive(Clone, Copy)]
struct Actual(&'static AtomicU32);

impl Window for Actual {
    fn write(&self, offset: u64, value: u32) {
        if offset == 0x104 {
            self.0.store(value, Ordering::Relaxed);
        }
    }
}

/// So many small blocks, in a row from 16 MiB on.
struct Heap(Mutex<BTreeSet<usize>>);

const HEAP: usize = 16 << 20;

impl Memory for &'static Heap {
    fn take(&self, bytes: usize) -> Option<usize> {
        let mut free = self.0.lock();
        let fits = |at: usize| at.is_multiple_of(bytes) && free.contains(&(at + bytes - SMALL));
        let at = free.iter().copied().find(|&at| fits(at))?;
        (at..at + bytes)
            .step_by(SMALL)
            .for_each(|at| assert!(free.remove(&at)));
        Some(at)
    }

    fn take_used(&self, bytes: usize) -> Option<usize> {
        self.take(bytes)
    }

    unsafe fn give_back(&self, address: usize, bytes: usize) {
        let mut free = self.0.lock();
        for at in (address..address + bytes).step_by(SMALL) {
            assert!(free.insert(at), "it is free already");
        }
    }
}

struct Bench {
    balloon: Balloon<Actual, &'static Heap>,
    heap: &'static Heap,
    actual: &'static AtomicU32,
    devices: Vec<SimulatedDevice>,
    given: BTreeSet<u32>,
}

fn bench(mib: usize) -> Bench {
    let state: &'static DeviceState = Box::leak(Box::new(state()));
    let blocks = (HEAP..HEAP + (mib << 20)).step_by(SMALL);
    let heap: &'static Heap = Box::leak(Box::new(Heap(Mutex::new(blocks.collect()))));
    let actual: &'static AtomicU32 = Box::leak(Box::default());
    let features = F_VERSION_1 | F_REPORTING;
    let balloon = Balloon::new(Actual(actual), state, features, 64, heap);
    let devices = balloon
        .inner
        .lock()
        .queues()
        .map(|(queue, _)| SimulatedDevice::new(queue.ring(), features))
        .collect();
    Bench {
        balloon,
        heap,
        actual,
        devices,
        given: BTreeSet::new(),
    }
}

impl Bench {
    fn want(&mut self, mib: u32) {
        self.balloon.state.config[0].store(mib * 256, Ordering::Relaxed);
        loop {
            self.balloon.poll();
            let mut did = false;
            for index in 0..2 {
                while let Some((head, chain)) = self.devices[index].take() {
                    let count = chain[0].1 as usize / 4;
                    // SAFETY: the driver names its numbers until the chain is given back.
                    let pages =
                        unsafe { std::slice::from_raw_parts(chain[0].0 as *const u32, count) };
                    for &page in pages {
                        let changed = match index {
                            0 => self.given.insert(page),
                            _ => self.given.remove(&page),
                        };
                        assert!(changed, "page {page} twice");
                    }
                    self.devices[index].give_back(head.into(), 0);
                    did = true;
                }
            }
            if !did {
                return;
            }
        }
    }

    fn free_mib(&self) -> usize {
        self.heap.0.lock().len()
    }
}

#[test]
fn pages_go_to_the_device_and_come_back_as_it_wishes() {
    let mut bench = bench(16);
    bench.want(5);
    assert_eq!(bench.given.len(), 0, "nobody follows yet");
    bench.balloon.follow();
    bench.want(5);
    assert_eq!((bench.given.len(), bench.free_mib()), (5 * 256, 11));
    assert_eq!(bench.actual.load(Ordering::Relaxed), 5 * 256);
    assert!(bench.given.iter().all(|&page| page as usize * PAGE >= HEAP));
    bench.want(2);
    assert!(bench.given.len() <= 2 * 256);
    bench.want(0);
    assert_eq!((bench.given.len(), bench.free_mib()), (0, 16));
    assert_eq!(bench.actual.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_not_free_is_not_given_and_asked_for_again_later() {
    let mut bench = bench(4);
    bench.balloon.follow();
    bench.want(100);
    assert_eq!((bench.given.len(), bench.free_mib()), (4 * 256, 0));
    assert_eq!(bench.actual.load(Ordering::Relaxed), 4 * 256);
    assert!(bench.balloon.deadline().is_some());
    bench.want(4);
    assert_eq!(bench.balloon.deadline(), None, "there is nothing to try");
}

#[test]
fn free_memory_is_reported_and_free_again_afterwards() {
    let mut bench = bench(7);
    assert_eq!(bench.balloon.begin_report(), 6 << 20);
    assert_eq!(bench.free_mib(), 1);
    assert_eq!(bench.balloon.begin_report(), 0, "one at a time");
    bench.balloon.poll();
    let context = Context::from_waker(Waker::noop());
    assert!(bench.balloon.reported(&context).is_pending());
    let (head, chain) = bench.devices[2].take().unwrap();
    assert_eq!(chain.len(), 3);
    assert!(
        chain
            .iter()
            .all(|&(_, bytes, writes)| bytes as usize == LARGE && writes)
    );
    bench.devices[2].give_back(head.into(), 0);
    bench.balloon.poll();
    assert!(bench.balloon.reported(&context).is_ready());
    assert_eq!(bench.free_mib(), 7);
}
