use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use virtio_bindings::virtio_blk::*;

use super::*;
use crate::devices::virtio::testing::{DATA, Driver, Piece, expect_fault, refuses_hostile_rings};
use crate::disk::engine::pool::Pool;
use crate::disk::tests::{spec, temp_dir};

const BYTES: u64 = 8 << 20;
/// Memory of one request: its header, its status, and data on a page boundary.
const ROOM: u64 = 64 << 10;
const STATUS_AT: u64 = 0x100;
const DATA_AT: u64 = 0x1000;
const UNANSWERED: u8 = 0xee;
const FEATURES: u64 =
    1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;

/// What a disk is tried with.
#[derive(Debug, Clone, Copy)]
struct Setting {
    read_only: bool,
    direct: bool,
    threads: bool,
}

const PLAIN: Setting = Setting {
    read_only: false,
    direct: false,
    threads: false,
};

struct Guest {
    driver: Driver,
    file: File,
    next: u64,
    _dir: tempfile::TempDir,
}

/// A device on a new file, or `None` if its file system cannot do this.
fn device(setting: Setting, dir: &tempfile::TempDir) -> Option<(Box<dyn Backend>, File)> {
    let path = dir.path().join("disk.img");
    let file = File::create_new(&path).unwrap();
    file.set_len(BYTES).unwrap();
    let spec = spec(&path, setting.read_only, setting.direct);
    let disk = match Disk::open(&spec) {
        Err(crate::disk::DiskError::NoDirect(_)) => return None,
        disk => disk.unwrap(),
    };
    let target = disk.target().clone();
    let block = match setting.threads {
        true => Block::with_engine(disk, &spec, "disk0", Box::new(Pool::new(target))),
        false => Block::new(disk, &spec, "disk0"),
    };
    Some((
        Box::new(block),
        File::options().write(true).read(true).open(&path).unwrap(),
    ))
}

fn guest(setting: Setting) -> Option<Guest> {
    let dir = temp_dir();
    let (backend, file) = device(setting, &dir)?;
    let features = if setting.read_only { 0 } else { FEATURES };
    Some(Guest {
        driver: Driver::with_features(backend, features),
        file,
        next: 0,
        _dir: dir,
    })
}

/// Calls `test` with a guest of each kind that can be had.
fn with_each(test: impl Fn(&mut Guest)) {
    for direct in [false, true] {
        for threads in [false, true] {
            let setting = Setting {
                direct,
                threads,
                ..PLAIN
            };
            if let Some(mut guest) = guest(setting) {
                test(&mut guest);
                guest.quiet();
            }
        }
    }
}

impl Guest {
    /// Memory for a request, with its header.
    fn header(&mut self, kind: u32, sector: u64) -> u64 {
        let room = DATA + self.next % 256 * ROOM;
        self.next += 1;
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.driver.write(room, &header);
        self.driver.write(room + STATUS_AT, &[UNANSWERED]);
        room
    }

    fn offer_read(&mut self, sector: u64, len: u32) -> (u16, u64) {
        let room = self.header(VIRTIO_BLK_T_IN, sector);
        let data = Piece::writable(room + DATA_AT, len);
        (self.offer(room, &[data]), room)
    }

    fn offer_write(&mut self, sector: u64, data: &[u8]) -> (u16, u64) {
        let room = self.header(VIRTIO_BLK_T_OUT, sector);
        self.driver.write(room + DATA_AT, data);
        let data = Piece::readable(room + DATA_AT, data.len() as u32);
        (self.offer(room, &[data]), room)
    }

    fn offer(&mut self, room: u64, data: &[Piece]) -> u16 {
        let mut pieces = vec![Piece::readable(room, 16)];
        pieces.extend(data);
        pieces.push(Piece::writable(room + STATUS_AT, 1));
        self.driver.offer(0, &pieces)
    }

    fn status(&self, room: u64) -> u8 {
        self.driver.read(room + STATUS_AT, 1)[0]
    }

    /// Rings and waits until `count` chains came back.
    fn finish(&mut self, count: usize) -> Vec<(u16, u32)> {
        let outcome = self.driver.ring(0);
        assert_eq!(outcome.fault, None);
        let mut used = self.driver.take_used(0);
        while used.len() < count {
            assert_eq!(self.driver.settle().fault, None);
            used.extend(self.driver.take_used(0));
            std::thread::yield_now();
        }
        assert_eq!(used.len(), count);
        used
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        let (head, room) = self.offer_write(sector, data);
        assert_eq!(self.finish(1), [(head, 1)]);
        self.status(room)
    }

    fn read(&mut self, sector: u64, len: u32) -> (u8, Vec<u8>) {
        let (head, room) = self.offer_read(sector, len);
        let used = self.finish(1);
        let status = self.status(room);
        let written = if status == 0 { len + 1 } else { 1 };
        assert_eq!(used, [(head, written)]);
        (status, self.driver.read(room + DATA_AT, len as usize))
    }

    fn flush(&mut self) -> u8 {
        let room = self.header(VIRTIO_BLK_T_FLUSH, 0);
        self.offer(room, &[]);
        self.finish(1);
        self.status(room)
    }

    /// Discards or makes zeros of these (sector, sectors, flags).
    fn clear(&mut self, kind: u32, segments: &[(u64, u32, u32)]) -> u8 {
        let room = self.header(kind, 0);
        let mut bytes = Vec::new();
        for (sector, sectors, flags) in segments {
            bytes.extend(sector.to_le_bytes());
            bytes.extend(sectors.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
        }
        self.driver.write(room + DATA_AT, &bytes);
        let data = Piece::readable(room + DATA_AT, bytes.len() as u32);
        self.offer(room, &[data]);
        self.finish(1);
        self.status(room)
    }

    fn on_disk(&self, sector: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, sector * 512).unwrap();
        bytes
    }

    /// Nothing uses memory any more.
    fn quiet(&mut self) {
        self.driver.bring_up(FEATURES);
    }
}

fn text(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 512 * 31 + i + seed) as u8).collect()
}

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
        assert!(guest.driver.counter("submissions") < 1000);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the framing, the alignment and the engine: what was written last is what is read.
    #[test]
    fn a_disk_keeps_what_is_written(
        direct: bool,
        threads: bool,
        writes in prop::collection::vec((0u64..120, 1usize..24, 0u64..64, 1usize..2000), 1..12),
    ) {
        let setting = Setting { direct, threads, ..PLAIN };
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
