//! Kernels of every form boot and come to where their users are.

use serde_json::json;
use vmm::exit::ExitKind;

use crate::lab::guest::{Guest, append, legacy, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;

/// What `/proc/sys/kernel/bootloader_type` shows after an entry by PVH (arch/x86/platform/pvh).
const BY_PVH: &str = "176";

pub(super) fn bzimage(stage: &Stage) {
    let guest = Guest::serve(stage, linux(stage, Part::BzImage, "serve"));
    assert_ne!(loader(guest), BY_PVH);
}

pub(super) fn pvh(stage: &Stage) {
    let guest = Guest::serve(stage, linux(stage, Part::Vmlinux, "serve"));
    assert_eq!(loader(guest), BY_PVH);
}

/// What the kernel says it was loaded by; the guest is at its end then.
fn loader(mut guest: Guest) -> String {
    let told = guest.run("cat /proc/sys/kernel/bootloader_type");
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
    told.trim().to_owned()
}

pub(super) fn shell(stage: &Stage) {
    let mut guest = Guest::start(stage, linux(stage, Part::BzImage, "shell"));
    guest.expect("# ");
    // What is typed is echoed: the answer is what nobody has typed.
    guest.type_line("echo $((6 * 7)) and $(uname -s)");
    guest.expect("42 and Linux");
    guest.expect("# ");
    guest.type_line("poweroff -f");
    guest.wait().assert_end(ExitKind::Exited, 0);
}

pub(super) fn root_disk(stage: &Stage) {
    let how = json!({ "initrd": stage.part(Part::Initrd), "append": append("root") });
    let disk = json!([{ "path": stage.part(Part::RootDisk) }]);
    let sliver = legacy(stage, Part::BzImage, how).field("disks", disk);
    let mut guest = Guest::start(stage, sliver);
    guest.expect("lab login: ");
    guest.type_line("root");
    guest.expect("# ");
    guest.type_line("busybox stat -f -c 'it is %T' /; echo kept >/note; sync; busybox poweroff -f");
    guest.expect("it is ext2/ext3");
    guest.wait().assert_exited(0);
}
