//! Machines of any number of vCPUs and devices and any memory: what their kernel is told of them is
//! sound, says what they are, and no part of it lies over another.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use slice_abi::layout::{MAX_VCPUS, PAGE_SIZE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm::boot::image::{Image, ImageKind};
use vmm::boot::legacy::map::{DEVICES, HOLE, IO_APIC, LOCAL_APIC, interrupt};
use vmm::boot::legacy::{DeviceWindow, Legacy, Mode, Plan, map};
use vmm::kvm::memory::GuestRam;
use vmm::spec::{KernelSpec, MAX_MEMORY_MIB};
use vmm_fuzz::{Unstructured, aml, spec};

/// What is written lies in the first MiB, and the kernel above it.
const RAM_MIB: u64 = 4;
/// More devices than any spec can have.
const MOST_DEVICES: usize = 64;
const MIB: u64 = 1 << 20;

static RAM: LazyLock<GuestRam> =
    LazyLock::new(|| GuestRam::new(&map::ram(RAM_MIB * MIB), &[], 0).expect("there is memory"));
static KERNEL: LazyLock<File> = LazyLock::new(|| {
    let fd: OwnedFd = memfd_create("kernel", MemfdFlags::CLOEXEC).expect("a file is made");
    let file = File::from(fd);
    file.write_all_at(&kernel(), 0).expect("a file has room");
    file
});

/// A 32-bit ELF file with a page of code at 1 MiB and a PVH note.
fn kernel() -> Vec<u8> {
    let mut file = vec![0; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x01\x01\x01");
    put(16, &[2, 0, 3, 0, 1, 0, 0, 0]);
    let words = |at: usize, words: &[u32], put: &mut dyn FnMut(usize, &[u8])| {
        for (i, word) in words.iter().enumerate() {
            put(at + 4 * i, &word.to_le_bytes());
        }
    };
    words(24, &[0x10_0000, 52], &mut put);
    put(40, &[52, 0, 32, 0, 2, 0]);
    words(
        52,
        &[1, 0, 0x10_0000, 0x10_0000, 0x1000, 0x1000, 5, 0x1000],
        &mut put,
    );
    words(84, &[4, 0x200, 0, 0, 20, 20, 4, 4], &mut put);
    words(0x200, &[4, 4, 18], &mut put);
    put(0x20c, b"Xen\0");
    words(0x210, &[0x10_0000], &mut put);
    file
}

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(input: &mut Unstructured) -> Result<()> {
    let vcpus = input.int_in_range(1..=MAX_VCPUS)?;
    let memory_mib = match input.arbitrary::<u8>()? % 4 {
        0 => input.int_in_range(RAM_MIB..=64)?,
        1 => 3072 + input.int_in_range(0..=4u64)? - 2,
        _ => input.int_in_range(RAM_MIB..=MAX_MEMORY_MIB)?,
    };
    let count = usize::from(input.arbitrary::<u8>()?) % (MOST_DEVICES + 1);
    let windows: Vec<DeviceWindow> = (0..count)
        .map(|index| {
            Ok(DeviceWindow {
                id: input.arbitrary()?,
                base: DEVICES + index as u64 * PAGE_SIZE,
                interrupt: interrupt::device(index),
            })
        })
        .collect::<Result<_>>()?;
    let acpi = input.arbitrary::<u8>()? % 8 != 0;
    let letters = usize::from(input.arbitrary::<u16>()?) % 1537;
    let spec = spec(&json!({
        "memory_mib": memory_mib,
        "vcpus": vcpus,
        "kernel": { "protocol": "pvh", "acpi": acpi, "append": "a".repeat(letters) },
    }));
    let path = PathBuf::from(format!("/proc/self/fd/{}", KERNEL.as_raw_fd()));
    let protocol = spec.kernel().map(KernelSpec::protocol);
    let image = Image::open(&path, protocol).expect("it is a kernel");
    let (file, ImageKind::Kernel(kernel)) = image.into_parts() else {
        panic!("it is a kernel");
    };
    let plan = Plan::new(&kernel, &spec, None).expect("it has room");
    let legacy = Legacy {
        kernel: &kernel,
        file: &file,
        spec: &spec,
        ram: &RAM,
        devices: &windows,
    };
    // Without ACPI each window is told on the command line, which has an end.
    let Ok(loaded) = legacy.load(&plan, &|| true) else {
        assert!(!acpi, "a table has no room for {count} devices");
        return Ok(());
    };
    assert!(matches!(loaded.entry.mode, Mode::Protected { .. }));
    let memory = RAM.backend();
    let info = loaded.entry.rbx;
    let taken = memory_map(memory, info, memory_mib * MIB);
    let rsdp = read(memory, info + 32, 8);
    assert_eq!(rsdp != 0, acpi);
    if acpi {
        tables(memory, rsdp, vcpus, &windows, &taken);
    }
    Ok(())
}

fn read(memory: &GuestMemoryMmap, address: u64, width: usize) -> u64 {
    let mut bytes = [0; 8];
    let at = GuestAddress(address);
    memory
        .read_slice(&mut bytes[..width], at)
        .expect("it is in memory");
    u64::from_le_bytes(bytes)
}

/// The parts of RAM that the kernel may use: apart from each other and from devices.
fn memory_map(memory: &GuestMemoryMmap, info: u64, bytes: u64) -> Vec<(u64, u64)> {
    let (at, count) = (read(memory, info + 40, 8), read(memory, info + 48, 4));
    assert!((1..=16).contains(&count));
    let (mut last, mut usable) = (0, Vec::new());
    for index in 0..count {
        let entry = at + index * 24;
        let (start, len) = (read(memory, entry, 8), read(memory, entry + 8, 8));
        let end = start.checked_add(len).expect("it ends");
        assert!(start >= last, "{start:#x} lies over what ends at {last:#x}");
        last = end;
        if read(memory, entry + 16, 4) == 1 {
            assert!(end <= HOLE || start >= map::HIGH_RAM, "RAM in the hole");
            usable.push((start, end));
        }
    }
    let sum: u64 = usable.iter().map(|(start, end)| end - start).sum();
    assert!(sum <= bytes && sum + MIB > bytes, "{sum} of {bytes}");
    usable
}

fn tables(
    memory: &GuestMemoryMmap,
    rsdp: u64,
    vcpus: usize,
    windows: &[DeviceWindow],
    usable: &[(u64, u64)],
) {
    let mut bytes = [0; 36];
    memory
        .read_slice(&mut bytes, GuestAddress(rsdp))
        .expect("it is in memory");
    assert_eq!(&bytes[..8], b"RSD PTR ");
    assert_eq!((aml::sum(&bytes[..20]), aml::sum(&bytes)), (0, 0));
    let xsdt_at = read(memory, rsdp + 24, 8);
    let xsdt = aml::table(memory, xsdt_at, b"XSDT");
    let address = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight"));
    let [fadt_at, madt_at] = [36, 44].map(|at| address(&xsdt[at..at + 8]));
    let fadt = aml::table(memory, fadt_at, b"FACP");
    let madt = aml::table(memory, madt_at, b"APIC");
    let dsdt_at = address(&fadt[140..148]);
    let dsdt = aml::table(memory, dsdt_at, b"DSDT");
    let mut places = [
        (rsdp, 36),
        (xsdt_at, xsdt.len() as u64),
        (fadt_at, fadt.len() as u64),
        (madt_at, madt.len() as u64),
        (dsdt_at, dsdt.len() as u64),
    ];
    places.sort_unstable();
    for pair in places.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
    }
    for (start, len) in places {
        let used = |(from, to): &(u64, u64)| start < *to && *from < start + len;
        assert!(
            !usable.iter().any(used),
            "a kernel would use the table at {start:#x}"
        );
    }
    processors(&madt, vcpus);
    hardware(&aml::devices(&dsdt[36..]), windows);
}

fn processors(madt: &[u8], vcpus: usize) {
    assert_eq!(madt[36..40], (LOCAL_APIC as u32).to_le_bytes());
    let (mut rest, mut ids, mut io) = (&madt[44..], BTreeSet::new(), 0);
    while let [kind, len, ..] = *rest {
        let (entry, others) = rest.split_at(usize::from(len));
        match kind {
            0 => assert!(entry[4] == 1 && ids.insert(entry[3]), "{entry:?}"),
            1 => {
                assert_eq!(entry[4..8], (IO_APIC as u32).to_le_bytes());
                io += 1;
            }
            _ => panic!("an entry of kind {kind}"),
        }
        rest = others;
    }
    assert!(rest.is_empty() && io == 1 && ids.len() == vcpus);
}

fn hardware(found: &[aml::AmlDevice], windows: &[DeviceWindow]) {
    let names: BTreeSet<&str> = found.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names.len(), found.len(), "two devices have one name");
    let told: Vec<(u64, u64)> = found
        .iter()
        .flat_map(|device| &device.memory)
        .map(|(base, len)| (u64::from(*base), u64::from(*len)))
        .collect();
    let there: Vec<(u64, u64)> = windows
        .iter()
        .map(|window| (window.base, PAGE_SIZE))
        .collect();
    assert_eq!(told, there);
    assert!(
        told.iter()
            .all(|(base, len)| *base >= HOLE && base + len <= IO_APIC)
    );
    let mut ports: Vec<(u16, u8)> = found
        .iter()
        .flat_map(|device| device.ports.clone())
        .collect();
    ports.sort_unstable();
    for pair in ports.windows(2) {
        assert!(pair[0].0 + u16::from(pair[0].1) <= pair[1].0, "{pair:x?}");
    }
    // Who shares an interrupt says so, and who says so shares it.
    let lines: Vec<(u32, bool)> = found
        .iter()
        .flat_map(|device| device.interrupts.clone())
        .collect();
    for (line, shared) in &lines {
        let users = lines.iter().filter(|(other, _)| other == line).count();
        assert_eq!(users > 1, *shared, "interrupt {line}");
        assert!(*line < 24);
    }
}
