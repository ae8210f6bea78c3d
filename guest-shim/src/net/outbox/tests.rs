use proptest::prelude::*;

use super::*;
use crate::net::merge::tests::{device, stream};
use crate::net::wire::tests::{Segment, datagram};

const V4: (&str, &str) = ("192.0.2.1:1000", "192.0.2.2:80");
const V6: (&str, &str) = ("[2001:db8::1]:1000", "[2001:db8::2]:80");

const ALL: Offloads = Offloads {
    checksum: true,
    segments4: true,
    segments6: true,
};

fn write(outbox: &mut Outbox, frame: &[u8]) {
    outbox.write(frame.len(), None, &mut |to| to.copy_from_slice(frame));
}

/// What arrives on the wire, of a parcel.
fn sent(outbox: &Outbox, parcel: Parcel) -> Vec<Vec<u8>> {
    let start = parcel.address as usize - outbox.memory.as_ptr() as usize;
    let bytes = &outbox.memory[start..start + parcel.length as usize];
    let (header, frame) = bytes.split_at(vnet::LEN);
    device(&Header::decode(header.try_into().unwrap()), frame)
}

fn take_all(outbox: &mut Outbox) -> Vec<Parcel> {
    core::iter::from_fn(|| outbox.take()).collect()
}

#[test]
fn frames_arrive_as_they_were_written() {
    let mut outbox = Outbox::new(64 << 10, 2000, Offloads::default());
    let frames: Vec<_> = stream(V4, 1, &[0, 10, 1460])
        .iter()
        .map(Segment::frame)
        .collect();
    frames.iter().for_each(|frame| write(&mut outbox, frame));
    let parcels = take_all(&mut outbox);
    let arrived: Vec<_> = parcels
        .iter()
        .flat_map(|&parcel| sent(&outbox, parcel))
        .collect();
    assert_eq!(arrived, frames);
}

#[test]
fn segments_of_a_flow_become_one_parcel() {
    for ends in [V4, V6] {
        let mut outbox = Outbox::new(256 << 10, 65535 + 14, ALL);
        let frames: Vec<_> = stream(ends, 1, &[1400; 30])
            .iter()
            .map(Segment::frame)
            .collect();
        frames.iter().for_each(|frame| write(&mut outbox, frame));
        let parcels = take_all(&mut outbox);
        assert_eq!(parcels.len(), 1);
        assert_eq!(sent(&outbox, parcels[0]), frames);
    }
}

#[test]
fn a_frame_between_ends_a_run_and_neither_is_harmed() {
    let mut outbox = Outbox::new(256 << 10, 65535 + 14, ALL);
    let mut frames: Vec<_> = stream(V6, 1, &[1400; 4])
        .iter()
        .map(Segment::frame)
        .collect();
    frames.insert(2, datagram(V6.0, V6.1, &[9; 1200]));
    frames.insert(4, datagram(V6.0, V6.1, b"short"));
    frames.iter().for_each(|frame| write(&mut outbox, frame));
    let parcels = take_all(&mut outbox);
    assert_eq!(parcels.len(), 5);
    let arrived: Vec<_> = parcels
        .iter()
        .flat_map(|&parcel| sent(&outbox, parcel))
        .collect();
    assert_eq!(arrived, frames);
}

#[test]
fn a_frame_to_be_taken_apart_says_so() {
    let mut outbox = Outbox::new(256 << 10, 65535 + 14, ALL);
    let segments = stream(V4, 1, &[5000]);
    let frame = segments[0].frame();
    outbox.write(frame.len(), Some(1000), &mut |to| {
        to.copy_from_slice(&frame)
    });
    let parcel = outbox.take().unwrap();
    let expected: Vec<_> = stream(V4, 1, &[1000; 5])
        .iter()
        .map(Segment::frame)
        .collect();
    let payloads = |frames: &[Vec<u8>]| {
        frames
            .iter()
            .map(|f| f[54..].to_vec())
            .collect::<Vec<_>>()
            .concat()
    };
    let arrived = sent(&outbox, parcel);
    assert_eq!(arrived.len(), 5);
    assert_eq!(payloads(&arrived), payloads(&expected));
}

#[test]
fn room_comes_back_in_any_order_and_a_quiet_card_uses_the_beginning() {
    let mut outbox = Outbox::new(16 << 10, 2000, Offloads::default());
    let frame = stream(V4, 1, &[1900])[0].frame();
    let mut parcels = Vec::new();
    while outbox.has_room() {
        write(&mut outbox, &frame);
        parcels.push(outbox.take().unwrap());
    }
    assert!(parcels.len() >= 7);
    // What is lost for want of room harms nobody.
    let more = outbox.waiting();
    for _ in 0..10 {
        write(&mut outbox, &frame);
    }
    assert!(outbox.waiting() <= more + 1);
    take_all(&mut outbox)
        .iter()
        .for_each(|parcel| outbox.release(parcel.id));
    for parcel in parcels.iter().skip(1).rev() {
        outbox.release(parcel.id);
        assert!(!outbox.has_room());
    }
    outbox.release(parcels[0].id);
    assert!(outbox.has_room());
    write(&mut outbox, &frame);
    let again = outbox.take().unwrap();
    assert_eq!(again.address, outbox.memory.as_ptr() as u64);
    outbox.release(again.id);
    outbox.release(again.id);
    outbox.release(u64::MAX);
}

#[derive(Debug, Clone)]
enum Step {
    Segments(usize, usize),
    Datagram(usize),
    Take,
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1usize..1460, 1usize..12).prop_map(|(size, count)| Step::Segments(size, count)),
        (0usize..1400).prop_map(Step::Datagram),
        Just(Step::Take),
        any::<usize>().prop_map(Step::Release),
    ]
}

proptest! {
    #[test]
    fn whatever_is_written_arrives_in_order(
        steps in proptest::collection::vec(step(), 1..120),
        v6: bool,
        offloads in prop_oneof![Just(Offloads::default()), Just(ALL)],
    ) {
        let ends = if v6 { V6 } else { V4 };
        let mut outbox = Outbox::new(48 << 10, 1600, offloads);
        let mut sequence = 1u32;
        let mut written = Vec::new();
        let mut arrived = Vec::new();
        // What was in a parcel when it was shown to the device, until it is released.
        let mut out: Vec<(Parcel, Vec<Vec<u8>>)> = Vec::new();
        let mut put = |outbox: &mut Outbox, frame: Vec<u8>| {
            if outbox.has_room() {
                write(outbox, &frame);
                written.push(frame);
            }
        };
        for step in steps {
            match step {
                Step::Segments(size, count) => {
                    let segments = stream(ends, sequence, &vec![size; count]);
                    sequence = sequence.wrapping_add((size * count) as u32);
                    segments.iter().for_each(|segment| put(&mut outbox, segment.frame()));
                }
                Step::Datagram(size) => put(&mut outbox, datagram(ends.0, ends.1, &vec![3; size])),
                Step::Take => {
                    while let Some(parcel) = outbox.take() {
                        let frames = sent(&outbox, parcel);
                        arrived.extend(frames.clone());
                        out.push((parcel, frames));
                    }
                }
                Step::Release(which) if !out.is_empty() => {
                    let (parcel, frames) = out.swap_remove(which % out.len());
                    prop_assert_eq!(sent(&outbox, parcel), frames, "changed under the device");
                    outbox.release(parcel.id);
                }
                Step::Release(_) => {}
            }
        }
        while let Some(parcel) = outbox.take() {
            arrived.extend(sent(&outbox, parcel));
        }
        prop_assert_eq!(arrived, written);
    }
}
