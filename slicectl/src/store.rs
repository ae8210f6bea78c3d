//! The node's audit: who spoke with whom, what happened, who is blocked, and what slices have used.
//!
//! A file of SQLite that several processes write at once: each `slicectl run` for its sliver, and
//! people with `block`. What a call has stored survives a power cut once it has returned; what
//! cannot be stored is an error that says why, never forgotten.

mod blocks;
mod events;
mod flows;
mod retention;
#[cfg(test)]
pub(crate) mod tests;
mod usage;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use vmm::net::prefix::Prefix;

use crate::problem::Problem;

pub use blocks::Block;
pub use events::{StoredEvent, Wanted as WantedEvents};
pub use flows::{Source, StoredFlow, Wanted as WantedFlows};
pub use retention::Retention;
pub use usage::Used;

/// How long a writer waits for another.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the file is made for: a file with another number is somebody else's, or of another time.
const VERSION: i64 = STEPS.len() as i64;

/// What leads from each version to the next, from an empty file on.
const STEPS: [&str; 2] = [TABLES, MORE_INDEXES];

/// Tables are in the order of arrival; complaints name an address and a time.
const TABLES: &str = "
CREATE TABLE sliver (
    id INTEGER PRIMARY KEY, node TEXT NOT NULL, name TEXT NOT NULL, slice TEXT NOT NULL,
    owner TEXT NOT NULL, contact TEXT NOT NULL, public TEXT NOT NULL,
    UNIQUE (node, name, slice, owner, contact, public)
) STRICT;
CREATE TABLE flow (
    id INTEGER PRIMARY KEY, sliver INTEGER NOT NULL, first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL, protocol INTEGER NOT NULL, inside BLOB NOT NULL,
    inside_port INTEGER NOT NULL, outside_port INTEGER, remote BLOB NOT NULL,
    remote_port INTEGER NOT NULL, opened INTEGER NOT NULL, tx_packets INTEGER NOT NULL,
    tx_bytes INTEGER NOT NULL, rx_packets INTEGER NOT NULL, rx_bytes INTEGER NOT NULL,
    ending INTEGER NOT NULL
) STRICT;
CREATE INDEX flow_by_remote ON flow (remote, last_ms);
CREATE INDEX flow_by_port ON flow (coalesce(outside_port, inside_port), last_ms);
CREATE INDEX flow_by_time ON flow (last_ms);
CREATE TABLE event (
    id INTEGER PRIMARY KEY, sliver INTEGER, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,
    detail TEXT NOT NULL, count INTEGER NOT NULL
) STRICT;
CREATE INDEX event_by_time ON event (at_ms);
CREATE TABLE block (
    id INTEGER PRIMARY KEY, prefix TEXT NOT NULL, slice TEXT NOT NULL, reason TEXT NOT NULL,
    by TEXT NOT NULL, since_ms INTEGER NOT NULL, until_ms INTEGER, UNIQUE (prefix, slice)
) STRICT;
CREATE TABLE usage (
    slice TEXT NOT NULL, day INTEGER NOT NULL, bytes INTEGER NOT NULL,
    exempt_bytes INTEGER NOT NULL, PRIMARY KEY (slice, day)
) STRICT, WITHOUT ROWID;
";

/// Questions name a slice, a port or an address of ours, too.
const MORE_INDEXES: &str = "
CREATE TABLE slice (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO slice (name) SELECT DISTINCT slice FROM sliver;
ALTER TABLE flow ADD COLUMN slice INTEGER NOT NULL DEFAULT 0;
UPDATE flow SET slice = (
    SELECT slice.id FROM sliver JOIN slice ON slice.name = sliver.slice
    WHERE sliver.id = flow.sliver
);
CREATE INDEX flow_by_slice ON flow (slice, last_ms);
CREATE INDEX flow_by_remote_port ON flow (remote_port, last_ms);
CREATE INDEX flow_by_inside ON flow (inside, last_ms);
";

/// Why something is not stored, or not found.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum StoreError {
    #[error("the audit {} cannot be written: the disk is full", path.display())]
    Full { path: PathBuf },
    #[error("the audit {} is not there yet: no sliver with a network card has run", path.display())]
    Absent { path: PathBuf },
    #[error("the audit {} has version {found}, this slicectl knows {VERSION}", path.display())]
    Version { path: PathBuf, found: i64 },
    #[error("the audit {} cannot be made: {error}", path.display())]
    Directory {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("the audit {} fails: {error}", path.display())]
    Sqlite {
        path: PathBuf,
        error: rusqlite::Error,
    },
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let mend = match &error {
            StoreError::Full { .. } => "make room, or let it keep less with --audit-size",
            StoreError::Absent { .. } => "name another with --audit FILE",
            StoreError::Version { .. } => "move the file away, or use the slicectl that made it",
            StoreError::Directory { .. } | StoreError::Sqlite { .. } => {
                "ask as its owner, or name another with --audit FILE"
            }
        };
        Self::new("audit", error.to_string()).mend(mend)
    }
}

/// Whose sliver a record is of. It is stored with the records, since slices come and go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The host.
    pub node: String,
    /// Name of the sliver.
    pub name: String,
    /// Its slice.
    pub slice: String,
    /// Who answers for it.
    pub owner: String,
    /// How to reach the owner.
    pub contact: String,
    /// The address that the outside sees if ports are translated, or empty.
    pub public: String,
}

/// The audit.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens the audit to write to it, and makes it if it is not there.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let made = match path.parent() {
            Some(dir) => std::fs::create_dir_all(dir),
            None => Ok(()),
        };
        made.map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => StoreError::Full {
                path: path.to_owned(),
            },
            _ => StoreError::Directory {
                path: path.to_owned(),
                error,
            },
        })?;
        Self::connect(path, Connection::open(path))
    }

    /// Opens an audit that is there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Absent {
                path: path.to_owned(),
            });
        }
        Self::connect(path, Connection::open(path))
    }

    fn connect(path: &Path, opened: rusqlite::Result<Connection>) -> Result<Self, StoreError> {
        let failed = |error| failure(path, error);
        let mut connection = opened.map_err(failed)?;
        prepare(&mut connection).map_err(failed)?;
        let store = Self {
            connection,
            path: path.to_owned(),
        };
        match store.version()? {
            VERSION => Ok(store),
            found => Err(StoreError::Version {
                path: path.to_owned(),
                found,
            }),
        }
    }

    fn version(&self) -> Result<i64, StoreError> {
        self.checked(
            self.connection
                .query_row("PRAGMA user_version", [], |row| row.get(0)),
        )
    }

    fn checked<T>(&self, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|error| failure(&self.path, error))
    }

    /// Does several things, or none of them.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&rusqlite::Transaction) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let done = self
            .connection
            // Immediately: who reads first and then writes could be in another's way for ever.
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .and_then(|transaction| {
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            });
        self.checked(done)
    }
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    // Readers and the writer do not wait for each other; a record is on the disk when it is told so.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    let version = |connection: &Connection| -> rusqlite::Result<i64> {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    };
    if (0..VERSION).contains(&version(connection)?) {
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Somebody else may have been quicker.
        let found = usize::try_from(version(&transaction)?).unwrap_or(STEPS.len());
        for step in STEPS.iter().skip(found) {
            transaction.execute_batch(step)?;
        }
        if found < STEPS.len() {
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        transaction.commit()?;
    }
    Ok(())
}

fn failure(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        // What a full disk looks like when the file that readers share has to grow.
        Some(ErrorCode::SystemIoFailure) if is_full(&path) => StoreError::Full { path },
        _ => StoreError::Sqlite { path, error },
    }
}

/// Whether the disk that the audit lies on has no room.
fn is_full(path: &Path) -> bool {
    let dir = path.parent().unwrap_or(Path::new("."));
    rustix::fs::statvfs(dir).is_ok_and(|disk| disk.f_bavail * disk.f_frsize < 64 * 1024)
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// The number of a sliver's identity.
fn identify(connection: &Connection, who: &Identity) -> rusqlite::Result<i64> {
    let fields = params![
        who.node,
        who.name,
        who.slice,
        who.owner,
        who.contact,
        who.public
    ];
    let known = connection
        .prepare(
            "SELECT id FROM sliver WHERE node = ?1 AND name = ?2 AND slice = ?3 AND owner = ?4
             AND contact = ?5 AND public = ?6",
        )?
        .query_row(fields, |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    connection.execute(
        "INSERT INTO sliver (node, name, slice, owner, contact, public)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        fields,
    )?;
    Ok(connection.last_insert_rowid())
}

/// The number of a slice.
fn number_of_slice(connection: &Connection, slice: &str) -> rusqlite::Result<i64> {
    connection.execute("INSERT OR IGNORE INTO slice (name) VALUES (?1)", [slice])?;
    connection.query_row("SELECT id FROM slice WHERE name = ?1", [slice], |row| {
        row.get(0)
    })
}

/// An identity from the six columns that begin at `at`.
fn identity(row: &rusqlite::Row, at: usize) -> rusqlite::Result<Identity> {
    Ok(Identity {
        node: row.get(at)?,
        name: row.get(at + 1)?,
        slice: row.get(at + 2)?,
        owner: row.get(at + 3)?,
        contact: row.get(at + 4)?,
        public: row.get(at + 5)?,
    })
}

/// SQLite's integers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// An address as it is stored: 4 or 16 bytes, so that the order is that of addresses.
fn stored_address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// The first and the last address of a prefix, as they are stored.
fn stored_range(prefix: &Prefix) -> (Vec<u8>, Vec<u8>) {
    let first = stored_address(prefix.address());
    let mut last = first.clone();
    for (index, byte) in last.iter_mut().enumerate() {
        let kept = usize::from(prefix.bits()).saturating_sub(8 * index).min(8);
        *byte |= 0xff_u16.checked_shr(kept as u32).unwrap_or(0) as u8;
    }
    (first, last)
}
