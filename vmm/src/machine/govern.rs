//! How a machine's threads obey its [`Governor`](crate::sched::governor::Governor): the gate that
//! each passes on its way into the guest or to a device, and where all stand while they may not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Machine;
use crate::attend::now;
use crate::control::proto::CpuStatus;
use crate::control::traffic;
use crate::devices::virtio::block::SharedBudget;
use crate::exit::CpuTime;
use crate::kvm::vcpu::Vcpu;
use crate::lifecycle::{Presence, Verdict};
use crate::nanos::Nanos;
use crate::sched::account::process_time;
use crate::sched::governor::{Governor, Looked};
use crate::sched::place;
use crate::spec::{CpuLimits, DiskLimits, Limits, NetLimits};

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

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        let gate = self.gate.as_ref();
        Limits {
            cpu: self.governor.limits(),
            net: gate.map(|gate| traffic::lock(gate).limits().clone()),
            disk: self.disk_limits(),
        }
    }

    /// What its disks may carry, all together, if it has any.
    pub(crate) fn disk_limits(&self) -> Option<DiskLimits> {
        self.disk_budget.as_ref().map(SharedBudget::limits)
    }

    /// Puts other limits in force, at once, and all of them or none.
    pub fn set_limits(self: &Arc<Self>, limits: &Limits) -> Result<(), String> {
        let before = self.limits();
        let cpu_changes = limits.cpu != before.cpu;
        if cpu_changes {
            self.set_cpu_limits(limits.cpu)?;
        }
        if let Some(net) = limits.net.as_ref()
            && before.net.as_ref() != Some(net)
            && let Err(mut why) = self.set_net_limits(net)
        {
            // Others may have taken meanwhile what was given up just now.
            if cpu_changes && let Err(also) = self.set_cpu_limits(before.cpu) {
                why.push_str("; the processor quotas did change: ");
                why.push_str(&also);
            }
            return Err(why);
        }
        if let (Some(budget), Some(disk)) = (&self.disk_budget, &limits.disk) {
            budget.set_limits(disk, now());
        }
        // Devices may wait for a moment that follows from the old limits.
        self.nudge();
        Ok(())
    }

    fn set_cpu_limits(self: &Arc<Self>, limits: CpuLimits) -> Result<(), String> {
        self.governor.set_limits(limits, now())?;
        // Alarms are set for the old budget, and who is held may be no longer.
        self.governor.wake();
        self.stop_busy(None);
        self.look();
        Ok(())
    }

    /// Refuses what its uplink cannot keep.
    fn set_net_limits(&self, limits: &NetLimits) -> Result<(), String> {
        let gate = self.gate().ok_or("the sliver has no network card")?;
        if let Some(uplink) = self.uplink() {
            uplink.claim(limits).map_err(|error| error.to_string())?;
        }
        traffic::lock(gate).set_limits(limits, now());
        Ok(())
    }
}
