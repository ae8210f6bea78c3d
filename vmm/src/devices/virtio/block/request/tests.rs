use super::*;
use crate::devices::virtio::chain::Buffer;
use proptest::prelude::*;
use vm_memory::GuestAddress;

const RULES: Rules = Rules {
    bytes: 1 << 20,
    read_only: false,
    discard: true,
    write_zeroes: true,
};
const SECTORS: u64 = RULES.bytes / SECTOR;

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    header
}

fn frame(sent: u64, room: u64) -> Frame {
    Frame {
        readable: HEADER_BYTES as u64 + sent,
        writable: room,
    }
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut segment = sector.to_le_bytes().to_vec();
    segment.extend(sectors.to_le_bytes());
    segment.extend(flags.to_le_bytes());
    segment
}

fn parse_segments(kind: u32, segments: &[Vec<u8>]) -> Result<Request, Refusal> {
    let mut lead = header(kind, 0);
    lead.extend(segments.concat());
    let sent = lead.len() - HEADER_BYTES;
    parse(&lead, frame(sent as u64, 0), &RULES)
}

#[test]
fn reads_and_writes_within_the_disk_are_taken() {
    let at = Extent { at: 512, len: 1024 };
    let read = parse(&header(VIRTIO_BLK_T_IN, 1), frame(0, 1024), &RULES);
    assert_eq!(read, Ok(Request::Read(at)));
    let write = parse(&header(VIRTIO_BLK_T_OUT, 1), frame(1024, 0), &RULES);
    assert_eq!(write, Ok(Request::Write(at)));
    let last = parse(&header(VIRTIO_BLK_T_IN, SECTORS - 1), frame(0, 512), &RULES);
    assert!(last.is_ok());
}

#[test]
fn nothing_reaches_beyond_the_end() {
    for (sector, len) in [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (u64::MAX / 512 + 1, 512),
        (0, RULES.bytes + 512),
    ] {
        let refusal = Err(Refusal::BeyondEnd);
        let read = parse(&header(VIRTIO_BLK_T_IN, sector), frame(0, len), &RULES);
        assert_eq!(read, refusal, "{sector} {len}");
        let write = parse(&header(VIRTIO_BLK_T_OUT, sector), frame(len, 0), &RULES);
        assert_eq!(write, refusal, "{sector} {len}");
    }
}

#[test]
fn lengths_are_whole_sectors_and_not_nothing() {
    for kind in [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT] {
        let data = |len| match kind {
            VIRTIO_BLK_T_IN => frame(0, len),
            _ => frame(len, 0),
        };
        for len in [1, 511, 513] {
            let refusal = Err(Refusal::Ragged);
            assert_eq!(parse(&header(kind, 0), data(len), &RULES), refusal);
        }
        let header_only = parse(&header(kind, 0), data(0), &RULES);
        assert_eq!(header_only, Err(Refusal::NoData));
    }
}

#[test]
fn data_in_the_wrong_direction_is_refused() {
    let refusal = Err(Refusal::WrongDirection);
    let read = parse(&header(VIRTIO_BLK_T_IN, 0), frame(512, 512), &RULES);
    assert_eq!(read, refusal);
    let write = parse(&header(VIRTIO_BLK_T_OUT, 0), frame(512, 512), &RULES);
    assert_eq!(write, refusal);
}

#[test]
fn a_read_only_disk_is_not_changed() {
    let rules = Rules {
        read_only: true,
        ..RULES
    };
    let mut lead = header(VIRTIO_BLK_T_OUT, 0);
    let refusal = Err(Refusal::ReadOnly);
    assert_eq!(parse(&lead, frame(512, 0), &rules), refusal);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        lead = header(kind, 0);
        lead.extend(segment(0, 1, 0));
        assert_eq!(parse(&lead, frame(16, 0), &rules), refusal);
    }
    assert_eq!(Refusal::ReadOnly.status(), VIRTIO_BLK_S_IOERR as u8);
}

#[test]
fn short_headers_and_unknown_types_are_told_apart() {
    for len in 0..HEADER_BYTES {
        let lead = &header(VIRTIO_BLK_T_FLUSH, 0)[..len];
        let frame = Frame {
            readable: len as u64,
            writable: 0,
        };
        let refusal = parse(lead, frame, &RULES).unwrap_err();
        assert_eq!(refusal, Refusal::ShortHeader);
        assert_eq!(refusal.status(), VIRTIO_BLK_S_IOERR as u8);
    }
    for kind in [2, 3, 5, 14, 99, u32::MAX] {
        let refusal = parse(&header(kind, 0), frame(0, 512), &RULES).unwrap_err();
        assert_eq!(refusal, Refusal::UnknownType);
        assert_eq!(refusal.status(), VIRTIO_BLK_S_UNSUPP as u8);
    }
}

#[test]
fn what_was_not_negotiated_is_unknown() {
    let rules = Rules {
        discard: false,
        write_zeroes: false,
        ..RULES
    };
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        let mut lead = header(kind, 0);
        lead.extend(segment(0, 1, 0));
        let refused = parse(&lead, frame(16, 0), &rules);
        assert_eq!(refused, Err(Refusal::UnknownType));
    }
}

#[test]
fn the_serial_number_needs_its_room() {
    let lead = header(VIRTIO_BLK_T_GET_ID, 0);
    assert_eq!(parse(&lead, frame(0, 20), &RULES), Ok(Request::Serial));
    let short = parse(&lead, frame(0, 19), &RULES);
    assert_eq!(short, Err(Refusal::ShortSerial));
}

#[test]
fn segments_are_read_in_order() {
    let parts = [segment(0, 8, 0), segment(16, 4, UNMAP)];
    let Ok(Request::WriteZeroes(segments)) = parse_segments(VIRTIO_BLK_T_WRITE_ZEROES, &parts)
    else {
        panic!("refused");
    };
    let seen: Vec<_> = segments
        .as_slice()
        .iter()
        .map(|s| (s.extent.at, s.extent.len, s.unmap))
        .collect();
    assert_eq!(seen, [(0, 4096, false), (8192, 2048, true)]);
}

#[test]
fn bad_segments_are_refused() {
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        let refusal = |segments: &[Vec<u8>]| parse_segments(kind, segments).unwrap_err();
        assert_eq!(refusal(&[]), Refusal::Segments);
        assert_eq!(refusal(&[vec![0; 15]]), Refusal::Segments);
        assert_eq!(refusal(&[segment(0, 1, 0), vec![0; 1]]), Refusal::Segments);
        assert_eq!(refusal(&[segment(0, 0, 0)]), Refusal::Segments);
        let too_many = vec![segment(0, 1, 0); MAX_SEGMENTS + 1];
        assert_eq!(refusal(&too_many), Refusal::Segments);
        let too_long = segment(0, MAX_SEGMENT_SECTORS + 1, 0);
        assert_eq!(refusal(&[too_long]), Refusal::Segments);
        assert_eq!(refusal(&[segment(SECTORS, 1, 0)]), Refusal::BeyondEnd);
        assert_eq!(refusal(&[segment(u64::MAX, 8, 0)]), Refusal::BeyondEnd);
        for flags in [2, 3, 1 << 31] {
            let refusal = refusal(&[segment(0, 1, flags)]);
            assert_eq!(refusal, Refusal::SegmentFlags);
            assert_eq!(refusal.status(), VIRTIO_BLK_S_UNSUPP as u8);
        }
    }
    let unmap = parse_segments(VIRTIO_BLK_T_DISCARD, &[segment(0, 1, UNMAP)]);
    assert_eq!(unmap, Err(Refusal::SegmentFlags));
}

#[test]
fn the_status_is_the_last_byte_whatever_the_framing() {
    let buffer = |len| Buffer {
        address: GuestAddress(0x1000),
        len,
    };
    let mut chain = Chain {
        head: 0,
        readable: vec![buffer(10), buffer(6), buffer(512)],
        writable: Vec::new(),
    };
    assert_eq!(Frame::of(&chain), None);
    chain.writable = vec![buffer(500), buffer(13)];
    let expected = Frame {
        readable: 528,
        writable: 512,
    };
    assert_eq!(Frame::of(&chain), Some(expected));
}

proptest! {
    #[test]
    fn any_bytes_give_a_request_within_the_disk_or_a_refusal(
        kind in prop_oneof![0u32..16, any::<u32>()],
        sector in prop_oneof![0u64..3000, any::<u64>()],
        rest in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..280),
        extra in prop_oneof![Just(0u64), 0u64..4096, any::<u64>()],
        writable in prop_oneof![0u64..4096, any::<u64>()],
        read_only: bool,
    ) {
        let rules = Rules { read_only, ..RULES };
        let mut lead = header(kind, sector);
        lead.extend(rest);
        let frame = Frame { readable: (lead.len() as u64).saturating_add(extra), writable };
        let inside = |extent: Extent| extent.len > 0
            && extent.len.is_multiple_of(SECTOR)
            && extent.at.checked_add(extent.len).is_some_and(|end| end <= RULES.bytes);
        match parse(&lead, frame, &rules) {
            Ok(Request::Read(extent)) => prop_assert!(inside(extent)),
            Ok(Request::Write(extent)) => prop_assert!(inside(extent) && !read_only),
            Ok(Request::Discard(segments) | Request::WriteZeroes(segments)) => {
                prop_assert!(!read_only && !segments.as_slice().is_empty());
                prop_assert!(segments.as_slice().iter().all(|s| inside(s.extent)));
            }
            Ok(Request::Flush | Request::Serial) => {}
            Err(refusal) => prop_assert!(Refusal::ALL.iter().any(|(each, _)| *each == refusal)),
        }
    }
}
