use std::collections::VecDeque;

use super::*;

/// The other end: takes chains as a device does and gives them back in any order it likes.
struct SimulatedDevice<const N: usize> {
    ring: &'static Ring<N>,
    next: u16,
    used: u16,
}

/// A chain as the device sees it: its head, and address, length and direction of its buffers.
type Seen = (u16, Vec<(u64, u32, bool)>);

impl<const N: usize> SimulatedDevice<N> {
    fn new(ring: &'static Ring<N>) -> Self {
        Self {
            ring,
            next: 0,
            used: 0,
        }
    }

    fn take(&mut self) -> Option<Seen> {
        if self.ring.available.index.load(Ordering::Acquire) == self.next {
            return None;
        }
        let slot = usize::from(self.next) % N;
        let head = self.ring.available.heads[slot].load(Ordering::Relaxed);
        self.next = self.next.wrapping_add(1);
        let mut buffers = Vec::new();
        let mut at = head;
        loop {
            let descriptor = &self.ring.descriptors[usize::from(at)];
            let flags = descriptor.flags.load(Ordering::Relaxed);
            buffers.push((
                descriptor.address.load(Ordering::Relaxed),
                descriptor.length.load(Ordering::Relaxed),
                flags & WRITE != 0,
            ));
            assert!(buffers.len() <= N, "a chain that loops");
            if flags & NEXT == 0 {
                return Some((head, buffers));
            }
            at = descriptor.next.load(Ordering::Relaxed);
        }
    }

    fn give_back(&mut self, head: u16, written: u32) {
        let chain = &self.ring.used.chains[usize::from(self.used) % N];
        chain.head.store(u32::from(head), Ordering::Relaxed);
        chain.written.store(written, Ordering::Relaxed);
        self.used = self.used.wrapping_add(1);
        self.ring.used.index.store(self.used, Ordering::Release);
    }
}

fn pair<const N: usize>() -> (Queue<N>, SimulatedDevice<N>) {
    let ring: &'static Ring<N> = Box::leak(Box::new(Ring::new()));
    (Queue::new(ring), SimulatedDevice::new(ring))
}

fn add<const N: usize>(queue: &mut Queue<N>, chain: &[Buffer]) -> Result<u16, QueueFull> {
    // SAFETY: the simulated device looks at addresses, never at what is there.
    unsafe { queue.add(chain) }
}

fn read(address: u64) -> Buffer {
    Buffer {
        address,
        length: 10,
        device_writes: false,
    }
}

fn write(address: u64) -> Buffer {
    Buffer {
        address,
        length: 20,
        device_writes: true,
    }
}

#[test]
fn the_layout_is_that_of_the_specification() {
    let ring = Box::leak(Box::new(Ring::<16>::new()));
    let base = ring.descriptors_address();
    assert_eq!(base % 16, 0);
    assert_eq!(ring.available_address(), base + 16 * 16);
    assert_eq!(ring.used_address() % 4, 0);
    assert!(ring.used_address() >= ring.available_address() + 4 + 2 * 16 + 2);
    assert_eq!(size_of::<Descriptor>(), 16);
    assert_eq!(size_of::<UsedChain>(), 8);
}

#[test]
fn the_device_sees_a_chain_only_once_it_is_published() {
    let (mut queue, mut device) = pair::<4>();
    let head = add(&mut queue, &[read(1), write(2)]).unwrap();
    assert_eq!(device.take(), None);
    assert!(queue.publish());
    assert_eq!(
        device.take(),
        Some((head, vec![(1, 10, false), (2, 20, true)]))
    );
    assert_eq!(device.take(), None);
    assert_eq!(queue.pop(), None);
    device.give_back(head, 20);
    assert_eq!(queue.pop(), Some(Done { head, written: 20 }));
    assert_eq!(queue.pop(), None);
    assert!(queue.is_empty());
}

#[test]
fn a_chain_needs_as_many_free_descriptors_as_it_has_buffers() {
    let (mut queue, mut device) = pair::<4>();
    let head = add(&mut queue, &[read(1), read(2), read(3)]).unwrap();
    assert_eq!(add(&mut queue, &[read(4), write(5)]), Err(QueueFull));
    add(&mut queue, &[read(4)]).unwrap();
    assert_eq!(add(&mut queue, &[read(5)]), Err(QueueFull));
    queue.publish();
    device.give_back(head, 0);
    queue.pop().unwrap();
    add(&mut queue, &[read(6), read(7), write(8)]).unwrap();
    assert_eq!(add(&mut queue, &[read(9)]), Err(QueueFull));
}

#[test]
fn a_device_that_polls_gets_no_doorbell() {
    let (mut queue, _) = pair::<4>();
    queue.ring.used.flags.store(NO_NOTIFY, Ordering::Relaxed);
    add(&mut queue, &[read(1)]).unwrap();
    assert!(!queue.publish());
    queue.ring.used.flags.store(0, Ordering::Relaxed);
    assert!(queue.publish());
}

/// More chains than an index can count, of changing length, given back out of order: every chain
/// arrives unharmed and comes back once, and no descriptor is lost.
#[test]
fn chains_survive_the_wrap_of_the_indices_and_any_order() {
    let (mut queue, mut device) = pair::<8>();
    let mut expected = VecDeque::new();
    let mut held: Vec<u16> = Vec::new();
    let mut out = std::collections::BTreeSet::new();
    let mut came_back = 0;
    let mut random = 1u32;
    for round in 0..200_000u64 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let buffers = 1 + (random >> 16) as usize % 4;
        let chain: Vec<Buffer> = (0..buffers)
            .map(|i| {
                let address = round << 8 | i as u64;
                if i < 2 { read(address) } else { write(address) }
            })
            .collect();
        if let Ok(head) = add(&mut queue, &chain) {
            assert!(out.insert(head), "head {head} is in use twice");
            let seen = chain
                .iter()
                .map(|b| (b.address, b.length, b.device_writes))
                .collect::<Vec<_>>();
            expected.push_back((head, seen));
            queue.publish();
        }
        while let Some(seen) = device.take() {
            assert_eq!(Some(&seen), expected.front());
            expected.pop_front();
            held.push(seen.0);
        }
        if random >> 31 == 0 && !held.is_empty() {
            let which = (random >> 8) as usize % held.len();
            device.give_back(held.swap_remove(which), round as u32);
        }
        while let Some(done) = queue.pop() {
            assert!(out.remove(&done.head), "head {} came back twice", done.head);
            came_back += 1;
        }
    }
    for head in held {
        device.give_back(head, 0);
    }
    while let Some(done) = queue.pop() {
        assert!(out.remove(&done.head));
    }
    assert!(out.is_empty() && queue.is_empty());
    assert!(came_back > 65_536, "the indices did not wrap");
    add(&mut queue, &[read(0); 8]).unwrap();
}

/// A device on another thread: what it reads is complete when it sees it, and the other way round.
#[test]
fn a_device_on_another_processor_sees_whole_chains() {
    const CHAINS: u64 = 100_000;
    let (mut queue, mut device) = pair::<4>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for expected in 0..CHAINS {
                let (head, buffers) = loop {
                    match device.take() {
                        Some(seen) => break seen,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(buffers, [(expected, 10, false), (expected + 1, 20, true)]);
                device.give_back(head, expected as u32);
            }
        });
        let mut added = 0;
        let mut popped = 0;
        while popped < CHAINS {
            if added < CHAINS && add(&mut queue, &[read(added), write(added + 1)]).is_ok() {
                added += 1;
                queue.publish();
            }
            match queue.pop() {
                Some(done) => {
                    assert_eq!(u64::from(done.written), popped);
                    popped += 1;
                }
                None => std::thread::yield_now(),
            }
        }
    });
}
