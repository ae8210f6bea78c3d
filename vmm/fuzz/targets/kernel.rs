//! An image of any bytes: told apart, and loaded with an initrd of any length if it is a kernel.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use vm_memory::{Bytes, GuestAddress};
use vmm::boot::image::{Image, ImageKind};
use vmm::boot::legacy::{DeviceWindow, Legacy, Mode, Plan, least_memory_mib, map, open_initrd};
use vmm::kvm::memory::GuestRam;
use vmm::spec::KernelSpec;
use vmm_fuzz::{Unstructured, spec};

const MEMORY_MIB: u64 = 24;
const MIB: u64 = 1 << 20;

/// Memory, used again by each input: what is loaded does not depend on what was there.
static RAM: LazyLock<GuestRam> =
    LazyLock::new(|| GuestRam::new(&map::ram(MEMORY_MIB * MIB), &[], 0).expect("there is memory"));
static IMAGE: LazyLock<File> = LazyLock::new(|| file("image"));
static INITRD: LazyLock<File> = LazyLock::new(|| file("initrd"));

fn file(name: &str) -> File {
    let fd: OwnedFd = memfd_create(name, MemfdFlags::CLOEXEC).expect("a file is made");
    fd.into()
}

fn path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let Ok((how, initrd_shift, initrd_low)) = input.arbitrary::<(u8, u8, u16)>() else {
        return;
    };
    let bytes = input.take_rest();
    IMAGE.set_len(0).expect("a file can be emptied");
    IMAGE.write_all_at(bytes, 0).expect("a file has room");
    // A hole: as long as it pleases, and nothing on the host.
    let initrd_len = u64::from(initrd_low) << (initrd_shift % 24);
    INITRD.set_len(initrd_len).expect("a file can have a hole");
    let protocol = ["auto", "linux", "pvh"][usize::from(how) % 3];
    let spec = spec(&json!({
        "memory_mib": MEMORY_MIB,
        "vcpus": 1 + how % 32,
        "kernel": {
            "protocol": protocol,
            "initrd": path(&INITRD),
            "acpi": how & 0x40 == 0,
        },
    }));
    let protocol = spec.kernel().map(KernelSpec::protocol);
    let Ok(image) = Image::open(&path(&IMAGE), protocol) else {
        return;
    };
    let (file, ImageKind::Kernel(kernel)) = image.into_parts() else {
        return;
    };
    let initrd = open_initrd(&spec).expect("it is there");
    let Ok(plan) = Plan::new(&kernel, &spec, initrd) else {
        return;
    };
    let least = least_memory_mib(&kernel, initrd_len).expect("it fits");
    assert!(least <= MEMORY_MIB);
    let devices = [DeviceWindow {
        id: 1,
        base: map::DEVICES,
        interrupt: map::interrupt::device(0),
    }];
    let legacy = Legacy {
        kernel: &kernel,
        file: &file,
        spec: &spec,
        ram: &RAM,
        devices: &devices,
    };
    let Ok(loaded) = legacy.load(&plan, &|| true) else {
        return;
    };
    let entry = loaded.entry;
    assert!((MIB..MEMORY_MIB * MIB).contains(&entry.rip));
    // What the kernel is told lies where the kernel's own bytes cannot have come.
    let told = match entry.mode {
        Mode::Long { .. } => {
            let magic: u32 = read(entry.rsi + 0x202);
            assert_eq!(magic.to_le_bytes(), *b"HdrS");
            u64::from(read::<u32>(entry.rsi + 0x228))
        }
        Mode::Protected { .. } => {
            assert_eq!(read::<u32>(entry.rbx), 0x336e_c578);
            read(entry.rbx + 24)
        }
    };
    assert_eq!(read::<u64>(told).to_le_bytes(), *b"console=");
});

fn read<T: vm_memory::ByteValued>(address: u64) -> T {
    let memory = RAM.backend();
    memory
        .read_obj(GuestAddress(address))
        .expect("it is in RAM")
}
