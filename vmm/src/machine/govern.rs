//! How a machine's threads obey its [`Governor`](crate::sched::governor::Governor): the gate that
//! each passes on its way into the guest or to a device, and where all stand while they may not.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::Machine;
use crate::attend::now;
use crate::control::proto::CpuStatus;
use crate::exit::CpuTime;
use crate::kvm::vcpu::Vcpu;
use crate::lifecycle::{Presence, Verdict};
use crate::nanos::Nanos;
use crate::sched::account::process_time;
use crate::sched::governor::{Governor, Looked};
use crate::sched::place;
use crate::spec::{CpuLimits, NetLimits};

impl Machine {
    /// Whether the sliver may run, and what it has used.
    pub(crate) fn governor(&self) -> &Governor {
        &self.governor
    }

    /// Waits until the sliver may run. `false`: its life wants attention first. `own` is the calling
    /// vCPU, if it is one.
    pub(crate) fn pass_gate(&self, own: Option<usize>) -> bool {
        let mut moved = false;
        while self.governor.is_due(now()) {
            let ticket = self.governor.ticket();
            if self.lifecycle.wants_attention() {
                return false;
            }
            let here = own.map(|_| place::current());
            let Some(looked) = self.governor.look_if_due(now(), self.used(), here) else {
                continue;
            };
            let wait = self.obey(&looked, own);
            if let Some(processor) = looked.go_to.filter(|_| !moved) {
                place::go_to(processor);
                // That may have taken a while, and nobody is woken who does not sleep yet.
                moved = true;
                continue;
            }
            moved = false;
            if let Some(until) = wait {
                self.governor.wait(&ticket, until);
            }
        }
        true
    }

    /// Has the governor look now. Until when nobody may run, if so: all are stopped.
    fn look(&self) -> Option<Nanos> {
        let looked = self.governor.look(now(), self.used());
        self.obey(&looked, None)
    }

    /// Does what follows from a look. Until when nobody may run, if so: all but `own` are stopped.
    fn obey(&self, looked: &Looked, own: Option<usize>) -> Option<Nanos> {
        if looked.stopped {
            self.stop_busy(own);
        }
        if let Some(native) = self.native() {
            // Who moves frames right now tells it next time.
            let gate = self.gate().and_then(|gate| gate.try_lock().ok());
            native.tell_quota(&looked.grant, gate.map(|gate| gate.granted()).as_ref());
        }
        looked.hold
    }

    /// Gets every vCPU but `own` out of the guest. One that sleeps sleeps on: it passes the gate
    /// before it does anything.
    fn stop_busy(&self, own: Option<usize>) {
        for (index, slot) in self.slots.iter().enumerate() {
            let sleeps = slot.dozes.load(Ordering::SeqCst);
            if let Some(kick) = slot.kick.get()
                && own != Some(index)
                && !sleeps
            {
                kick.kick();
            }
        }
    }

    /// A vCPU asks what to do. One that has to stand still wants no processor meanwhile.
    pub(crate) fn checkpoint(&self, vcpu: &mut Vcpu, presence: &mut Presence) -> Verdict {
        if !self.lifecycle.wants_attention() && !presence.stepping {
            return Verdict::Run;
        }
        self.rests();
        let verdict = self
            .lifecycle
            .checkpoint(vcpu, presence, &|| self.bell.ring());
        if verdict == Verdict::Run {
            self.governor.busy(now());
        }
        verdict
    }

    /// The calling vCPU wants no processor until it is [busy](Governor::busy) again.
    pub(crate) fn rests(&self) {
        if self.governor.idle(now()) {
            self.look();
        }
    }

    /// Processor time that this process has used, to the nanosecond.
    pub(crate) fn used(&self) -> Nanos {
        for slot in &self.slots {
            slot.account.settle();
        }
        self.devices_account.settle();
        process_time()
    }

    /// Processor time of this process by what it was used for.
    pub fn cpu_time(&self) -> CpuTime {
        let (mut guest, mut device) = self.devices_account.spent();
        for slot in &self.slots {
            let spent = slot.account.spent();
            (guest, device) = (guest + spent.0, device + spent.1);
        }
        let used = self.used();
        let provisioning = self.governor.provisioning().unwrap_or(used);
        CpuTime {
            guest: guest.micros(),
            device: device.micros(),
            monitor: (used - provisioning - guest - device).micros(),
            provisioning: provisioning.micros(),
        }
    }

    /// What the sliver is granted of the processors, and what has come of it.
    pub fn cpu_status(&self) -> CpuStatus {
        self.governor.status(self.used())
    }

    /// The quotas in force.
    pub fn limits(&self) -> CpuLimits {
        self.governor.limits()
    }

    /// Puts other quotas in force, at once.
    pub fn set_limits(self: &Arc<Self>, limits: CpuLimits) -> Result<(), String> {
        self.governor.set_limits(limits, now())?;
        // Alarms are set for the old budget, and who is held may be no longer.
        self.governor.wake();
        self.stop_busy(None);
        self.look();
        Ok(())
    }

    /// Puts other limits of its traffic in force, at once, unless its uplink cannot keep what they
    /// guarantee.
    pub fn set_net_limits(&self, limits: &NetLimits) -> Result<(), String> {
        let gate = self.gate().ok_or("the sliver has no network card")?;
        if let Some(uplink) = self.uplink() {
            uplink.claim(limits).map_err(|error| error.to_string())?;
        }
        // Each change leaves it sound: a panic elsewhere does not spoil it.
        let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.set_limits(limits, now());
        drop(gate);
        // A card may wait for a moment that the old limits gave.
        self.nudge();
        Ok(())
    }
}
