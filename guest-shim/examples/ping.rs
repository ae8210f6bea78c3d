//! Measures hosts by ICMP echo, over IPv4 and IPv6: how many answers are lost, and how long the
//! others take.
//!
//!     ping HOST... [--count N] [--interval MS] [--patience MS] [--json]
//!
//! Hosts are names or addresses, asked all at once, 5 times each, once a second unless told
//! otherwise. An answer that has not come within a second, or as long as told, is lost.
//!
//! It ends with 0 if every host has answered, with 1 if one never has, and with 2 for wrong
//! arguments. On a desktop it needs the kernel's leave, see [`guest_shim::net::ping`].
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

#[path = "common/flags.rs"]
mod flags;
#[path = "common/json.rs"]
mod json;
#[path = "common/or_null.rs"]
mod or_null;

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use guest_shim::net::{self, lookup, wait_configured};
use guest_shim::prelude::*;
use guest_shim::task;
use guest_shim::time::Instant;

use flags::{Flags, Wrong};
use json::Quoted;
use or_null::OrNull;

const USAGE: &str = "usage: ping HOST... [--count N] [--interval MS] [--patience MS] [--json]

Measures hosts: how many answers are lost, and how long the others take.

  --count N          how often each is asked (5)
  --interval MS      from one time to the next (1000)
  --patience MS      how long an answer may take (1000)
  --json             print one JSON array instead of lines";

#[derive(Clone, Copy)]
struct Pace {
    count: u32,
    interval: Duration,
    patience: Duration,
}

struct Options {
    hosts: Vec<&'static str>,
    pace: Pace,
    json: bool,
}

/// What is known of a host.
struct Measured {
    host: &'static str,
    address: Option<IpAddr>,
    sent: u32,
    /// In rising order.
    times: Vec<Duration>,
    /// What went wrong last.
    error: Option<net::Error>,
}

impl Options {
    fn parse() -> Result<Self, Wrong> {
        let mut options = Self {
            hosts: Vec::new(),
            pace: Pace {
                count: 5,
                interval: Duration::from_secs(1),
                patience: Duration::from_secs(1),
            },
            json: false,
        };
        let pace = &mut options.pace;
        let mut flags = Flags::of_this_program();
        while let Some(flag) = flags.next() {
            match flag {
                "--count" => pace.count = flags.value(flag)?,
                "--interval" => pace.interval = Duration::from_millis(flags.value(flag)?),
                "--patience" => pace.patience = Duration::from_millis(flags.value(flag)?),
                "--json" => options.json = true,
                host if !host.starts_with('-') => options.hosts.push(host),
                _ => return Err(Wrong::unknown(flag)),
            }
        }
        if options.hosts.is_empty() {
            return Err(Wrong::Told("no host is named".to_owned()));
        }
        Ok(options)
    }
}

fn run() -> u8 {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(wrong) => return wrong.tell(USAGE),
    };
    let measured = task::block_on(measure_all(&options));
    if options.json {
        let objects: Vec<String> = measured.iter().map(Measured::json).collect();
        println!("[{}]", objects.join(","));
    } else {
        measured.iter().for_each(|host| println!("{host}"));
    }
    let silent = measured.iter().any(|host| host.times.is_empty());
    u8::from(silent)
}

async fn measure_all(options: &Options) -> Vec<Measured> {
    wait_configured().await;
    let pace = options.pace;
    let start = |host: &&'static str| task::spawn(measure(host, pace));
    let tasks: Vec<_> = options.hosts.iter().map(start).collect();
    let mut measured = Vec::with_capacity(tasks.len());
    for task in tasks {
        measured.push(task.await);
    }
    measured
}

async fn measure(host: &'static str, pace: Pace) -> Measured {
    let mut measured = Measured {
        host,
        address: None,
        sent: 0,
        times: Vec::new(),
        error: None,
    };
    let address = match lookup(host).await {
        Ok(addresses) => addresses[0],
        Err(error) => {
            measured.error = Some(error);
            return measured;
        }
    };
    measured.address = Some(address);
    let mut next = Instant::now();
    for _ in 0..pace.count {
        task::sleep_until(next).await;
        next += pace.interval;
        measured.sent += 1;
        match net::ping(address, pace.patience).await {
            Ok(time) => measured.times.push(time),
            Err(error) => measured.error = Some(error),
        }
    }
    measured.times.sort_unstable();
    measured
}

impl Measured {
    fn loss_percent(&self) -> f64 {
        let lost = f64::from(self.sent) - self.times.len() as f64;
        if self.sent == 0 {
            100.0
        } else {
            100.0 * lost / f64::from(self.sent)
        }
    }

    /// The shortest time, the middle one and the longest.
    fn spread(&self) -> Option<[Duration; 3]> {
        let (first, last) = (self.times.first()?, self.times.last()?);
        let (upper, lower) = (self.times.len() / 2, (self.times.len() - 1) / 2);
        let median = (self.times[lower] + self.times[upper]) / 2;
        Some([*first, median, *last])
    }

    fn json(&self) -> String {
        let address = self.address.map(|address| address.to_string());
        let error = self.error.map(|error| error.to_string());
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        let [min, median, max] = match self.spread() {
            Some(times) => times.map(|time| Some(micros(time))),
            None => [None; 3],
        };
        format!(
            "{{\"host\":{},\"address\":{},\"sent\":{},\"received\":{},\"loss_percent\":{:.1},\
             \"min_us\":{},\"median_us\":{},\"max_us\":{},\"error\":{}}}",
            Quoted(self.host),
            OrNull(address.as_deref().map(Quoted)),
            self.sent,
            self.times.len(),
            self.loss_percent(),
            OrNull(min),
            OrNull(median),
            OrNull(max),
            OrNull(error.as_deref().map(Quoted)),
        )
    }
}

/// As one line.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host)?;
        if let Some(address) = self
            .address
            .filter(|address| address.to_string() != self.host)
        {
            write!(f, " ({address})")?;
        }
        write!(f, ": {} sent, {:.1} % lost", self.sent, self.loss_percent())?;
        if let Some([min, median, max]) = self.spread() {
            write!(f, ", min {min:.1?} median {median:.1?} max {max:.1?}")?;
        }
        match self.error {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

guest_shim::entry!(run);
