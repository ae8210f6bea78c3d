mod fickle;
mod guest;
mod limits;
mod load;

use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use virtio_bindings::virtio_blk::*;

use self::guest::*;
use crate::devices::virtio::testing::{DATA, Piece, expect_fault, refuses_hostile_rings};
use crate::disk::tests::temp_dir;

#[test]
fn what_is_written_is_on_the_disk_and_read_back() {
    with_each(|guest| {
        for (sector, len) in [(0, 512), (8, 4096), (BYTES / 512 - 32, 16384)] {
            let data = text(len, sector as usize);
            assert_eq!(guest.write(sector, &data), 0);
            assert_eq!(guest.flush(), 0);
            assert_eq!(guest.on_disk(sector, len), data);
            assert_eq!(guest.read(sector, len as u32), (0, data));
        }
        assert_eq!(guest.driver.counter("writes"), 3);
        assert_eq!(guest.driver.counter("read_bytes"), 512 + 4096 + 16384);
        assert_eq!(guest.driver.counter("flushes"), 3);
        assert_eq!(guest.driver.counter("refused"), 0);
    });
}

#[test]
fn header_data_and_status_may_be_framed_in_any_way() {
    with_each(|guest| {
        let data = text(1024, 3);
        let room = guest.header(VIRTIO_BLK_T_OUT, 4);
        // The end of the header lies in one descriptor with the beginning of the data.
        let header = guest.driver.read(room, 16);
        guest.driver.write(room + 0x2000, &header[..5]);
        let mut rest = header[5..].to_vec();
        rest.extend(&data[..100]);
        guest.driver.write(room + 0x3001, &rest);
        guest.driver.write(room + 0x4003, &data[100..]);
        let pieces = [
            Piece::readable(room + 0x2000, 5),
            Piece::readable(room + 0x3001, rest.len() as u32),
            Piece::readable(room + 0x4003, 924),
            Piece::writable(room + STATUS_AT, 1),
        ];
        guest.driver.offer(0, &pieces);
        guest.finish(1);
        assert_eq!(guest.status(room), 0);
        assert_eq!(guest.on_disk(4, 1024), data);

        // The status is the last byte of the last piece of data.
        let room = guest.header(VIRTIO_BLK_T_IN, 4);
        let pieces = [
            Piece::readable(room, 16),
            Piece::writable(room + 0x2005, 700),
            Piece::writable(room + 0x3000, 325),
        ];
        guest.driver.offer(0, &pieces);
        assert_eq!(guest.finish(1)[0].1, 1025);
        assert_eq!(guest.driver.read(room + 0x2005, 700), data[..700]);
        assert_eq!(guest.driver.read(room + 0x3000, 324), data[700..]);
        assert_eq!(guest.driver.read(room + 0x3000 + 324, 1), [0]);
    });
}

#[test]
fn the_serial_number_is_told() {
    let mut guest = guest(PLAIN).unwrap();
    let room = guest.header(VIRTIO_BLK_T_GET_ID, 0);
    guest.driver.write(room + DATA_AT, &[0xff; 24]);
    guest.offer(room, &[Piece::writable(room + DATA_AT, 20)]);
    assert_eq!(guest.finish(1)[0].1, 21);
    assert_eq!(guest.status(room), 0);
    let told = guest.driver.read(room + DATA_AT, 21);
    assert_eq!(&told[..4], b"kv0\0");
    assert_eq!(told[19..], [0, 0xff]);
}

#[test]
fn zeros_are_made_and_discarded_parts_read_as_zeros() {
    with_each(|guest| {
        let data = text(32 << 10, 1);
        for (kind, flags) in [
            (VIRTIO_BLK_T_DISCARD, 0),
            (VIRTIO_BLK_T_WRITE_ZEROES, 0),
            (VIRTIO_BLK_T_WRITE_ZEROES, 1),
        ] {
            assert_eq!(guest.write(0, &data), 0);
            // The second segment is not aligned to anything but sectors.
            let status = guest.clear(kind, &[(8, 16, flags), (41, 3, flags)]);
            let mut expected = data.clone();
            match u32::from(status) {
                VIRTIO_BLK_S_OK => {
                    expected[8 * 512..24 * 512].fill(0);
                    expected[41 * 512..44 * 512].fill(0);
                }
                // A file system without holes.
                status => assert_eq!((status, kind), (VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD)),
            }
            assert_eq!(guest.read(0, 32 << 10), (0, expected));
        }
        assert_eq!(guest.driver.counter("write_zeroes"), 2);
    });
}

#[test]
fn bad_requests_are_refused_one_by_one_and_the_queue_goes_on() {
    let mut guest = guest(PLAIN).unwrap();
    let sectors = BYTES / 512;
    let (io_error, unsupported) = (VIRTIO_BLK_S_IOERR as u8, VIRTIO_BLK_S_UNSUPP as u8);
    assert_eq!(guest.read(sectors, 512).0, io_error);
    assert_eq!(guest.read(u64::MAX, 512).0, io_error);
    assert_eq!(guest.read(0, 511).0, io_error);
    assert_eq!(guest.write(sectors - 1, &[1; 1024]), io_error);
    assert_eq!(guest.clear(VIRTIO_BLK_T_DISCARD, &[(0, 1, 1)]), unsupported);
    assert_eq!(guest.clear(VIRTIO_BLK_T_DISCARD, &[(0, 0, 0)]), io_error);
    for kind in [3, 77] {
        let room = guest.header(kind, 0);
        guest.offer(room, &[]);
        assert_eq!(guest.finish(1)[0].1, 1);
        assert_eq!(guest.status(room), unsupported);
    }
    let short = guest.header(VIRTIO_BLK_T_IN, 0);
    let pieces = [
        Piece::readable(short, 15),
        Piece::writable(short + DATA_AT, 512),
        Piece::writable(short + STATUS_AT, 1),
    ];
    guest.driver.offer(0, &pieces);
    guest.finish(1);
    assert_eq!(guest.status(short), io_error);
    let nothing = guest.header(VIRTIO_BLK_T_IN, 0);
    guest.offer(nothing, &[]);
    guest.finish(1);
    assert_eq!(guest.status(nothing), io_error);
    assert_eq!(guest.driver.counter("refused"), 10);
    assert_eq!(guest.driver.counter("refused_beyond_end"), 3);
    assert_eq!(guest.driver.counter("io_errors"), 0);
    assert_eq!(guest.write(0, &[5; 512]), 0);
    assert!(!guest.driver.needs_reset());
}

#[test]
fn a_request_without_a_status_stops_the_queue() {
    let dir = temp_dir();
    let (backend, _) = device(PLAIN, &dir).unwrap();
    expect_fault(backend, 0, &[Piece::readable(DATA, 16)]);
}

#[test]
fn hostile_rings_stop_the_queue() {
    refuses_hostile_rings(&[0], || device(PLAIN, &temp_dir()).unwrap().0);
}

#[test]
fn a_read_only_disk_is_read_and_not_written() {
    let setting = Setting {
        read_only: true,
        ..PLAIN
    };
    let mut guest = guest(setting).unwrap();
    guest.file.write_all_at(&[7; 512], 512).unwrap();
    assert_eq!(guest.read(1, 512), (0, vec![7; 512]));
    let refused = VIRTIO_BLK_S_IOERR as u8;
    assert_eq!(guest.write(1, &[8; 512]), refused);
    assert_eq!(guest.clear(VIRTIO_BLK_T_DISCARD, &[(1, 1, 0)]), refused);
    assert_eq!(
        guest.clear(VIRTIO_BLK_T_WRITE_ZEROES, &[(1, 1, 0)]),
        refused
    );
    assert_eq!(guest.flush(), 0);
    assert_eq!(guest.on_disk(1, 512), [7; 512]);
    assert_eq!(guest.driver.counter("refused_read_only"), 3);
}

#[test]
fn a_disk_that_shrinks_gives_errors_and_counts_them() {
    let mut guest = guest(PLAIN).unwrap();
    guest.file.set_len(4096).unwrap();
    assert_eq!(guest.read(8, 512).0, VIRTIO_BLK_S_IOERR as u8);
    assert_eq!(guest.read(0, 4096).0, 0);
    assert_eq!(guest.driver.counter("io_errors"), 1);
    let errno = libc::EIO as u64;
    assert_eq!(guest.driver.counter("last_error"), errno);
}

#[test]
fn a_driver_without_flushes_writes_durably() {
    let mut guest = guest(PLAIN).unwrap();
    guest.driver.bring_up(1 << VIRTIO_BLK_F_WRITE_ZEROES);
    assert_eq!(guest.write(3, &[1; 512]), 0);
    assert_eq!(guest.clear(VIRTIO_BLK_T_WRITE_ZEROES, &[(3, 1, 0)]), 0);
    assert_eq!(guest.driver.counter("syncs"), 1);
    assert_eq!(guest.read(3, 512), (0, vec![0; 512]));
}

#[test]
fn the_configuration_says_what_the_disk_is() {
    let dir = temp_dir();
    let (backend, _) = device(PLAIN, &dir).unwrap();
    let config = backend.config();
    assert_eq!(config[..8], (BYTES / 512).to_le_bytes());
    assert_eq!(config[12..16], 254u32.to_le_bytes());
    assert_eq!(config[20..24], 512u32.to_le_bytes());
    assert_eq!(config[24], 3);
    assert!(config.len() <= slice_abi::device::CONFIG_BYTES);
    let features = backend.identity().features;
    assert_ne!(features & 1 << VIRTIO_BLK_F_DISCARD, 0);
    assert_eq!(features & 1 << VIRTIO_BLK_F_RO, 0);
}

#[test]
fn an_unused_disk_has_no_engine() {
    let dir = temp_dir();
    let (backend, _) = device(PLAIN, &dir).unwrap();
    assert!(
        backend
            .counters()
            .iter()
            .all(|(name, _)| *name != "io_uring")
    );
}

#[test]
fn what_follows_an_unaligned_piece_past_the_cache_is_what_is_on_the_disk() {
    const LANE: usize = 256 << 10;
    let setting = Setting {
        coarse: true,
        ..PLAIN
    };
    let mut guest = guest(setting).unwrap();
    let data = text(LANE + 0x2_0000, 5);
    guest.file.write_all_at(&data, 0).unwrap();
    // What is left after the first piece is aligned, in the file as in memory.
    let len = data.len() as u32 - 512;
    let room = guest.header(VIRTIO_BLK_T_IN, 1);
    let at = room + DATA_AT + 512;
    guest.offer(room, &[Piece::writable(at, len)]);
    guest.finish(1);
    assert_eq!(guest.status(room), 0);
    assert!(guest.driver.read(at, len as usize) == data[512..]);
    assert_eq!(guest.driver.counter("bounced"), 1);
}

#[test]
fn a_disk_that_cannot_be_synced_vouches_for_nothing_any_more() {
    let setting = Setting {
        fickle: true,
        ..PLAIN
    };
    let mut guest = guest(setting).unwrap();
    assert_eq!(guest.flush(), 0);
    fickle::fail_syncs(true);
    assert_eq!(guest.flush(), VIRTIO_BLK_S_IOERR as u8);
    fickle::fail_syncs(false);
    // The host would say that all is well: what was written before is lost all the same.
    assert_eq!(guest.flush(), VIRTIO_BLK_S_IOERR as u8);
    assert_eq!(guest.driver.counter("syncs"), 2);
    assert_eq!(guest.driver.counter("io_errors"), 2);
    assert_eq!(guest.write(0, &[1; 512]), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the framing, the alignment and the engine: what was written last is what is read.
    #[test]
    fn a_disk_keeps_what_is_written(
        setting in prop::sample::select(settings()),
        writes in prop::collection::vec((0u64..120, 1usize..24, 0u64..64, 1usize..2000), 1..12),
    ) {
        let Some(mut guest) = guest(setting) else { return Ok(()) };
        let mut expected = vec![0; 160 * 512];
        for (sector, sectors, offset, cut) in writes {
            let data = text(sectors * 512, cut);
            let room = guest.header(VIRTIO_BLK_T_OUT, sector);
            // In two pieces, at odd places.
            let (first, second) = data.split_at(cut.min(data.len() - 1));
            guest.driver.write(room + DATA_AT + offset, first);
            guest.driver.write(room + 0x8000 + offset, second);
            let pieces = [
                Piece::readable(room + DATA_AT + offset, first.len() as u32),
                Piece::readable(room + 0x8000 + offset, second.len() as u32),
            ];
            guest.offer(room, &pieces);
            guest.finish(1);
            prop_assert_eq!(guest.status(room), 0);
            let at = sector as usize * 512;
            expected[at..at + data.len()].copy_from_slice(&data);
        }
        for sector in (0..160).step_by(40) {
            let (status, data) = guest.read(sector, 40 * 512);
            prop_assert_eq!(status, 0);
            let at = sector as usize * 512;
            prop_assert!(data == expected[at..at + 40 * 512]);
        }
    }
}
