use proptest::prelude::*;

use super::*;
use crate::net::wire::tests::{Segment, datagram, slow_checksum};

/// What a device does with a frame and its header, by the word of the standard and nothing that is
/// tested here.
pub(crate) fn device(header: &Header, frame: &[u8]) -> Vec<Vec<u8>> {
    let start = usize::from(header.csum_start);
    if header.gso_type == gso::NONE {
        let mut frame = frame.to_vec();
        if header.flags & vnet::NEEDS_CSUM != 0 {
            let sum = slow_checksum(&frame[start..]);
            let at = start + usize::from(header.csum_offset);
            frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        return vec![frame];
    }
    assert_eq!(header.flags, vnet::NEEDS_CSUM);
    let v6 = header.gso_type == gso::TCPV6;
    let headers = usize::from(header.header_len);
    let (template, payload) = frame.split_at(headers);
    let chunks: Vec<_> = payload.chunks(header.gso_size.into()).collect();
    let mut frames = Vec::new();
    let mut done = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        let mut out = template.to_vec();
        let sequence = u32::from_be_bytes(out[start + 4..start + 8].try_into().unwrap());
        out[start + 4..start + 8].copy_from_slice(&sequence.wrapping_add(done).to_be_bytes());
        if index + 1 < chunks.len() {
            out[start + 13] &= !(flag::PSH | flag::FIN);
        }
        let length = (headers - start + chunk.len()) as u16;
        let mut pseudo = Vec::new();
        if v6 {
            out[18..20].copy_from_slice(&length.to_be_bytes());
            pseudo.extend(&out[22..54]);
        } else {
            let total = length + (start - ETHERNET) as u16;
            out[16..18].copy_from_slice(&total.to_be_bytes());
            out[24..26].fill(0);
            let sum = slow_checksum(&out[ETHERNET..start]);
            out[24..26].copy_from_slice(&sum.to_be_bytes());
            pseudo.extend(&out[26..34]);
        }
        out[start + 16..start + 18].fill(0);
        pseudo.extend([0, 6]);
        pseudo.extend(length.to_be_bytes());
        pseudo.extend(&out[start..]);
        pseudo.extend(*chunk);
        let sum = slow_checksum(&pseudo);
        out[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
        out.extend(*chunk);
        frames.push(out);
        done += chunk.len() as u32;
    }
    frames
}

const V4: (&str, &str) = ("192.0.2.1:1000", "192.0.2.2:80");
const V6: (&str, &str) = ("[2001:db8::1]:1000", "[2001:db8::2]:80");

/// Segments of a stream that begins at a sequence number.
pub(crate) fn stream(ends: (&str, &str), start: u32, sizes: &[usize]) -> Vec<Segment> {
    let mut sequence = start;
    sizes
        .iter()
        .map(|&size| {
            let mut segment = Segment::new(ends.0, ends.1);
            segment.sequence = sequence;
            segment.payload = (0..size)
                .map(|n| (n as u32).wrapping_add(sequence) as u8)
                .collect();
            sequence = sequence.wrapping_add(size as u32);
            segment
        })
        .collect()
}

/// Joins as many as can be joined; the frame, and the size of its segments.
fn join(segments: &[Segment]) -> (Vec<u8>, Option<u16>, usize) {
    let mut frames = segments.iter().map(Segment::frame);
    let mut joined = frames.next().unwrap();
    let mut run = Run::begin(&joined).unwrap();
    let mut count = 1;
    for next in frames {
        let length = joined.len();
        if !run.join(&mut joined, length, &next) {
            break;
        }
        joined.extend(&next[run.headers()..]);
        count += 1;
    }
    let size = run.finish(&mut joined);
    (joined, size, count)
}

#[test]
fn joined_segments_are_taken_apart_into_what_they_were() {
    for ends in [V4, V6] {
        let mut segments = stream(ends, u32::MAX - 2000, &[1000, 1000, 1000, 400]);
        segments[3].flags |= flag::PSH | flag::FIN;
        let (mut joined, size, count) = join(&segments);
        assert_eq!((size, count), (Some(1000), 4));
        let header = offload(&mut joined, size);
        let expected: Vec<_> = segments.iter().map(Segment::frame).collect();
        assert_eq!(device(&header, &joined), expected);
    }
}

#[test]
fn a_segment_alone_is_left_as_it_is() {
    let segments = stream(V4, 5, &[1000]);
    assert_eq!(join(&segments), (segments[0].frame(), None, 1));
}

#[test]
fn what_does_not_go_on_is_not_joined() {
    type Change = fn(&mut Segment);
    let changes: [(&str, Change); 8] = [
        ("a gap", |s| s.sequence += 1),
        ("a longer segment", |s| s.payload.push(0)),
        ("no payload", |s| s.payload.clear()),
        ("another port", |s| s.from.set_port(1001)),
        ("another address", |s| {
            s.to = "192.0.2.3:80".parse().unwrap()
        }),
        ("a reset", |s| s.flags |= flag::RST),
        ("no acknowledgement", |s| s.flags = flag::PSH),
        ("options", |s| s.options = vec![1; 4]),
    ];
    for (what, change) in changes {
        let mut segments = stream(V4, 5, &[1000, 1000]);
        change(&mut segments[1]);
        assert_eq!(join(&segments).2, 1, "{what}");
    }
}

#[test]
fn a_short_segment_and_one_that_pushes_are_the_last() {
    assert_eq!(join(&stream(V6, 5, &[1000, 900, 900])).2, 2);
    let mut segments = stream(V6, 5, &[1000, 1000, 1000]);
    segments[1].flags |= flag::PSH;
    assert_eq!(join(&segments).2, 2);
}

#[test]
fn only_plain_data_begins_a_run() {
    for flags in [
        flag::SYN,
        flag::ACK | flag::FIN,
        flag::ACK | flag::PSH,
        flag::ACK | flag::RST,
    ] {
        let mut segment = stream(V4, 5, &[10]).remove(0);
        segment.flags = flags;
        assert!(Run::begin(&segment.frame()).is_none());
    }
    assert!(Run::begin(&stream(V4, 5, &[0])[0].frame()).is_none());
    assert!(Run::begin(&datagram(V4.0, V4.1, b"x")).is_none());
}

#[test]
fn a_run_is_no_longer_than_a_packet_can_be() {
    for (ends, headers) in [(V4, 40), (V6, 60)] {
        let (joined, _, count) = join(&stream(ends, 5, &[1400; 60]));
        assert!(joined.len() - ETHERNET <= LONGEST_PACKET);
        assert_eq!(count, (LONGEST_PACKET - headers) / 1400);
    }
}

#[test]
fn the_longest_packet_of_full_segments_has_no_short_one() {
    let longest = longest_of_full_segments(1500, 40);
    assert_eq!((longest - 40) % 1460, 0);
    assert!(longest <= LONGEST_PACKET && longest + 1460 > LONGEST_PACKET);
}

proptest! {
    #[test]
    fn whatever_is_joined_comes_apart_again(
        v6: bool,
        start: u32,
        size in 1usize..1460,
        full in 0usize..44,
        last in 0usize..1460,
        options in 0usize..4,
    ) {
        let ends = if v6 { V6 } else { V4 };
        let mut sizes = vec![size; full + 1];
        sizes.extend((last > 0).then_some(last));
        let mut segments = stream(ends, start, &sizes);
        for segment in &mut segments {
            segment.options = vec![1; options * 4];
        }
        let (mut joined, merged, count) = join(&segments);
        prop_assert!(count > full, "{count} of {sizes:?}");
        let header = offload(&mut joined, merged);
        let expected: Vec<_> = segments[..count].iter().map(Segment::frame).collect();
        prop_assert_eq!(device(&header, &joined), expected);
    }
}
