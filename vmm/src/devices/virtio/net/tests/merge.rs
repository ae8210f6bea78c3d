//! Whatever frames come and whatever buffers they find: they arrive whole and in order.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// Chains of one to three pieces, each chain with room for the header.
fn chains() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let chain = prop::collection::vec(12u32..4000, 1..4);
    prop::collection::vec(chain, 1..40)
}

/// Mostly frames of everyday lengths.
fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let len = prop_oneof![4 => 14usize..1518, 1 => 1518..=MAX_FRAME as usize];
    prop::collection::vec(len, 1..12)
}

/// A driver that offers these chains again and again, `at_once` at a time.
struct Guest {
    driver: Driver,
    chains: Vec<Vec<u32>>,
    next: usize,
    /// What lies where of the chains that are out.
    out: HashMap<u16, Vec<(u64, u32)>>,
}

impl Guest {
    fn offer(&mut self, at_once: usize) {
        for _ in 0..at_once {
            let chain = &self.chains[self.next % self.chains.len()];
            // At most 40 chains of 3 descriptors are out.
            if self.out.len() == 40 {
                return;
            }
            let base = RX + (self.next % 64) as u64 * STRIDE;
            let places: Vec<(u64, u32)> =
                (base..).step_by(4096).zip(chain.iter().copied()).collect();
            let pieces: Vec<Piece> = places
                .iter()
                .map(|&(at, len)| Piece::writable(at, len))
                .collect();
            let head = self.driver.offer(RECEIVE, &pieces);
            self.out.insert(head, places);
            self.next += 1;
        }
        self.driver.ring(RECEIVE);
    }

    /// The next frame that is there as a whole.
    fn take(&mut self) -> Option<Vec<u8>> {
        let first = self.driver.used(RECEIVE)?;
        let mut bytes = self.contents(first);
        for _ in 1..u16::from_le_bytes([bytes[10], bytes[11]]) {
            let next = self.driver.used(RECEIVE).expect("half a frame shows");
            bytes.extend(self.contents(next));
        }
        Some(bytes.split_off(HEADER_BYTES))
    }

    fn contents(&mut self, (head, written): (u16, u32)) -> Vec<u8> {
        let places = self.out.remove(&head).unwrap();
        let pieces = places
            .iter()
            .flat_map(|&(at, len)| self.driver.read(at, len as usize));
        pieces.take(written as usize).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn frames_arrive_whole_and_in_order(
        chains in chains(),
        lengths in lengths(),
        at_once in 1usize..12,
    ) {
        let work = MERGEABLE | 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_TSO6;
        let (driver, host) = driver(work);
        let mut guest = Guest { driver, chains, next: 0, out: HashMap::new() };
        // Frames that 40 chains cannot hold would wait for ever.
        let least: u64 = guest.chains.iter().map(|chain| chain.iter().map(|&l| u64::from(l)).sum())
            .min().unwrap_or(0);
        let fits = |len: &usize| (*len + HEADER_BYTES) as u64 <= 38 * least;
        let mut coming: VecDeque<usize> = lengths.into_iter().filter(fits).collect();
        let mut expected = coming.clone();
        let mut idle = 0;
        while let Some(&len) = expected.front() {
            if let Some(len) = coming.pop_front() {
                host_sends(&host, &frame(len));
            }
            guest.driver.settle();
            guest.offer(at_once);
            idle += 1;
            prop_assert!(idle < 200, "a frame of {} bytes does not come", len);
            while let Some(got) = guest.take() {
                prop_assert_eq!(Some(got.len()), expected.pop_front());
                prop_assert_eq!(&got, &frame(got.len()));
                idle = 0;
            }
        }
        prop_assert!(!guest.driver.needs_reset());
        prop_assert_eq!(guest.driver.counter("rx_dropped_truncated"), 0);
    }
}
