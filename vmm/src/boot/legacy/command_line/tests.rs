use serde_json::{Value, json};

use super::*;
use crate::boot::legacy::testing::spec;

const LIMIT: usize = 2047;

fn devices(count: usize) -> Vec<DeviceWindow> {
    (0..count)
        .map(|index| DeviceWindow {
            id: 2,
            base: 0xd000_0000 + index as u64 * 0x1000,
            interrupt: 5 + index as u32,
        })
        .collect()
}

fn line_of(fields: Value, limit: usize) -> Result<String, CommandLineError> {
    let spec = spec(&fields);
    let kernel = spec.kernel().cloned().unwrap_or_default();
    let line = make(&spec, &kernel, &devices(2), limit)?;
    Ok(line.as_cstring().unwrap().into_string().unwrap())
}

fn line(fields: Value) -> String {
    line_of(fields, LIMIT).unwrap()
}

#[test]
fn a_kernel_without_anything_knows_its_console() {
    assert_eq!(line(json!({})), "console=ttyS0 panic=-1 reboot=acpi");
    assert_eq!(
        line(json!({ "kernel": { "console": "virtio" } })),
        "console=hvc0 panic=-1 reboot=acpi"
    );
}

#[test]
fn the_first_disk_is_the_root_unless_another_is_named() {
    let disks = json!([{ "path": "/a", "read_only": true }, { "path": "/b" }]);
    assert!(line(json!({ "disks": disks })).ends_with(" root=/dev/vda ro"));
    let disks = json!([{ "path": "/b" }]);
    assert!(line(json!({ "disks": disks })).ends_with(" root=/dev/vda rw"));
    let kernel = json!({ "append": "quiet root=LABEL=x" });
    assert_eq!(
        line(json!({ "disks": disks, "kernel": kernel })),
        "console=ttyS0 panic=-1 reboot=acpi quiet root=LABEL=x"
    );
    let kernel = json!({ "append": "myroot=1" });
    assert!(
        line(json!({ "disks": disks, "kernel": kernel })).contains("root=/dev/vda rw myroot=1")
    );
}

#[test]
fn without_acpi_devices_are_told() {
    assert_eq!(
        line(json!({ "kernel": { "acpi": false, "append": "quiet" } })),
        "console=ttyS0 panic=-1 reboot=acpi quiet virtio_mmio.device=4K@0xd0000000:5 \
         virtio_mmio.device=4K@0xd0001000:6"
    );
}

#[test]
fn arguments_are_passed_on_to_init() {
    assert_eq!(
        line(json!({ "args": ["-c", "two words", "", "k=v"] })),
        "console=ttyS0 panic=-1 reboot=acpi -- -c \"two words\" \"\" k=v"
    );
    let kernel = json!({ "append": "x=\"a -- b\" -- first", "acpi": false });
    let line = line(json!({ "kernel": kernel, "args": ["second"] }));
    assert!(line.starts_with("console=ttyS0 panic=-1 reboot=acpi x=\"a -- b\" virtio_mmio"));
    assert!(line.ends_with(":6 -- first second"), "{line}");
}

#[test]
fn an_argument_that_cannot_be_told_is_refused() {
    for arg in ["a\"b", "a\nb", "ä"] {
        let refused = line_of(json!({ "args": [arg] }), LIMIT);
        assert!(
            matches!(refused, Err(CommandLineError::BadArgument(..))),
            "{arg:?}"
        );
    }
}

#[test]
fn a_line_that_the_kernel_would_cut_is_refused() {
    let usual = "console=ttyS0 panic=-1 reboot=acpi ".len();
    let of_len = |len: usize| json!({ "kernel": { "append": "x".repeat(len) } });
    assert_eq!(
        line_of(of_len(100), usual + 100).unwrap().len(),
        usual + 100
    );
    let too_long = CommandLineError::TooLong { limit: usual + 99 };
    assert_eq!(line_of(of_len(100), usual + 99), Err(too_long));
    for limit in [0, 1, 10] {
        let refused = line_of(json!({}), limit);
        assert_eq!(refused, Err(CommandLineError::TooLong { limit }));
    }
}

#[test]
fn a_kernel_that_claims_to_read_everything_gets_what_there_is_room_for() {
    assert!(line_of(json!({}), usize::MAX).is_ok());
    assert!(line_of(json!({}), u32::MAX as usize).is_ok());
}
