//! From a spec to the backends of a sliver's devices, connected to the outside.
//!
//! Everything that can be refused is refused here, before a VM exists: a disk that is in use, a tap
//! that is not ours.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::rand::GetRandomFlags;
use slice_abi::info::NetConfig;

use super::input::Input;
use super::output::Output;
use super::uplink::{NoUplink, UplinkSeat};
use super::virtio::backend::Backend;
use super::virtio::balloon::Balloon;
use super::virtio::block::{Block, SharedBudget};
use super::virtio::console::Console;
use super::virtio::net::{Door, Net, net_config};
use super::virtio::rng::Rng;
use super::virtio::vsock::{Vsock, VsockError};
use crate::attend;
use crate::control::traffic::wall;
use crate::disk::{Disk, DiskError};
use crate::net::gate::Gate;
use crate::net::tap::{Tap, TapError};
use crate::seed;
use crate::spec::{DiskLimits, NetSpec, SEED_SERIAL, SliverSpec};

/// What the devices of a sliver are connected to, beside what its spec names.
#[derive(Debug)]
pub struct Outside {
    /// Where the guest's console goes.
    pub console: File,
    /// Where its input comes from, if the spec wants any.
    pub input: Option<File>,
    /// Taps that were handed in, by the index of their network card in the spec.
    pub taps: BTreeMap<usize, OwnedFd>,
}

/// The devices, in the order of the device table.
#[derive(Debug)]
pub struct Assembly {
    /// Their backends.
    pub backends: Vec<Box<dyn Backend>>,
    /// Addresses of the network cards.
    pub nets: Vec<NetConfig>,
    /// What holds for all of its disks together, if there are any.
    pub disk_budget: Option<SharedBudget>,
    /// What their frames pass, if there are any and somebody is to watch.
    pub gate: Option<Arc<Mutex<Gate>>>,
    /// Their seat on the node's uplink, if the spec names one.
    pub uplink: Option<Arc<UplinkSeat>>,
}

/// A device cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum AssembleError {
    #[error("a tap was handed in for network card {card}, of which the spec has {count}")]
    NoSuchCard { card: usize, count: usize },
    #[error("nets[{card}]: the spec names no tap and none was handed in")]
    NoTap { card: usize },
    #[error("nets[{card}]: the spec names tap {name} and another was handed in")]
    TwoTaps { card: usize, name: String },
    #[error("nets[{card}]: {problem}")]
    Tap { card: usize, problem: TapError },
    #[error("disks[{disk}]: {problem}")]
    Disk { disk: usize, problem: DiskError },
    #[error("cannot make the seed: {0}")]
    Seed(io::Error),
    #[error("seed: {0}")]
    SeedDisk(DiskError),
    #[error(transparent)]
    Uplink(#[from] NoUplink),
    #[error("vsock: {0}")]
    Vsock(#[from] VsockError),
}

/// Makes the devices of a spec.
pub fn assemble(spec: &SliverSpec, mut outside: Outside) -> Result<Assembly, AssembleError> {
    let count = spec.nets().len();
    if let Some(&card) = outside.taps.keys().find(|&&card| card >= count) {
        return Err(AssembleError::NoSuchCard { card, count });
    }
    let input = outside.input.filter(|_| spec.console().input());
    let console = Console::new(
        Output::new(outside.console),
        input.map(Input::new),
        spec.console(),
    );
    let balloon = Balloon::new(spec.balloon_mib(), spec.memory_bytes());
    let mut backends: Vec<Box<dyn Backend>> =
        vec![Box::new(console), Box::new(Rng::new()), Box::new(balloon)];
    let gate = (count > 0).then(|| Arc::new(Mutex::new(gate_of(spec))));
    let uplink = UplinkSeat::new(spec)?.map(Arc::new);
    let mut nets = Vec::with_capacity(count);
    for (card, net) in spec.nets().iter().enumerate() {
        let tap = tap(card, net, outside.taps.remove(&card))?;
        nets.push(net_config(net, backends.len() as u32));
        let device = Net::new(tap, net, format!("net{card}"));
        backends.push(Box::new(match &gate {
            Some(gate) => device.watched(Door {
                gate: Arc::clone(gate),
                card,
                uplink: uplink.clone(),
            }),
            None => device,
        }));
    }
    let disk_budget = SharedBudget::new(spec.disk_limits());
    for (disk, spec) in spec.disks().iter().enumerate() {
        let file = Disk::open(spec).map_err(|problem| AssembleError::Disk { disk, problem })?;
        let tag = format!("disk{disk}");
        let block = Block::new(file, spec.serial(), &tag);
        backends.push(Box::new(block.limited(disk, spec.limits(), &disk_budget)));
    }
    if let Some(told) = spec.seed() {
        let files = seed::files(spec, told);
        let image = seed::image(&files).map_err(AssembleError::Seed)?;
        let disk = Disk::of_own_file(image, SEED_SERIAL);
        let disk = disk.map_err(AssembleError::SeedDisk)?;
        let block = Block::new(disk, SEED_SERIAL, SEED_SERIAL);
        let (number, own) = (spec.disks().len(), DiskLimits::default());
        backends.push(Box::new(block.limited(number, &own, &disk_budget)));
    }
    if let Some(vsock) = spec.vsock() {
        backends.push(Box::new(Vsock::new(vsock)?));
    }
    let has_disks = !spec.disks().is_empty() || spec.seed().is_some();
    Ok(Assembly {
        backends,
        nets,
        disk_budget: has_disks.then_some(disk_budget),
        gate,
        uplink,
    })
}

/// The tap of network card `card`: handed in, or opened by its name.
fn tap(card: usize, spec: &NetSpec, given: Option<OwnedFd>) -> Result<Tap, AssembleError> {
    let tap = match (spec.tap(), given) {
        (Some(name), None) => Tap::open(name),
        (None, Some(descriptor)) => Tap::from_fd(descriptor),
        (None, None) => return Err(AssembleError::NoTap { card }),
        (Some(name), Some(_)) => {
            let name = name.to_string();
            return Err(AssembleError::TwoTaps { card, name });
        }
    };
    tap.map_err(|problem| AssembleError::Tap { card, problem })
}

/// What the frames of a sliver pass.
fn gate_of(spec: &SliverSpec) -> Gate {
    let now = attend::now();
    // Nobody outside can guess it; that it could not be had is no reason not to start.
    let mut seed = [0; 8];
    let _ = rustix::rand::getrandom(&mut seed, GetRandomFlags::empty());
    let seed = u64::from_ne_bytes(seed);
    Gate::new(spec, seed, now, wall() - now)
}
