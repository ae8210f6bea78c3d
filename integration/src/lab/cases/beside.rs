//! Native slices and Linux guests do not disturb each other.

use crate::lab::guest::{Guest, PATIENCE, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;
use crate::sliver::Sliver;

pub(super) fn native(stage: &Stage) {
    let mut guest = Guest::serve(stage, linux(stage, Part::BzImage, "serve"));
    let spin = Sliver::new(stage.part(Part::Spin)).patience(PATIENCE);
    let native = spin.args(["--ms", "3000"]).spawn_running();
    assert_eq!(guest.run("sleep 1; echo $((6 * 7))").trim(), "42");
    let ended = native.wait();
    ended.assert_exited(0);
    assert!(ended.console.contains("checksum"), "{ended:#?}");
    guest.run("sleep 1");
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}
