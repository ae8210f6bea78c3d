//! Makes the machine of a legacy sliver.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_ioctls::Kvm;

use super::{Milestones, Plan, StartError};
use crate::boot::image::ImageFile;
use crate::boot::legacy::map::{self, interrupt};
use crate::boot::legacy::{Kernel, Legacy as Loader, LoadError, Plan as Placed};
use crate::devices::bus::{Bus, Line, Wiring};
use crate::devices::input::Input;
use crate::devices::output::Output;
use crate::devices::outside::Outside;
use crate::devices::ports::Ports;
use crate::devices::ports::serial::SerialPort;
use crate::devices::virtio::mmio::register;
use crate::kvm::cpuid::legacy::LegacyCpuid;
use crate::kvm::memory::GuestRam;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::vm::{KvmError, Vm};
use crate::machine::legacy::Legacy;
use crate::machine::{Kind, Machine, Parts};
use crate::spec::{KernelConsole, KernelSpec, SliverSpec};

/// A kernel and where it goes, and what its serial port is connected to.
pub(super) struct Guest {
    file: ImageFile,
    kernel: Kernel,
    placed: Placed,
    output: Output,
    input: Option<Input>,
}

/// Checks that the kernel and its initrd fit, and takes what its serial port needs.
pub(super) fn plan(
    spec: &SliverSpec,
    (file, initrd): (ImageFile, Option<File>),
    kernel: Kernel,
    outside: &mut Outside,
) -> Result<Guest, StartError> {
    let placed = Placed::new(&kernel, spec, initrd).map_err(cannot_load(spec))?;
    let output = outside
        .console
        .try_clone()
        .map_err(StartError::system("use the console's output"))?;
    let console = spec.kernel().map(KernelSpec::console).unwrap_or_default();
    let reads = spec.console().input() && console == KernelConsole::Serial;
    let input = if reads { outside.input.take() } else { None };
    Ok(Guest {
        file,
        kernel,
        placed,
        output: Output::new(output),
        input: input.map(Input::new),
    })
}

fn cannot_load(spec: &SliverSpec) -> impl Fn(LoadError) -> StartError {
    |problem| StartError::Kernel {
        image: spec.image().to_owned(),
        problem,
    }
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
        kernel,
        placed,
        output,
        input,
    } = guest;
    let mut bus = Bus::new(devices.backends, map::DEVICES);
    let ranges = map::ram(spec.memory_bytes());
    let vm = Vm::new(kvm, GuestRam::new(&ranges, &ranges, 0)?, None)?;
    vm.add_interrupt_controllers(map::KVM_PAGES)?;
    let cpuid = LegacyCpuid::new(kvm, spec.vcpus())?;
    let windows = bus.windows();
    let lines = windows.iter().map(|window| {
        Ok(Line {
            interrupt: vm.interrupt_line(window.interrupt),
            doorbell: vm.doorbell(window.base + register::QUEUE_NOTIFY)?,
        })
    });
    bus.wire(Wiring::Lines(lines.collect::<Result<_, KvmError>>()?));
    let line = vm.interrupt_line(interrupt::SERIAL);
    let rate = spec.console().rate_kib_s() << 10;
    let ports = Ports::new(SerialPort::new(line, output, input, rate));
    let events = vm.interrupt_line(interrupt::EVENTS);
    milestones.vm = watch.elapsed_us();
    let loader = Loader {
        kernel: &kernel,
        file: &file,
        spec: &spec,
        ram: vm.ram(),
        devices: &windows,
    };
    let loaded = loader
        .load(&placed, &|| !cancel.load(Ordering::Relaxed))
        .map_err(cannot_load(&spec))?;
    let first = Vcpu::legacy(&vm, &cpuid, 0, Some(&loaded.entry))?;
    milestones.tsc_khz = first.tsc_khz()?;
    let others = (1..spec.vcpus()).map(|index| Vcpu::legacy(&vm, &cpuid, index, None));
    let others = others.collect::<Result<Vec<_>, _>>()?;
    let machine = Machine::new(Parts {
        vm,
        kind: Kind::Legacy(Arc::new(Legacy::new(ports, events, others))),
        bus,
        bell,
        vcpus: spec.vcpus(),
        start_paused: spec.start_paused(),
        limits: *spec.cpu(),
        gate: devices.gate,
        uplink: devices.uplink,
        disk_budget: devices.disk_budget,
    });
    milestones.load = watch.elapsed_us();
    Ok((machine, first))
}
