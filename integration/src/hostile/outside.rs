//! The devices that hostile cases are about, and what each is connected to.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::sliver::Sliver;
use crate::taps::{self, HostEnd};

/// Bytes of a disk.
const DISK: u64 = 1 << 20;

/// Time between two frames that the host sends to each tap.
const FRAMES_EVERY: Duration = Duration::from_millis(5);

/// The device that cases are about, as the guest calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the devices are")]
pub enum Subject {
    Console,
    Net,
    NetReceive,
    Disk,
    ReadOnlyDisk,
    Rng,
    Vsock,
    VsockReceive,
    Balloon,
    BalloonReporting,
}

impl Subject {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::Console,
        Self::Net,
        Self::NetReceive,
        Self::Disk,
        Self::ReadOnlyDisk,
        Self::Rng,
        Self::Vsock,
        Self::VsockReceive,
        Self::Balloon,
        Self::BalloonReporting,
    ];

    /// What the guest calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Net => "net0",
            Self::NetReceive => "net0-receive",
            Self::Disk | Self::ReadOnlyDisk => "disk0",
            Self::Rng => "rng",
            Self::Vsock => "vsock",
            Self::VsockReceive => "vsock-receive",
            Self::Balloon => "balloon",
            Self::BalloonReporting => "balloon-reporting",
        }
    }

    /// Its device's tag.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::NetReceive => "net0",
            Self::VsockReceive => "vsock",
            Self::BalloonReporting => "balloon",
            other => other.name(),
        }
    }
}

/// What a sliver's devices are connected to.
pub(super) struct Outside<'a> {
    subject: Subject,
    place: &'a TempDir,
    taps: Vec<OwnedFd>,
    host: Vec<HostEnd>,
    listeners: Vec<UnixListener>,
}

impl<'a> Outside<'a> {
    pub(super) fn new(subject: Subject, count: usize, place: &'a TempDir) -> Self {
        let wired = matches!(subject, Subject::Net | Subject::NetReceive);
        let taps = taps::make(if wired { count } else { 0 });
        let (taps, host) = taps.into_iter().map(|tap| (tap.fd, tap.host)).unzip();
        Self {
            subject,
            place,
            taps,
            host,
            listeners: Vec::new(),
        }
    }

    /// Gives the sliver the device.
    pub(super) fn equip(&mut self, sliver: Sliver) -> Sliver {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        match self.subject {
            Subject::Console | Subject::Rng | Subject::Balloon | Subject::BalloonReporting => {
                sliver
            }
            Subject::Net | Subject::NetReceive => {
                let tap = self.taps.pop().expect("there is a tap for each");
                let off = json!({ "mode": "off" });
                sliver
                    .field("nets", json!([{}]))
                    .field("guard", off)
                    .tap(0, tap)
            }
            Subject::Disk | Subject::ReadOnlyDisk => {
                let path = self.place.path().join(format!("disk-{number}"));
                let file = fs::File::create(&path).expect("a disk is made");
                file.set_len(DISK).expect("a disk has a size");
                let read_only = self.subject == Subject::ReadOnlyDisk;
                sliver.field("disks", json!([{ "path": path, "read_only": read_only }]))
            }
            Subject::Vsock | Subject::VsockReceive => {
                let dir = self.place.path().join(format!("vsock-{number}"));
                fs::create_dir(&dir).expect("a directory is made");
                // Somebody listens at port 1, and never takes anybody in.
                let listener = UnixListener::bind(dir.join("1.sock"));
                self.listeners.push(listener.expect("a socket is bound"));
                sliver.field("vsock", json!({ "dir": dir }))
            }
        }
    }

    /// Sends frames to every tap, whether its device works or not, until `done`.
    pub(super) fn feed(&self, done: &AtomicBool) {
        while !self.host.is_empty() && !done.load(Ordering::Relaxed) {
            for (host, len) in self.host.iter().zip([60, 1514].iter().cycle()) {
                host.send(*len);
            }
            thread::sleep(FRAMES_EVERY);
        }
    }
}
