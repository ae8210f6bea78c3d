//! A sliver's line: what it has used per second between two samples, beside what it is granted.

use std::cmp::Ordering;

use serde::Serialize;
use vmm::control::proto::{DeviceStatus, NetStatus, Status};
use vmm::spec::DiskLimits;

use super::sample::Sample;
use crate::cli::SortKey;
use crate::steer::state;

/// One sliver. What cannot be told is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) slice: String,
    /// `running`, `paused`, `ended` or `silent`.
    pub(super) state: &'static str,
    pub(super) pid: Option<i32>,
    pub(super) uptime_ms: Option<u64>,
    pub(super) vcpus: Option<usize>,
    /// Used, in percent of one processor.
    pub(super) cpu_percent: Option<f64>,
    pub(super) cpu_cap: Option<f64>,
    /// In percent of the host's processors.
    pub(super) cpu_pct: Option<f64>,
    pub(super) cpu_share: Option<u32>,
    /// Of the time.
    pub(super) throttled_percent: Option<f64>,
    pub(super) memory_resident_kib: Option<u64>,
    pub(super) memory_kib: Option<u64>,
    pub(super) net_rx_bytes_s: Option<f64>,
    pub(super) net_tx_bytes_s: Option<f64>,
    /// In kbit/s.
    pub(super) net_max_rate: Option<u64>,
    /// In kbit/s.
    pub(super) net_rx_max_rate: Option<u64>,
    /// Of the day's allowance.
    pub(super) net_used_percent: Option<f64>,
    pub(super) disk_read_bytes_s: Option<f64>,
    pub(super) disk_write_bytes_s: Option<f64>,
    /// Read or written.
    pub(super) disk_requests_s: Option<f64>,
    /// In KiB/s.
    pub(super) disk_rate: Option<u64>,
    /// Requests per second that it may have.
    pub(super) disk_iops: Option<u64>,
}

/// What is counted.
struct Counts {
    uptime_us: u64,
    consumed_us: u64,
    throttled_us: u64,
    rx: u64,
    tx: u64,
    read: u64,
    written: u64,
    requests: u64,
}

impl Row {
    /// From a sample and the one before, if there was one: of a sliver that is new, since its start.
    pub(super) fn new(now: &Sample, before: Option<&Sample>) -> Self {
        let silent = Self {
            name: now.name.clone(),
            state: "silent",
            pid: now.pid,
            memory_resident_kib: now.resident_kib,
            ..Self::default()
        };
        let Some(status) = &now.status else {
            return silent;
        };
        let counts = Counts::of(status);
        let before = before.filter(|before| before.pid == now.pid);
        let last = before.and_then(|before| before.status.as_ref());
        // Another sliver may have got the same name, and even the same process.
        let last = last
            .map(Counts::of)
            .filter(|last| last.uptime_us <= counts.uptime_us);
        let (last, time_us) = match (last, before) {
            (Some(last), Some(before)) => (last, (now.at - before.at).as_micros() as u64),
            _ => (Counts::NONE, counts.uptime_us),
        };
        let rate = |of: fn(&Counts) -> u64| -> Option<f64> {
            let more = of(&counts).saturating_sub(of(&last));
            (time_us > 0).then(|| more as f64 * 1e6 / time_us as f64)
        };
        let percent = |of| rate(of).map(|per_second| rounded(per_second / 1e4));
        let limits = &status.cpu.limits;
        let (net, disk) = (status.net.as_ref(), status.disk.as_ref());
        let tenths = |tenths: u32| f64::from(tenths) / 10.0;
        Self {
            slice: status.slice.clone(),
            state: state(status),
            uptime_ms: Some(status.uptime_ms),
            vcpus: Some(status.vcpus),
            cpu_percent: percent(|counts| counts.consumed_us),
            cpu_cap: limits.cap().map(|cap| tenths(cap.0)),
            cpu_pct: Some(tenths(limits.reserve_permille())),
            cpu_share: Some(limits.share()),
            throttled_percent: percent(|counts| counts.throttled_us),
            memory_kib: Some(status.memory_kib),
            net_rx_bytes_s: rate(|counts| counts.rx).map(rounded),
            net_tx_bytes_s: rate(|counts| counts.tx).map(rounded),
            disk_read_bytes_s: rate(|counts| counts.read).map(rounded),
            disk_write_bytes_s: rate(|counts| counts.written).map(rounded),
            disk_requests_s: rate(|counts| counts.requests).map(rounded),
            net_max_rate: net.and_then(|net| net.limits.plain().max_kbit),
            net_rx_max_rate: net.and_then(|net| net.limits.rx_max_kbit()),
            net_used_percent: net.and_then(|net| used_percent(net, now.day)),
            disk_rate: disk.and_then(|disk| disk.bytes_per_second().map(|bytes| bytes >> 10)),
            disk_iops: disk.and_then(DiskLimits::requests_per_second),
            ..silent
        }
    }

    /// Whether its monitor did not answer.
    pub(super) fn is_silent(&self) -> bool {
        self.state == "silent"
    }

    /// Frames' bytes in both directions.
    pub(super) fn net(&self) -> Option<f64> {
        Some(self.net_rx_bytes_s? + self.net_tx_bytes_s?)
    }

    /// Bytes read and written.
    pub(super) fn disk(&self) -> Option<f64> {
        Some(self.disk_read_bytes_s? + self.disk_write_bytes_s?)
    }
}

impl Counts {
    const NONE: Self = Self {
        uptime_us: 0,
        consumed_us: 0,
        throttled_us: 0,
        rx: 0,
        tx: 0,
        read: 0,
        written: 0,
        requests: 0,
    };

    fn of(status: &Status) -> Self {
        let of = |tag: &str, counter: &str| -> u64 {
            let devices = status.devices.iter().filter(|device| is(device, tag));
            devices
                .filter_map(|device| device.counters.get(counter))
                .fold(0, |sum, count| sum.saturating_add(*count))
        };
        Self {
            uptime_us: status.uptime_ms.saturating_mul(1000),
            consumed_us: status.cpu.consumed_us,
            throttled_us: status.cpu.throttled_us,
            rx: of("net", "rx_bytes"),
            tx: of("net", "tx_bytes"),
            read: of("disk", "read_bytes"),
            written: of("disk", "write_bytes"),
            requests: of("disk", "reads").saturating_add(of("disk", "writes")),
        }
    }
}

/// How much of its allowance for `day` a sliver has used, if it has one.
fn used_percent(net: &NetStatus, day: u64) -> Option<f64> {
    let allowance = net.limits.plain().daily_bytes()?;
    // Who has not sent today is told with what he sent on another day.
    let used = if net.day == day { net.used_today } else { 0 };
    Some(rounded(used as f64 * 100.0 / allowance as f64))
}

/// Whether a device is one of the kind `tag`: `net0` is a `net`.
fn is(device: &DeviceStatus, tag: &str) -> bool {
    let number = device.tag.strip_prefix(tag);
    number.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()))
}

/// To two digits: the rest is noise.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Sorts by a key, then by name; names upwards and figures downwards unless `reversed`. What is not
/// known comes last.
pub(super) fn sort(rows: &mut [Row], key: SortKey, reversed: bool) {
    rows.sort_by(|a, b| {
        let order = compare(a, b, key);
        let order = if reversed { order.reverse() } else { order };
        order.then_with(|| a.name.cmp(&b.name))
    });
}

fn compare(a: &Row, b: &Row, key: SortKey) -> Ordering {
    let figure = |row: &Row| -> f64 {
        let figure = match key {
            SortKey::Cpu => row.cpu_percent,
            SortKey::Cap => row.cpu_cap,
            SortKey::Reserve => row.cpu_pct,
            SortKey::Share => row.cpu_share.map(f64::from),
            SortKey::Throttled => row.throttled_percent,
            SortKey::Memory => row.memory_resident_kib.map(|kib| kib as f64),
            SortKey::Net => row.net(),
            SortKey::Disk => row.disk(),
            SortKey::Uptime => row.uptime_ms.map(|ms| ms as f64),
            SortKey::Name | SortKey::Slice | SortKey::State => None,
        };
        figure.unwrap_or(-1.0)
    };
    match key {
        SortKey::Name => a.name.cmp(&b.name),
        SortKey::Slice => a.slice.cmp(&b.slice),
        SortKey::State => a.state.cmp(b.state),
        _ => figure(b).total_cmp(&figure(a)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;
    use vmm::control::proto::State;

    use super::*;

    pub(in crate::top) fn status(name: &str, uptime_ms: u64, consumed_us: u64, rx: u64) -> Status {
        serde_json::from_value(json!({
            "name": name, "slice": "local_demo", "owner": "Ada", "contact": "ada@host",
            "image": "/i", "pid": 7, "state": State::Running, "uptime_ms": uptime_ms,
            "memory_kib": 65536, "vcpus": 2, "cpu_us": { "guest": 0, "monitor": 0 },
            "cpu": {
                "cpu_cap": 150, "cpu_pct": 12.5, "cpu_share": 3, "cpu_burst": 0, "cpu_period": 10,
                "consumed_us": consumed_us, "throttled_us": consumed_us / 2, "periods": 0,
                "throttled_periods": 0, "overrun_us": 0, "worst_overrun_us": 0, "debt_us": 0,
                "step_backs": 0, "stepped_back_us": 0,
            },
            "devices": [
                { "tag": "net0", "up": true, "counters": { "rx_bytes": rx, "tx_bytes": 0 } },
                { "tag": "net1", "up": true, "counters": { "rx_bytes": rx } },
                { "tag": "network", "up": true, "counters": { "rx_bytes": 1_000_000 } },
            ],
        }))
        .expect("a status")
    }

    fn sample(at: Instant, status: Option<Status>) -> Sample {
        Sample {
            name: "web-1".to_owned(),
            at,
            day: 20_000,
            pid: Some(7),
            status,
            resident_kib: Some(4096),
        }
    }

    #[test]
    fn rates_are_taken_between_two_samples() {
        let then = Instant::now();
        let before = sample(then, Some(status("web-1", 10_000, 5_000_000, 1000)));
        let after = status("web-1", 12_000, 6_000_000, 5000);
        let now = sample(then + Duration::from_secs(2), Some(after));
        let row = Row::new(&now, Some(&before));
        assert_eq!(row.cpu_percent, Some(50.0));
        assert_eq!(row.throttled_percent, Some(25.0));
        assert_eq!(row.net_rx_bytes_s, Some(4000.0));
        assert_eq!((row.cpu_cap, row.cpu_pct), (Some(150.0), Some(12.5)));
    }

    #[test]
    fn limits_stand_beside_what_is_used_of_them() {
        let mut status = status("web-1", 10_000, 0, 0);
        let told = |status: &Status| Row::new(&sample(Instant::now(), Some(status.clone())), None);
        let row = told(&status);
        assert_eq!((row.net_max_rate, row.net_used_percent), (None, None));
        status.net = Some(NetStatus {
            limits: serde_json::from_value(json!({
                "net_max_rate": 512, "net_max_kbyte": 100, "net_rx_max_rate": 2000,
            }))
            .expect("limits"),
            used_today: 25 << 10,
            day: 20_000,
            ..NetStatus::default()
        });
        let disk = json!({ "disk_rate": 1024, "disk_iops": 50 });
        status.disk = Some(serde_json::from_value(disk).expect("limits"));
        let row = told(&status);
        assert_eq!(
            (row.net_max_rate, row.net_rx_max_rate),
            (Some(512), Some(2000))
        );
        assert_eq!(row.net_used_percent, Some(25.0));
        assert_eq!((row.disk_rate, row.disk_iops), (Some(1024), Some(50)));
        status.net.as_mut().expect("a card").day = 19_999;
        assert_eq!(told(&status).net_used_percent, Some(0.0));
    }

    #[test]
    fn a_sliver_that_is_new_is_told_since_its_start() {
        let then = Instant::now();
        let young = sample(then, Some(status("web-1", 1000, 100_000, 500)));
        assert_eq!(Row::new(&young, None).cpu_percent, Some(10.0));
        // One of the same name was there before.
        let old = sample(then, Some(status("web-1", 50_000, 40_000_000, 9999)));
        assert_eq!(Row::new(&young, Some(&old)).cpu_percent, Some(10.0));
        let newborn = sample(then, Some(status("web-1", 0, 0, 0)));
        assert_eq!(Row::new(&newborn, None).cpu_percent, None);
    }

    #[test]
    fn one_that_does_not_answer_has_no_figures_but_what_the_kernel_knows() {
        let row = Row::new(&sample(Instant::now(), None), None);
        assert!(row.is_silent());
        assert_eq!((row.cpu_percent, row.memory_kib), (None, None));
        assert_eq!(row.memory_resident_kib, Some(4096));
    }

    #[test]
    fn figures_sort_downwards_names_upwards_and_what_is_unknown_last() {
        let row = |name: &str, cpu: Option<f64>| Row {
            name: name.to_owned(),
            cpu_percent: cpu,
            ..Row::default()
        };
        let mut rows = [
            row("c", None),
            row("b", Some(1.0)),
            row("a", Some(1.0)),
            row("d", Some(9.0)),
        ];
        let names = |rows: &[Row]| rows.iter().map(|row| row.name.clone()).collect::<String>();
        sort(&mut rows, SortKey::Cpu, false);
        assert_eq!(names(&rows), "dabc");
        sort(&mut rows, SortKey::Cpu, true);
        assert_eq!(names(&rows), "cabd");
        sort(&mut rows, SortKey::Name, false);
        assert_eq!(names(&rows), "abcd");
    }
}
