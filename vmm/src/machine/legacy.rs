//! What only a legacy sliver's machine has: ports, a line for its events, and vCPUs that all exist
//! from the start and wait for the first to start them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Machine;
use crate::attend;
use crate::boot::legacy::map::event;
use crate::devices::ports::power::PowerEvent;
use crate::devices::ports::{Ports, Written};
use crate::exit::Exit;
use crate::kvm::interrupts::InterruptLine;
use crate::kvm::vcpu::Vcpu;
use crate::nanos::Nanos;

/// How long a vCPU that waits for the serial port waits before it looks again by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long the last output may take once the guest has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The legacy part of a machine.
#[derive(Debug)]
pub(crate) struct Legacy {
    ports: Mutex<Ports>,
    /// Interrupts the guest when it is to read the event register.
    events: InterruptLine,
    /// vCPUs other than the first, until their threads have them.
    waiting: Mutex<Vec<Vcpu>>,
}

impl Legacy {
    /// The part of a machine with these ports, whose further vCPUs are `waiting`.
    pub(crate) fn new(ports: Ports, events: InterruptLine, waiting: Vec<Vcpu>) -> Self {
        Self {
            ports: Mutex::new(ports),
            events,
            waiting: Mutex::new(waiting),
        }
    }

    /// The ports are left sound by everything that is done with them.
    pub(crate) fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the threads of the further vCPUs, and has somebody attend to the devices.
    pub(super) fn begin(&self, machine: &Arc<Machine>) {
        let waiting = self.waiting.lock();
        let waiting = std::mem::take(&mut *waiting.unwrap_or_else(PoisonError::into_inner));
        for vcpu in waiting {
            let index = vcpu.index();
            if machine.lifecycle.start_vcpu(index) {
                machine.start_thread(index, move |_| Ok(vcpu));
            }
        }
        machine.attend();
    }

    /// A write to a port. `index` is the vCPU that writes: it waits while the serial port is full.
    pub(crate) fn write_port(
        &self,
        machine: &Arc<Machine>,
        index: usize,
        port: u16,
        data: &[u8],
    ) -> Option<PowerEvent> {
        let written = self.ports().write(port, data, attend::now());
        match written {
            Written::Done => None,
            Written::Power(event) => Some(event),
            Written::Serial => {
                self.see_to_serial(machine, index);
                None
            }
        }
    }

    fn see_to_serial(&self, machine: &Arc<Machine>, index: usize) {
        let (flush_at, mut full) = {
            let ports = self.ports();
            (ports.serial.flush_at(), ports.serial.is_full())
        };
        // For each character: whoever attends is there since the beginning.
        machine.set_timer(flush_at);
        // The guest waits for its own output, as a program does whose terminal is slow.
        while full && !machine.lifecycle.wants_attention() {
            machine.slots[index].doze.sleep(Some(LOOK_AGAIN));
            full = self.serve_serial(attend::now()).1;
        }
    }

    /// Sees to the serial port, whose descriptors are ready or whose moment may have come. When it
    /// is to be seen to again, and whether a guest that prints has to wait.
    pub(crate) fn serve_serial(&self, now: Nanos) -> (Option<Nanos>, bool) {
        let mut ports = self.ports();
        ports.serial.receive();
        ports.serial.flush(now);
        (ports.serial.flush_at(), ports.serial.is_full())
    }

    /// How the guest has ended its machine.
    pub(crate) fn end(&self, event: PowerEvent) -> Exit {
        let ports = self.ports();
        let panic = ports.panic_watch().panic();
        match (event, panic) {
            (PowerEvent::Off, _) => Exit::powered_off(),
            (PowerEvent::Exit(status), _) => Exit::exited(status),
            // Most kernels are told to reset when they panic.
            (PowerEvent::Reset, None) => Exit::rebooted(),
            (_, panic) => Exit::panicked(panic),
        }
    }

    /// Presses the power button.
    pub(crate) fn press_power_button(&self) {
        self.ports().raise_events(event::POWER_BUTTON);
        self.events.trigger();
    }

    /// Writes the last of the output, if whoever reads it is quick.
    pub(super) fn finish(&self) {
        let until = attend::now().0 + LAST_WORDS.as_nanos() as u64;
        loop {
            let now = attend::now();
            let mut ports = self.ports();
            ports.serial.flush(now);
            if !ports.serial.has_output() || now.0 >= until {
                return;
            }
            drop(ports);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
