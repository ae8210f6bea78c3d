//! Where the audit of a host is, and what fills it while slivers run.

pub mod collector;
pub mod ipfix;
pub mod known;
pub mod time;

use std::path::{Path, PathBuf};

use vmm::spec::SliverSpec;

use crate::cli::RecordArgs;
use crate::person;
use crate::problem::{Failure, Problem, USAGE};
use crate::rundir;
use crate::store::{Identity, Retention, Store, StoreError};
use crate::units::{parse_duration, parse_size};

/// The audit that is meant; `None` for none.
pub fn path(text: Option<&str>, root: &Path) -> Option<PathBuf> {
    match text {
        None => Some(rundir::audit_path(root)),
        Some("none") => None,
        Some(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.into())),
    }
}

/// What is to be kept.
pub fn retention(args: &RecordArgs) -> Result<Retention, Failure> {
    let mut retention = Retention::default();
    let mut problems = Vec::new();
    if let Some(text) = &args.audit_keep {
        match parse_duration(text) {
            Ok(age) => retention.age = age,
            Err(why) => problems.push(Problem::new("--audit-keep", why)),
        }
    }
    if let Some(text) = &args.audit_size {
        match parse_size(text) {
            Ok(bytes) => retention.bytes = bytes,
            Err(why) => problems.push(Problem::new("--audit-size", why)),
        }
    }
    match problems.is_empty() {
        true => Ok(retention),
        false => Err(Failure::new(USAGE, problems)),
    }
}

/// Opens the audit that a question is for.
pub fn open(file: Option<&Path>) -> Result<Store, StoreError> {
    match file {
        Some(file) => Store::open(file),
        None => Store::open(&rundir::audit_path(&rundir::root())),
    }
}

/// Opens the audit that is to be changed; it may be new.
pub fn create(file: Option<&Path>) -> Result<Store, StoreError> {
    match file {
        Some(file) => Store::create(file),
        None => Store::create(&rundir::audit_path(&rundir::root())),
    }
}

/// Whose the records of a sliver are.
pub fn identity(spec: &SliverSpec) -> Identity {
    let public = spec.public().and_then(|public| public.address());
    Identity {
        node: person::node(),
        name: spec.name().to_owned(),
        slice: spec.slice().to_owned(),
        owner: spec.owner().to_owned(),
        contact: spec.contact().to_owned(),
        public: public.map_or(String::new(), |address| address.to_string()),
    }
}
