use super::*;
use crate::boot::legacy::map::{DEVICES, interrupt};
use crate::boot::legacy::place::GENERATION_ID;

fn windows(count: usize) -> Vec<DeviceWindow> {
    (0..count)
        .map(|index| DeviceWindow {
            id: 1,
            base: DEVICES + index as u64 * 0x1000,
            interrupt: interrupt::device(index),
        })
        .collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// The table at a guest physical address, checked by its own length and sum.
fn table<'a>(all: &'a [u8], address: u64, signature: &[u8; 4]) -> &'a [u8] {
    let at = (address - ACPI) as usize;
    let table = &all[at..at + word(all, at + 4) as usize];
    assert_eq!(&table[..4], signature);
    assert_eq!(sum(table), 0, "{}", signature.escape_ascii());
    table
}

struct Found<'a> {
    fadt: &'a [u8],
    madt: &'a [u8],
    dsdt: &'a [u8],
}

/// Finds the tables as a guest does.
fn find(all: &[u8]) -> Found<'_> {
    assert_eq!(&all[..8], b"RSD PTR ");
    assert_eq!((sum(&all[..20]), sum(&all[..36])), (0, 0));
    let xsdt = table(all, long(all, 24), b"XSDT");
    assert_eq!(xsdt.len(), 36 + 2 * 8);
    let fadt = table(all, long(xsdt, 36), b"FACP");
    Found {
        fadt,
        madt: table(all, long(xsdt, 44), b"APIC"),
        dsdt: table(all, long(fadt, 140), b"DSDT"),
    }
}

#[test]
fn every_table_is_found_and_sound() {
    for (vcpus, devices) in [(1, 0), (2, 5), (32, 40)] {
        find(&tables(vcpus, &windows(devices)));
    }
}

#[test]
fn the_hardware_is_reduced_and_the_registers_are_where_the_map_has_them() {
    let all = tables(1, &[]);
    let fadt = find(&all).fadt;
    let flags = word(fadt, 112);
    assert_ne!(flags & 1 << 20, 0, "reduced hardware");
    assert_ne!(flags & 1 << 10, 0, "reset register");
    assert_eq!(fadt[109..111], [0b10_0100, 0], "no VGA, no CMOS clock");
    for (at, port) in [
        (116, port::RESET),
        (244, port::SLEEP_CONTROL),
        (256, port::SLEEP_STATUS),
    ] {
        assert_eq!(fadt[at..at + 4], [1, 8, 0, 1]);
        assert_eq!(long(fadt, at + 4), u64::from(port));
    }
    assert_eq!(fadt[128], RESET_VALUE);
}

#[test]
fn each_vcpu_has_a_local_apic_with_its_index() {
    let all = tables(3, &[]);
    let madt = find(&all).madt;
    assert_eq!(word(madt, 36), 0xfee0_0000);
    let mut rest = &madt[44..];
    for index in 0..3 {
        assert_eq!(rest[..8], [0, 8, index, index, 1, 0, 0, 0]);
        rest = &rest[8..];
    }
    assert_eq!(rest[..2], [1, 12]);
    assert_eq!((word(rest, 4), word(rest, 8)), (0xfec0_0000, 0));
    assert_eq!(rest.len(), 12);
}

#[test]
fn each_device_is_told_with_its_window_and_its_interrupt() {
    let devices = windows(20);
    let all = tables(1, &devices);
    let dsdt = find(&all).dsdt;
    let place = |what: &[u8]| dsdt.windows(what.len()).position(|bytes| bytes == what);
    for (index, device) in devices.iter().enumerate() {
        let name = format!("V{index:03X}");
        let at = place(name.as_bytes()).unwrap();
        let of_device = &dsdt[at..at + 80];
        let has = |what: &[u8]| of_device.windows(what.len()).any(|bytes| bytes == what);
        assert!(has(b"LNRO0005"));
        let mut window = vec![0x86, 9, 0, 1];
        window.extend((device.base as u32).to_le_bytes());
        window.extend(0x1000u32.to_le_bytes());
        assert!(has(&window), "{name}");
        // Edge-triggered, active high; the first three and the last three share.
        let flags = if !(3..17).contains(&index) {
            0b1011
        } else {
            0b0011
        };
        let mut line = vec![0x89, 6, 0, flags, 1];
        line.extend(device.interrupt.to_le_bytes());
        assert!(has(&line), "{name}");
    }
    assert_eq!(place(b"V014"), None);
    for what in [
        &b"ACPI0013"[..],
        b"QEMU0001",
        b"VM_Gen_Counter\0",
        b"\x08_S5_\x12\x07\x04\x0a\x05\0\0\0",
        &(GENERATION_ID as u32).to_le_bytes(),
    ] {
        assert!(place(what).is_some(), "{}", what.escape_ascii());
    }
}

#[test]
fn tables_that_outgrow_their_place_are_refused() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    assert!(write(32, &windows(32), &memory).is_ok());
    let refused = write(1, &windows(4000), &memory);
    assert!(matches!(refused, Err(LoadError::Tables(_))));
}
