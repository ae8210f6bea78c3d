//! A guest with a disk, for the tests beside this file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use virtio_bindings::virtio_blk::*;

use super::fickle::Fickle;
use crate::devices::virtio::backend::Backend;
use crate::devices::virtio::block::{Block, SharedBudget};
use crate::devices::virtio::testing::{DATA, Driver, Piece};
use crate::disk::engine::pool::Pool;
use crate::disk::tests::{demand_alignment, spec, temp_dir};
use crate::disk::{Disk, DiskError};
use crate::spec::DiskLimits;

pub(super) const BYTES: u64 = 8 << 20;
/// Memory of one request: its header, its status, and data on a page boundary.
pub(super) const ROOM: u64 = 64 << 10;
pub(super) const STATUS_AT: u64 = 0x100;
pub(super) const DATA_AT: u64 = 0x1000;
pub(super) const UNANSWERED: u8 = 0xee;
pub(super) const FEATURES: u64 =
    1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;

/// What a disk is tried with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) read_only: bool,
    pub(super) direct: bool,
    pub(super) threads: bool,
    /// Pages only are good enough for it.
    pub(super) coarse: bool,
    /// Its engine does things by halves.
    pub(super) fickle: bool,
}

pub(super) const PLAIN: Setting = Setting {
    read_only: false,
    direct: false,
    threads: false,
    coarse: false,
    fickle: false,
};

pub(super) struct Guest {
    pub(super) driver: Driver,
    pub(super) file: File,
    next: u64,
    _dir: tempfile::TempDir,
}

/// A device on a new file, or `None` if its file system cannot do this.
pub(super) fn device(
    setting: Setting,
    dir: &tempfile::TempDir,
) -> Option<(Box<dyn Backend>, File)> {
    let path = dir.path().join("disk.img");
    let file = File::create_new(&path).unwrap();
    file.set_len(BYTES).unwrap();
    let spec = spec(&path, setting.read_only, setting.direct);
    let mut disk = match Disk::open(&spec) {
        Err(DiskError::NoDirect(_)) => return None,
        disk => disk.unwrap(),
    };
    if setting.coarse {
        demand_alignment(&mut disk, 4096);
    }
    let target = disk.target().clone();
    let block = match (setting.threads, setting.fickle) {
        (false, false) => Block::new(disk, spec.serial(), "disk0"),
        (true, false) => {
            Block::with_engine(disk, spec.serial(), "disk0", Box::new(Pool::new(target)))
        }
        (_, true) => {
            Block::with_engine(disk, spec.serial(), "disk0", Box::new(Fickle::new(&target)))
        }
    };
    let file = File::options().write(true).read(true).open(&path);
    Some((Box::new(block), file.unwrap()))
}

/// A guest with a usual disk, number `disk` of a sliver with this budget.
pub(super) fn limited_guest(disk: usize, own: &DiskLimits, shared: &SharedBudget) -> Guest {
    let dir = temp_dir();
    let path = dir.path().join("disk.img");
    let file = File::create_new(&path).unwrap();
    file.set_len(BYTES).unwrap();
    let spec = spec(&path, false, false);
    let block = Block::new(Disk::open(&spec).unwrap(), spec.serial(), "disk0");
    let backend = Box::new(block.limited(disk, own, shared));
    Guest {
        driver: Driver::with_features(backend, FEATURES),
        file,
        next: 0,
        _dir: dir,
    }
}

pub(super) fn guest(setting: Setting) -> Option<Guest> {
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

/// Each kind of disk that can be written.
pub(super) fn settings() -> Vec<Setting> {
    let both = [false, true];
    let mut settings: Vec<Setting> = both
        .iter()
        .flat_map(|&direct| {
            both.map(|threads| Setting {
                direct,
                threads,
                ..PLAIN
            })
        })
        .collect();
    settings.extend(both.map(|coarse| Setting {
        coarse,
        fickle: true,
        ..PLAIN
    }));
    settings.push(Setting {
        coarse: true,
        ..PLAIN
    });
    settings
}

/// Calls `test` with a guest of each kind that can be had.
pub(super) fn with_each(test: impl Fn(&mut Guest)) {
    for setting in settings() {
        if let Some(mut guest) = guest(setting) {
            test(&mut guest);
            // Nothing uses its memory any more.
            guest.driver.bring_up(FEATURES);
        }
    }
}

impl Guest {
    /// Memory for a request, with its header.
    pub(super) fn header(&mut self, kind: u32, sector: u64) -> u64 {
        let room = DATA + self.next % 256 * ROOM;
        self.next += 1;
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.driver.write(room, &header);
        self.driver.write(room + STATUS_AT, &[UNANSWERED]);
        room
    }

    pub(super) fn offer_read(&mut self, sector: u64, len: u32) -> (u16, u64) {
        let room = self.header(VIRTIO_BLK_T_IN, sector);
        let data = Piece::writable(room + DATA_AT, len);
        (self.offer(room, &[data]), room)
    }

    pub(super) fn offer_write(&mut self, sector: u64, data: &[u8]) -> (u16, u64) {
        let room = self.header(VIRTIO_BLK_T_OUT, sector);
        self.driver.write(room + DATA_AT, data);
        let data = Piece::readable(room + DATA_AT, data.len() as u32);
        (self.offer(room, &[data]), room)
    }

    pub(super) fn offer(&mut self, room: u64, data: &[Piece]) -> u16 {
        let mut pieces = vec![Piece::readable(room, 16)];
        pieces.extend(data);
        pieces.push(Piece::writable(room + STATUS_AT, 1));
        self.driver.offer(0, &pieces)
    }

    pub(super) fn status(&self, room: u64) -> u8 {
        self.driver.read(room + STATUS_AT, 1)[0]
    }

    /// Rings and waits until `count` chains came back.
    pub(super) fn finish(&mut self, count: usize) -> Vec<(u16, u32)> {
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

    pub(super) fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        let (head, room) = self.offer_write(sector, data);
        assert_eq!(self.finish(1), [(head, 1)]);
        self.status(room)
    }

    pub(super) fn read(&mut self, sector: u64, len: u32) -> (u8, Vec<u8>) {
        let (head, room) = self.offer_read(sector, len);
        let used = self.finish(1);
        let status = self.status(room);
        let written = if status == 0 { len + 1 } else { 1 };
        assert_eq!(used, [(head, written)]);
        (status, self.driver.read(room + DATA_AT, len as usize))
    }

    pub(super) fn flush(&mut self) -> u8 {
        let room = self.header(VIRTIO_BLK_T_FLUSH, 0);
        self.offer(room, &[]);
        self.finish(1);
        self.status(room)
    }

    /// Discards or makes zeros of these (sector, sectors, flags).
    pub(super) fn clear(&mut self, kind: u32, segments: &[(u64, u32, u32)]) -> u8 {
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

    pub(super) fn on_disk(&self, sector: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, sector * 512).unwrap();
        bytes
    }
}

pub(super) fn text(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 512 * 31 + i + seed) as u8).collect()
}
