//! Guests with more than one vCPU.

use crate::lab::guest::{Guest, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;

pub(super) fn two(stage: &Stage) {
    let mut guest = Guest::serve(stage, linux(stage, Part::BzImage, "serve").vcpus(2));
    assert_eq!(guest.run("nproc").trim(), "2");
    let work = "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done";
    guest.run(&format!(
        "taskset 1 sh -c '{work}' & taskset 2 sh -c '{work}' & wait"
    ));
    for vcpu in ["cpu0", "cpu1"] {
        let line = guest.run(&format!("grep '^{vcpu} ' /proc/stat"));
        let user = line.split_whitespace().nth(1);
        let ticks: u64 = user.and_then(|n| n.parse().ok()).expect("it is a number");
        assert!(ticks > 0, "{vcpu} did nothing: {line}");
    }
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}

pub(super) fn many(stage: &Stage) {
    let mut guest = Guest::serve(stage, linux(stage, Part::BzImage, "serve").vcpus(32));
    assert_eq!(
        guest.run("cat /sys/devices/system/cpu/online").trim(),
        "0-31"
    );
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}
