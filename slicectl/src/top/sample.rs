//! What slivers say of themselves at one moment, asked of all at the same time.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vmm::control::proto::Status;

use crate::client::{Client, ClientError};
use crate::rundir;
use crate::steer::gone;

/// How long a monitor may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many are asked at the same time.
const AT_ONCE: usize = 32;

/// One sliver at one moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Its name.
    pub(super) name: String,
    /// When it answered.
    pub(super) at: Instant,
    /// On which day, since 1970 (UTC).
    pub(super) day: u64,
    /// Its monitor, as the kernel knows it.
    pub(super) pid: Option<i32>,
    /// What it said, if it did.
    pub(super) status: Option<Status>,
    /// Memory that its process holds.
    pub(super) resident_kib: Option<u64>,
}

/// Asks the slivers with these names in `root`. Who has just gone is left out.
pub(super) fn ask_all(root: &Path, names: &[String]) -> Vec<Sample> {
    let next = AtomicUsize::new(0);
    let samples = Mutex::new(Vec::with_capacity(names.len()));
    std::thread::scope(|scope| {
        for _ in 0..names.len().min(AT_ONCE) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let sample = ask(root, name);
                    if let (Some(sample), Ok(mut samples)) = (sample, samples.lock()) {
                        samples.push(sample);
                    }
                }
            });
        }
    });
    samples.into_inner().unwrap_or_default()
}

fn ask(root: &Path, name: &str) -> Option<Sample> {
    let path = rundir::socket_path(root, name);
    let (pid, status) = match Client::connect_with_patience(&path, PATIENCE) {
        Ok(mut client) => {
            let status = client.status();
            if matches!(status, Err(ClientError::Closed)) {
                return None;
            }
            (client.process(), status.ok())
        }
        Err(ClientError::Io(error)) if gone(&error) => return None,
        Err(_) => (None, None),
    };
    Some(Sample {
        name: name.to_owned(),
        at: Instant::now(),
        day: today(),
        pid,
        status,
        resident_kib: pid.and_then(resident_kib),
    })
}

fn today() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / 86_400)
}

/// What a process holds of memory (proc_pid_status(5)).
fn resident_kib(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn who_hangs_is_silent_and_who_is_gone_is_left_out() {
        let root = tempfile::tempdir().expect("a directory");
        let place = |name: &str| {
            fs::create_dir(root.path().join(name)).expect("made");
            rundir::socket_path(root.path(), name)
        };
        let names: Vec<String> = (0..AT_ONCE).map(|i| format!("hangs-{i}")).collect();
        let hanging: Vec<_> = names
            .iter()
            .map(|name| UnixListener::bind(place(name)).expect("bound"))
            .collect();
        drop(UnixListener::bind(place("gone")).expect("bound"));
        let names = [names, vec!["gone".to_owned(), "never-was".to_owned()]].concat();
        let samples = ask_all(root.path(), &names);
        assert_eq!(samples.len(), hanging.len());
        for sample in &samples {
            assert!(sample.name.starts_with("hangs-") && sample.status.is_none());
            // This process listens on all of them.
            assert_eq!(sample.pid, Some(std::process::id() as i32));
            assert!(sample.resident_kib > Some(0));
        }
    }
}
