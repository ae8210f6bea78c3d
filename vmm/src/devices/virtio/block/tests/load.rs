//! Many requests at a time, and resets in their midst.

use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_bindings::virtio_blk::*;

use super::guest::*;
use crate::devices::virtio::mmio::register;
use crate::devices::virtio::testing::{DATA, Piece};

#[test]
fn a_thousand_requests_at_any_depth_are_each_answered_once() {
    with_each(|guest| {
        let pattern: Vec<u8> = (0..BYTES).map(|i| (i / 512 * 7) as u8).collect();
        guest.file.write_all_at(&pattern, 0).unwrap();
        let (mut next, mut open) = (0u64, Vec::<(u16, u64, u64, u64)>::new());
        let mut done = 0;
        while done < 1000 {
            // The driver takes descriptors in turn: those of the oldest must not come round.
            let oldest = open.iter().map(|request| request.3).min();
            while next < 1000 && next - oldest.unwrap_or(next) < 80 && open.len() < 80 {
                let sector = next * 7919 % (BYTES / 512);
                let (head, room) = match next % 5 {
                    0 => guest.offer_write(sector, &[(sector * 7) as u8; 512]),
                    _ => guest.offer_read(sector, 512),
                };
                open.push((head, room, sector, next));
                next += 1;
            }
            assert_eq!(guest.driver.ring(0).fault, None);
            guest.driver.settle();
            for (head, written) in guest.driver.take_used(0) {
                let at = open.iter().position(|request| request.0 == head).unwrap();
                let (_, room, sector, number) = open.swap_remove(at);
                let wrote = number % 5 == 0;
                assert_eq!(guest.status(room), 0);
                assert_eq!(written, if wrote { 1 } else { 513 });
                let data = guest.driver.read(room + DATA_AT, 512);
                assert_eq!(data, [(sector * 7) as u8; 512], "sector {sector}");
                done += 1;
            }
        }
        assert!(open.is_empty());
        assert_eq!(guest.driver.counter("reads"), 800);
        assert_eq!(guest.driver.counter("writes"), 200);
        assert!(guest.driver.counter("in_flight_max") > 1);
        if guest.driver.counter("bounced") + guest.driver.counter("retries") == 0 {
            assert!(guest.driver.counter("submissions") < 1000);
        }
    });
}

#[test]
fn large_requests_are_done_whole_in_bounded_batches() {
    with_each(|guest| {
        let pattern: Vec<u8> = (0..4u32 << 20).map(|i| (i >> 9) as u8).collect();
        guest.file.write_all_at(&pattern, 0).unwrap();
        let rooms = [0, 1, 2].map(|i| DATA + (i * 5 + 1) * (4 << 20));
        for room in rooms {
            let header = guest.header(VIRTIO_BLK_T_IN, 0);
            let data = Piece::writable(room, 4 << 20);
            guest.offer(header, &[data]);
        }
        let used = guest.finish(3);
        assert!(used.iter().all(|(_, written)| *written == (4 << 20) + 1));
        for room in rooms {
            assert!(guest.driver.read(room, 4 << 20) == pattern);
        }
    });
}

#[test]
fn flushes_share_a_sync() {
    with_each(|guest| {
        let rooms: Vec<u64> = (0..64)
            .map(|_| {
                let room = guest.header(VIRTIO_BLK_T_FLUSH, 0);
                guest.offer(room, &[]);
                room
            })
            .collect();
        guest.finish(64);
        assert!(rooms.iter().all(|room| guest.status(*room) == 0));
        assert_eq!(guest.driver.counter("flushes"), 64);
        assert!(guest.driver.counter("syncs") <= 2);
    });
}

#[test]
fn a_reset_while_requests_are_under_way_leaves_a_sound_device() {
    with_each(|guest| {
        for round in 0..20 {
            for i in 0..60 {
                match i % 6 {
                    0 => {
                        let room = guest.header(VIRTIO_BLK_T_FLUSH, 0);
                        guest.offer(room, &[]);
                    }
                    1 => drop(guest.offer_write(i * 8, &[round; 4096])),
                    _ => drop(guest.offer_read(i * 8, 4096)),
                }
            }
            guest.driver.ring(0);
            // This waits until nothing uses memory any more.
            guest.driver.bring_up(FEATURES);
            assert_eq!(guest.driver.take_used(0), []);
            assert_eq!(guest.write(9, &[round; 512]), 0);
            assert_eq!(guest.read(9, 512), (0, vec![round; 512]));
        }
    });
}

#[test]
fn a_reset_after_a_fault_is_done_when_the_disk_tells() {
    with_each(|guest| {
        for i in 0..30 {
            guest.offer_read(i * 8, 4096);
        }
        // There is no room for a status in this one.
        guest.driver.offer(0, &[Piece::readable(DATA, 16)]);
        assert!(guest.driver.ring(0).fault.is_some());
        guest.driver.set(register::STATUS, 0);
        while guest.driver.get(register::STATUS) != 0 {
            let sources = guest.driver.device.sources();
            let mut fds = [PollFd::new(&sources[0].fd, PollFlags::IN)];
            let limit = Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            };
            assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1);
            guest.driver.serve();
        }
        guest.driver.bring_up(FEATURES);
        assert_eq!(guest.write(1, &[1; 512]), 0);
    });
}
