use super::*;
use proptest::prelude::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ALL: TapOffloads = TapOffloads {
    checksum: true,
    tso4: true,
    tso6: true,
};
const NONE: TapOffloads = TapOffloads {
    checksum: false,
    tso4: false,
    tso6: false,
};

fn rules(work: TapOffloads) -> Rules {
    Rules {
        work,
        mtu: 1500,
        mac: MAC,
    }
}

/// The first bytes of a chain: `header`, then an Ethernet header from `source`.
fn judged(header: Header, source: [u8; 6]) -> Vec<u8> {
    [&header.bytes()[..], &[0xff; 6], &source, &[8, 0]].concat()
}

fn judge(header: Header, total: u64, work: TapOffloads) -> Result<Header, Refusal> {
    judge_sent(&judged(header, MAC), total, &rules(work))
}

fn checksum(start: u16, offset: u16) -> Header {
    Header {
        flags: 1,
        csum_start: start,
        csum_offset: offset,
        ..Header::default()
    }
}

fn segments(gso_type: u8, gso_size: u16) -> Header {
    Header {
        gso_type,
        gso_size,
        hdr_len: 54,
        ..checksum(34, 16)
    }
}

#[test]
fn a_header_has_its_fields_where_the_standard_has_them() {
    let bytes = [1, 4, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    let header = Header::parse(&bytes);
    assert_eq!(header.gso_size, 0x0504);
    assert_eq!(header.buffers, 0x0b0a);
    assert_eq!(header.bytes(), bytes);
}

#[test]
fn segmentation_needs_checksums_to_be_negotiated() {
    let tso = 1 << VIRTIO_NET_F_HOST_TSO4 | 1 << VIRTIO_NET_F_GUEST_TSO6;
    assert_eq!(device_work(tso), NONE);
    assert_eq!(driver_work(tso), NONE);
    let both = tso | 1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_GUEST_CSUM;
    assert!(device_work(both).tso4 && !device_work(both).tso6);
    assert!(driver_work(both).tso6 && !driver_work(both).tso4);
}

#[test]
fn frames_shorter_than_their_headers_are_refused() {
    for len in 0..JUDGED_BYTES {
        let bytes = &judged(Header::default(), MAC)[..len];
        let refused = judge_sent(bytes, len as u64, &rules(NONE));
        assert_eq!(refused, Err(Refusal::Short), "{len}");
    }
    assert!(judge(Header::default(), JUDGED_BYTES as u64, NONE).is_ok());
}

#[test]
fn a_frame_is_as_long_as_the_mtu_allows_or_any_frame_if_it_is_cut() {
    let header = HEADER_BYTES as u64;
    let plain = header + 1500 + 18;
    assert!(judge(Header::default(), plain, ALL).is_ok());
    assert_eq!(
        judge(Header::default(), plain + 1, ALL),
        Err(Refusal::Oversized)
    );
    assert!(judge(segments(1, 1448), header + MAX_FRAME, ALL).is_ok());
    for total in [header + MAX_FRAME + 1, 1 << 32, u64::MAX] {
        let refused = judge(segments(1, 1448), total, ALL);
        assert_eq!(refused, Err(Refusal::Oversized));
    }
}

#[test]
fn a_checksum_lies_inside_the_frame_and_was_negotiated() {
    let total = HEADER_BYTES as u64 + 60;
    assert!(judge(checksum(34, 24), total, ALL).is_ok());
    for bad in [
        checksum(34, 25),
        checksum(60, 0),
        checksum(u16::MAX, u16::MAX),
    ] {
        assert_eq!(judge(bad, total, ALL), Err(Refusal::Checksum));
    }
    assert_eq!(judge(checksum(34, 6), total, NONE), Err(Refusal::Checksum));
}

#[test]
fn segments_are_of_a_known_kind_that_was_negotiated_and_of_some_size() {
    let total = HEADER_BYTES as u64 + 3000;
    let refused = Err(Refusal::Segmentation);
    assert!(judge(segments(1, MIN_SEGMENT), total, ALL).is_ok());
    assert!(judge(segments(4, 1440), total, ALL).is_ok());
    for size in [0, 1, MIN_SEGMENT - 1] {
        assert_eq!(judge(segments(1, size), total, ALL), refused);
    }
    for kind in [2, 3, 5, 0x80, 0x81, 0xff] {
        assert_eq!(judge(segments(kind, 1448), total, ALL), refused, "{kind}");
    }
    let only4 = TapOffloads { tso6: false, ..ALL };
    assert_eq!(judge(segments(4, 1440), total, only4), refused);
    let without_checksum = Header {
        flags: 0,
        ..segments(1, 1448)
    };
    assert_eq!(judge(without_checksum, total, ALL), refused);
}

#[test]
fn what_means_nothing_does_not_reach_the_host() {
    let noise = Header {
        flags: 0xfe,
        hdr_len: 77,
        gso_size: 88,
        csum_start: 99,
        csum_offset: 11,
        buffers: 7,
        gso_type: 0,
    };
    assert_eq!(judge(noise, 60, ALL), Ok(Header::default()));
    let hint = Header {
        hdr_len: u16::MAX,
        ..segments(1, 1448)
    };
    let clean = judge(hint, HEADER_BYTES as u64 + 2000, ALL).unwrap();
    assert_eq!(clean.hdr_len, 2000);
}

#[test]
fn a_forged_source_is_refused() {
    for source in [[2, 0, 0, 0, 0, 2], [0; 6], [0xff; 6]] {
        let refused = judge_sent(&judged(Header::default(), source), 60, &rules(ALL));
        assert_eq!(refused, Err(Refusal::ForgedSource));
    }
}

#[test]
fn a_driver_gets_only_work_that_it_has_taken_over() {
    let unfinished = checksum(34, 16).bytes();
    assert!(judge_received(&unfinished, 60, ALL).is_ok());
    assert!(judge_received(&unfinished, 60, NONE).is_err());
    assert!(judge_received(&segments(1, 1448).bytes(), 3000, NONE).is_err());
    let vouched = Header {
        flags: 2,
        ..Header::default()
    };
    assert_eq!(judge_received(&vouched.bytes(), 60, ALL), Ok(vouched));
    assert_eq!(
        judge_received(&vouched.bytes(), 60, NONE),
        Ok(Header::default())
    );
    let refused = judge_received(&[0; HEADER_BYTES], MAX_FRAME + 1, ALL);
    assert_eq!(refused, Err(Refusal::Oversized));
}

proptest! {
    #[test]
    fn what_passes_obeys_every_rule(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        total in 0u64..80_000,
        own in any::<bool>(),
        checksum: bool,
        tso4: bool,
        tso6: bool,
    ) {
        let mut bytes = bytes;
        if let (Some(source), true) = (bytes.get_mut(18..24), own) {
            source.copy_from_slice(&MAC);
        }
        let judged = &bytes[..bytes.len().min(JUDGED_BYTES).min(total as usize)];
        let work = TapOffloads { checksum, tso4, tso6 };
        let Ok(header) = judge_sent(judged, total, &rules(work)) else {
            return Ok(());
        };
        let len = total - HEADER_BYTES as u64;
        prop_assert!((ETHERNET_BYTES as u64..=MAX_FRAME).contains(&len));
        prop_assert!(header.flags == 0 || checksum);
        prop_assert!(u64::from(header.csum_start) + u64::from(header.csum_offset) + 2 <= len.max(2));
        prop_assert!(header.gso_type == 0 || header.gso_size >= MIN_SEGMENT && header.flags == 1);
        prop_assert!(header.gso_type != 0 || len <= longest_plain(1500));
        prop_assert_eq!(&judged[18..24], &MAC);
        prop_assert_eq!(Header::parse(&header.bytes()), header);
    }
}
