//! A guest's disk keeps what was written.

use std::fs::File;

use serde_json::json;

use crate::lab::guest::{Guest, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;
use crate::sliver::new_place;

const MIB: u64 = 256;

pub(super) fn written_and_checked(stage: &Stage) {
    let place = new_place();
    let path = place.path().join("disk.img");
    let disk = File::create(&path).expect("the disk is made");
    disk.set_len(MIB << 20).expect("a file may have holes");
    let sliver = linux(stage, Part::BzImage, "serve").field("disks", json!([{ "path": path }]));
    let mut guest = Guest::serve(stage, sliver);
    stage.step("writing");
    guest.run(&format!("lab-guest write /dev/vda {MIB} 1"));
    stage.step("reading");
    // What the guest's own memory still has must not answer for the disk.
    guest.run("echo 3 >/proc/sys/vm/drop_caches");
    guest.run(&format!("lab-guest check /dev/vda {MIB} 1"));
    let (status, _) = guest.attempt("lab-guest check /dev/vda 1 2");
    assert_ne!(status, 0, "a check that cannot fail shows nothing");
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}
