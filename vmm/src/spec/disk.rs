//! The disks of a sliver, in its spec.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::bandwidth::DiskLimits;
use super::fields::Fields;

/// The most disks a sliver can have.
pub const MAX_DISKS: usize = 16;

/// The longest serial number of a disk (virtio 1.2, 5.2.6: `VIRTIO_BLK_T_GET_ID` has 20 bytes).
pub const MAX_SERIAL_BYTES: usize = 20;

/// A disk: `{ "path": "/x/disk.img", "read_only": false, "serial": "kv0", "direct": false }`.
/// Only `path` is required. It may have a `rate_kib` and `iops` of its own, too: see [`DiskLimits`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskSpec {
    path: PathBuf,
    read_only: bool,
    serial: String,
    direct: bool,
    #[serde(flatten, serialize_with = "DiskLimits::serialize_own")]
    limits: DiskLimits,
}

/// Reads the field `disks`.
pub(super) fn read_all(fields: &mut Fields) -> Vec<DiskSpec> {
    let (mut paths, mut serials) = (BTreeSet::new(), BTreeSet::new());
    fields.objects("disks", MAX_DISKS, |fields, index| {
        let disk = DiskSpec::read(fields, index)?;
        // By another name of the file it is found when it is locked.
        if !paths.insert(disk.path.clone()) {
            fields.mistake(
                "path",
                format!("{:?} is the path of another disk, too", disk.path),
            );
        }
        if !serials.insert(disk.serial.clone()) {
            let why = format!("{:?} is the serial of another disk, too", disk.serial);
            fields.mistake("serial", why);
        }
        Some(disk)
    })
}

impl DiskSpec {
    fn read(fields: &mut Fields, index: usize) -> Option<Self> {
        let path = fields.required_parsed("path", super::path);
        let read_only = fields.bool("read_only", false);
        let serial = fields.optional_parsed("serial", serial);
        let direct = fields.bool("direct", false);
        let limits = DiskLimits::read_own(fields);
        Some(Self {
            path: path?,
            read_only,
            serial: serial.unwrap_or_else(|| format!("disk{index}")),
            direct,
            limits,
        })
    }

    /// The file or block device that holds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the guest may only read it.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Its serial number, at most [`MAX_SERIAL_BYTES`] printable characters; `diskN` for disk N of
    /// a spec that names none.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Whether the host's page cache is passed by.
    pub fn direct(&self) -> bool {
        self.direct
    }

    /// What it may carry, whatever the sliver's other disks do.
    pub fn limits(&self) -> &DiskLimits {
        &self.limits
    }
}

fn serial(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if text.is_empty() || text.len() > MAX_SERIAL_BYTES || !printable {
        return Err(format!(
            "{text:?} is not a serial number: 1 to {MAX_SERIAL_BYTES} printable ASCII characters"
        ));
    }
    Ok(text.to_owned())
}
