//! The vsock of a sliver, in its spec.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fields::Fields;

/// Context identifiers below are those of hosts (virtio 1.2, 5.10.4).
const FIRST_GUEST_CID: u64 = 3;

/// The one above the last: `VMADDR_CID_ANY`.
const ANY_CID: u64 = u32::MAX as u64;

/// Streams between a sliver and unix sockets of the host: `{ "dir": "/run/hello", "cid": 3 }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VsockSpec {
    dir: PathBuf,
    cid: u32,
}

impl VsockSpec {
    pub(super) fn read(fields: &mut Fields) -> Option<Self> {
        let dir = fields.required_parsed("dir", super::path);
        let cid = fields.ranged_u64("cid", FIRST_GUEST_CID, ANY_CID - 1, FIRST_GUEST_CID);
        Some(Self {
            dir: dir?,
            cid: cid as u32,
        })
    }

    /// The directory of the sockets, one for each port.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The guest's context identifier, 3 unless the spec says otherwise.
    pub fn cid(&self) -> u32 {
        self.cid
    }
}
