//! The devices of the DSDT: virtio devices, the serial port, events with what they notify, the panic
//! port, and how to power off.

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO,
    If, Interrupt, Local, Memory32Fixed, Method, Name, Notify, OpRegion, OpRegionSpace, Package,
    Path, ResourceTemplate, Scope, Store, ZERO,
};
use slice_abi::layout::PAGE_SIZE;

use super::super::entry::DeviceWindow;
use super::super::map::{SOFT_OFF, event, interrupt, port};
use super::super::place::GENERATION_ID;

/// What a notified device is told: the button was pressed, the value has changed.
const NOTIFIED: u8 = 0x80;

/// The definitions.
pub(super) fn definitions(devices: &[DeviceWindow]) -> Vec<u8> {
    let mut inside = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        let shared = devices.iter().filter(|d| d.interrupt == device.interrupt);
        virtio(index, device, shared.count() > 1, &mut inside);
    }
    serial(&mut inside);
    panic_port(&mut inside);
    power_button(&mut inside);
    generation(&mut inside);
    events(&mut inside);
    let mut out = Scope::raw("\\_SB_".into(), inside);
    Name::new(
        "_S5_".into(),
        &Package::new(vec![&SOFT_OFF, &ZERO, &ZERO, &ZERO]),
    )
    .to_aml_bytes(&mut out);
    out
}

fn line(number: u32, shared: bool) -> Interrupt {
    const CONSUMER: bool = true;
    const EDGE: bool = true;
    const ACTIVE_LOW: bool = false;
    Interrupt::new(CONSUMER, EDGE, ACTIVE_LOW, shared, number)
}

/// `LNRO0005` is what Linux and others know virtio-mmio by.
fn virtio(index: usize, device: &DeviceWindow, shared: bool, out: &mut Vec<u8>) {
    // Windows lie below 4 GiB, in the hole.
    let window = Memory32Fixed::new(true, device.base as u32, PAGE_SIZE as u32);
    let line = line(device.interrupt, shared);
    let name = format!("V{index:03X}");
    Device::new(
        name.as_str().into(),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &index),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&window, &line])),
        ],
    )
    .to_aml_bytes(out);
}

fn serial(out: &mut Vec<u8>) {
    let ports = IO::new(port::SERIAL, port::SERIAL, 1, 8);
    let line = line(interrupt::SERIAL, false);
    Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &1u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &line])),
        ],
    )
    .to_aml_bytes(out);
}

/// QEMU's pvpanic (QEMU, docs/specs/pvpanic.rst).
fn panic_port(out: &mut Vec<u8>) {
    let port = IO::new(port::PANIC, port::PANIC, 1, 1);
    Device::new(
        "PEVT".into(),
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            &Name::new("_STA".into(), &0x0fu8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&port])),
        ],
    )
    .to_aml_bytes(out);
}

fn power_button(out: &mut Vec<u8>) {
    Device::new(
        "PWRB".into(),
        vec![&Name::new("_HID".into(), &EISAName::new("PNP0C0C"))],
    )
    .to_aml_bytes(out);
}

/// The generation of the machine (Microsoft, "Virtual Machine Generation ID"): the guest reads the
/// GUID again whenever it is notified.
fn generation(out: &mut Vec<u8>) {
    let (low, high) = (GENERATION_ID as u32, (GENERATION_ID >> 32) as u32);
    let known_as: [&dyn Aml; 2] = [&"VM_Gen_Counter", &"VMGENCTR"];
    Device::new(
        "VGEN".into(),
        vec![
            &Name::new("_HID".into(), &"QEMUVGID"),
            &Name::new("_CID".into(), &Package::new(known_as.to_vec())),
            &Name::new("_DDN".into(), &"VM_Gen_Counter"),
            &Name::new("ADDR".into(), &Package::new(vec![&low, &high])),
        ],
    )
    .to_aml_bytes(out);
}

/// The generic event device (ACPI 6.5, 5.6.9): its interrupt says that the register of events has
/// something, and reading takes it.
fn events(out: &mut Vec<u8>) {
    let line = line(interrupt::EVENTS, false);
    let region = OpRegion::new("EVRG".into(), OpRegionSpace::SystemIO, &port::EVENTS, &1u8);
    let field = Field::new(
        "EVRG".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        vec![FieldEntry::Named(*b"EVTS", 8)],
    );
    let (register, button, generation) = (Path::new("EVTS"), Path::new("PWRB"), Path::new("VGEN"));
    let (pressed, changed) = (
        And::new(&ZERO, &Local(0), &event::POWER_BUTTON),
        And::new(&ZERO, &Local(0), &event::GENERATION),
    );
    Device::new(
        "EVNT".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &0u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&line])),
            &region,
            &field,
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![
                    &Store::new(&Local(0), &register),
                    &If::new(&pressed, vec![&Notify::new(&button, &NOTIFIED)]),
                    &If::new(&changed, vec![&Notify::new(&generation, &NOTIFIED)]),
                ],
            ),
        ],
    )
    .to_aml_bytes(out);
}
