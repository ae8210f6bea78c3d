use proptest::prelude::*;

use super::*;

/// Writes into a slot that was given, as a device does.
fn put(inbox: &mut Inbox, slot: u16, bytes: &[u8]) {
    let start = usize::from(slot) * inbox.slot;
    for (to, &byte) in inbox.memory[start..].iter_mut().zip(bytes) {
        to.write(byte);
    }
    // SAFETY: written above.
    unsafe { inbox.take(slot, bytes.len() as u32) };
}

fn give(inbox: &mut Inbox) -> u16 {
    inbox.give().unwrap().0
}

/// A header and a frame, in pieces as long as slots.
fn pieces(frame: &[u8], slot: usize, flags: u8) -> Vec<Vec<u8>> {
    let buffers = (vnet::LEN + frame.len()).div_ceil(slot) as u16;
    let header = Header {
        flags,
        buffers,
        ..Header::default()
    };
    let bytes = [&header.encode()[..], frame].concat();
    bytes.chunks(slot).map(<[u8]>::to_vec).collect()
}

#[test]
fn a_long_frame_in_neighbouring_slots_is_in_one_piece_already() {
    let mut inbox = Inbox::new(8, 64, true);
    let frame: Vec<u8> = (0..150).collect();
    for piece in pieces(&frame, 64, vnet::DATA_VALID) {
        assert!(inbox.front().is_none(), "the rest is yet to come");
        let slot = give(&mut inbox);
        put(&mut inbox, slot, &piece);
    }
    let front = inbox.front().unwrap();
    assert_eq!(front.bytes, frame);
    assert!(front.verified);
    assert!(inbox.gathered.is_empty());
    inbox.drop_front();
    assert!(inbox.front().is_none());
    assert_eq!(inbox.free(), 8);
}

#[test]
fn a_frame_in_slots_out_of_order_is_put_together() {
    let mut inbox = Inbox::new(8, 64, true);
    let slots: Vec<u16> = (0..3).map(|_| give(&mut inbox)).collect();
    let frame: Vec<u8> = (0..150).collect();
    for (piece, slot) in pieces(&frame, 64, 0).iter().zip(slots.iter().rev()) {
        put(&mut inbox, *slot, piece);
    }
    let front = inbox.front().unwrap();
    assert_eq!(front.bytes, frame);
    assert!(!front.verified);
    inbox.drop_front();
    assert_eq!(inbox.free(), 8);
}

#[test]
fn without_merging_each_slot_is_a_frame_whatever_the_header_says() {
    let mut inbox = Inbox::new(2, 64, false);
    let header = Header {
        buffers: 7,
        ..Header::default()
    };
    let slot = give(&mut inbox);
    put(&mut inbox, slot, &[&header.encode()[..], b"frame"].concat());
    assert_eq!(inbox.front().unwrap().bytes, b"frame");
}

#[test]
fn nonsense_is_dropped_and_its_slots_are_used_again() {
    let mut inbox = Inbox::new(4, 64, true);
    let header = |buffers| {
        Header {
            buffers,
            ..Header::default()
        }
        .encode()
    };
    let nonsense: [Vec<u8>; 5] = [
        vec![],
        vec![0; 5],
        header(1).to_vec(),
        [&header(0)[..], b"x"].concat(),
        [&header(5)[..], b"x"].concat(),
    ];
    for bytes in nonsense {
        let slot = give(&mut inbox);
        put(&mut inbox, slot, &bytes);
        assert!(inbox.front().is_none());
        assert_eq!(inbox.free(), 4);
    }
    // More than was asked for, in a slot.
    let slot = give(&mut inbox);
    inbox.memory.iter_mut().for_each(|byte| _ = byte.write(0));
    // SAFETY: all is written.
    unsafe { inbox.take(slot, 65) };
    assert!(inbox.front().is_none());
    // An empty piece.
    let (first, second) = (give(&mut inbox), give(&mut inbox));
    put(&mut inbox, first, &[&header(2)[..], &[0; 52]].concat());
    put(&mut inbox, second, &[]);
    assert!(inbox.front().is_none());
    assert_eq!(inbox.free(), 4);
}

proptest! {
    #[test]
    fn frames_come_in_the_order_and_shape_in_which_they_were_sent(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..600), 1..60),
        held in 0usize..4,
    ) {
        let mut inbox = Inbox::new(16, 128, true);
        let mut expected = std::collections::VecDeque::new();
        for frame in frames {
            while expected.len() > held {
                prop_assert_eq!(inbox.front().map(|f| f.bytes.to_vec()), expected.pop_front());
                inbox.drop_front();
            }
            let pieces = pieces(&frame, 128, 0);
            if pieces.len() > inbox.free() {
                continue;
            }
            for piece in pieces {
                let slot = give(&mut inbox);
                put(&mut inbox, slot, &piece);
            }
            expected.push_back(frame);
        }
        for frame in expected {
            prop_assert_eq!(inbox.front().map(|f| f.bytes.to_vec()), Some(frame));
            inbox.drop_front();
        }
        prop_assert_eq!(inbox.free(), 16);
    }
}
