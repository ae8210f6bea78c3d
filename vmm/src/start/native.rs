//! Makes the machine of a native sliver.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_ioctls::Kvm;

use super::{Milestones, Plan, StartError};
use crate::boot::image::ImageFile;
use crate::boot::slice::NativeImage;
use crate::boot::slice::layout::{Layout, low};
use crate::boot::slice::load::{self, DeviceTable};
use crate::devices::bus::{Bus, Wiring};
use crate::kvm::cpuid::Processor;
use crate::kvm::memory::GuestRam;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::vm::Vm;
use crate::machine::native::Native;
use crate::machine::{Kind, Machine, Parts};
use crate::spec::SliverSpec;

/// A native image and where it goes.
pub(super) struct Guest {
    file: ImageFile,
    image: NativeImage,
    layout: Layout,
}

/// Checks that the image fits.
pub(super) fn plan(
    spec: &SliverSpec,
    file: ImageFile,
    image: NativeImage,
) -> Result<Guest, StartError> {
    let layout = Layout::new(&image, spec.memory_bytes(), spec.vcpus()).map_err(|problem| {
        StartError::TooSmall {
            image: spec.image().to_owned(),
            problem,
        }
    })?;
    Ok(Guest {
        file,
        image,
        layout,
    })
}

/// Makes the machine and its first vCPU.
pub(super) fn make(
    kvm: &Kvm,
    guest: Guest,
    plan: Plan,
    milestones: &mut Milestones,
) -> Result<(Machine, Vcpu), StartError> {
    let Plan {
        spec,
        devices,
        bell,
        cancel,
        watch,
    } = plan;
    let Guest {
        file,
        image,
        layout,
    } = guest;
    let mut bus = Bus::new(devices.backends, low::DEVICES);
    let (gate, uplink) = (devices.gate, devices.uplink);
    let disk_budget = devices.disk_budget;
    let devices = DeviceTable {
        entries: bus.entries(),
        nets: devices.nets,
    };
    let ram = GuestRam::new(
        &[layout.ram()],
        &[layout.large_pages()],
        load::writable_from(&image),
    )?;
    let system = Arc::new(load::system_area(&image, &layout, devices.entries.len())?);
    let area = (Arc::clone(&system), layout.system_base());
    let vm = Vm::new(kvm, ram, Some(area))?;
    let mut processor = Processor::host();
    let entry = load::prepare_vcpu(0, &image, &layout, vm.ram())
        .map_err(StartError::system("write the vCPU block"))?;
    let vcpu = Vcpu::first(&vm, &mut processor, &entry)?;
    milestones.tsc_khz = vcpu.tsc_khz()?;
    milestones.vm = watch.elapsed_us();
    load::load_segments(&image, &file, vm.ram(), || !cancel.load(Ordering::Relaxed)).map_err(
        |problem| StartError::Load {
            image: spec.image().to_owned(),
            problem,
        },
    )?;
    load::write_info(&system, &spec, &image, &layout, &processor, &devices);
    bus.wire(Wiring::Memory(Arc::clone(&system)));
    let native = Native::new(image, layout, processor, system, milestones.tsc_khz);
    let machine = Machine::new(Parts {
        vm,
        kind: Kind::Native(Arc::new(native)),
        bus,
        bell,
        vcpus: spec.vcpus(),
        start_paused: spec.start_paused(),
        limits: *spec.cpu(),
        gate,
        uplink,
        disk_budget,
    });
    milestones.load = watch.elapsed_us();
    Ok((machine, vcpu))
}
