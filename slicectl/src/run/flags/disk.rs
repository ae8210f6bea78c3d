//! `--disk PATH[,ro][,direct][,serial=TEXT]`, and what can be wrong with a file as a disk.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{Access, access};
use serde_json::{Value, json};
use vmm::spec::DiskSpec;

use super::words::{Word, split};
use crate::problem::Problem;

/// Bytes of a sector: what a disk is a multiple of.
const SECTOR: u64 = 512;

/// Reads one flag into a disk of the spec.
pub(super) fn read(text: &str) -> Result<Value, Vec<String>> {
    let mut words = split(text).into_iter();
    let path = words.next().unwrap_or_default();
    let mut disk = json!({ "path": super::absolute(&path) });
    let mut mistakes = Vec::new();
    if path.is_empty() {
        mistakes.push("begins with the path of a file or device".to_owned());
    }
    for word in words {
        mistakes.extend(take(&mut disk, &Word::read(&word)).err());
    }
    if mistakes.is_empty() {
        Ok(disk)
    } else {
        Err(mistakes)
    }
}

fn take(disk: &mut Value, word: &Word) -> Result<(), String> {
    let (field, value) = match word.key.as_str() {
        "ro" => ("read_only", word.bare().map(|()| json!(true))?),
        "direct" => ("direct", word.bare().map(|()| json!(true))?),
        "serial" => ("serial", json!(word.wanted("kv0")?)),
        other => {
            return Err(format!(
                "{other:?} is none of ro, direct and serial=TEXT (in a path, write ,, for a comma)"
            ));
        }
    };
    if disk.get(field).is_some() {
        return Err(format!("{} is given twice", word.key));
    }
    disk[field] = value;
    Ok(())
}

/// Why a file cannot be this disk, which came from `what`.
pub(super) fn objection(what: &str, disk: &DiskSpec) -> Option<Problem> {
    let (why, mend) = match check(disk) {
        Ok(()) => return None,
        Err(found) => found,
    };
    let problem = Problem::new(what, why);
    Some(match mend {
        Some(mend) => problem.mend(mend),
        None => problem,
    })
}

type Found = (String, Option<String>);

fn check(disk: &DiskSpec) -> Result<(), Found> {
    let path = disk.path();
    let metadata = fs::metadata(path).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let mend = missing.then(|| make(path));
        (format!("cannot be read: {error}"), mend)
    })?;
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        return Err(("is neither a file nor a block device".to_owned(), None));
    }
    access(path, Access::READ_OK).map_err(|error| (format!("cannot be read: {error}"), None))?;
    if !disk.read_only() {
        access(path, Access::WRITE_OK).map_err(|error| {
            let mend = "add ,ro for a disk that is only read".to_owned();
            (format!("cannot be written: {error}"), Some(mend))
        })?;
    }
    let len = File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0)));
    match len.map_err(|error| (format!("cannot be read: {error}"), None))? {
        0 => Err(("is empty".to_owned(), Some(make(path)))),
        len if len % SECTOR != 0 => Err((
            format!("has {len} bytes, which is no multiple of {SECTOR}"),
            None,
        )),
        _ => Ok(()),
    }
}

fn make(path: &Path) -> String {
    format!("truncate -s 1G {} makes one", crate::text::shell_word(path))
}
