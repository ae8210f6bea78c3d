//! A process with an entry in a ledger, for tests: it burns processor time or sleeps, and tells the
//! truth about it or does not, until it is killed.
//!
//!     ledger-entry FILE NAME honest|idle|liar|silent
#![allow(clippy::print_stdout, reason = "its parent waits for a line")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::time::{ClockId, clock_gettime};
use vmm::nanos::Nanos;
use vmm::sched::fair::Claim;
use vmm::sched::ledger::{Ledger, Published};
use vmm::sched::place::Place;
use vmm::spec::MilliCpu;

/// How long it burns between two looks.
const LOOK: Duration = Duration::from_millis(10);

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, name, kind] = args.as_slice() else {
        bail!("FILE NAME KIND");
    };
    let claim = Claim {
        share: 1,
        reserve: MilliCpu(0),
        ceiling: MilliCpu(1000),
    };
    let (ledger, event) = Ledger::join(Path::new(path), name, 2, claim).context("cannot join")?;
    if let Some(event) = event {
        eprintln!("{event}");
    }
    println!("{}", ledger.slot());
    let say = |demand, service| {
        let entry = Published {
            demand,
            waiting: false,
            place: Place::default(),
            vtime: 0,
            service,
        };
        ledger.publish(read(ClockId::Monotonic), entry);
    };
    say(0, used());
    loop {
        match kind.as_str() {
            "honest" => say(1, used()),
            "liar" => say(1, Nanos::ZERO),
            "silent" => {}
            "idle" => {
                std::thread::sleep(LOOK);
                continue;
            }
            other => bail!("{other:?} is no kind"),
        }
        let begin = Instant::now();
        while begin.elapsed() < LOOK {
            std::hint::spin_loop();
        }
    }
}

fn used() -> Nanos {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Nanos {
    let time = clock_gettime(clock);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
