//! Memory that a guest does not need any more is the host's again.

use std::fs;

use crate::lab::guest::{Guest, PATIENCE, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;
use crate::sliver::until_within;

/// What the guest uses for a while.
const USED_MIB: u64 = 128;

/// How much of it must come back.
const BACK_MIB: u64 = 100;

pub(super) fn free_pages(stage: &Stage) {
    let mut guest = Guest::serve(stage, linux(stage, Part::BzImage, "serve"));
    let pid = guest.running().pid();
    guest.run("mkdir /t && mount -t tmpfs -o size=90% none /t");
    guest.run(&format!("dd if=/dev/zero of=/t/x bs=1M count={USED_MIB}"));
    let most = resident_mib(pid);
    assert!(most > USED_MIB, "{most} MiB hold {USED_MIB} MiB");
    guest.run("rm /t/x");
    let less = until_within(PATIENCE, "the memory is given back", || {
        let now = resident_mib(pid);
        (now + BACK_MIB <= most).then_some(now)
    });
    stage.step(format!("{most} MiB while used, {less} MiB after"));
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}

/// Memory of a process that is backed by the host's.
fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a process tells its memory") >> 10
}
