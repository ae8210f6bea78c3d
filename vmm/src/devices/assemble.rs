//! From a spec to the backends of a sliver's devices, connected to the outside.
//!
//! Everything that can be refused is refused here, before a VM exists: a disk that is in use, a tap
//! that is not ours.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex};

use rustix::rand::GetRandomFlags;
use slice_abi::info::NetConfig;

use super::input::Input;
use super::output::Output;
use super::outside::Outside;
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
use crate::spec::{DiskLimits, SEED_SERIAL, SliverSpec};

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
pub fn assemble(spec: &SliverSpec, outside: Outside) -> Result<Assembly, AssembleError> {
    let count = spec.nets().len();
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
    let uplink = UplinkSeat::new(spec, outside.uplink).map(Arc::new);
    let mut nets = Vec::with_capacity(count);
    let mut cards = outside.cards.into_iter();
    for (card, net) in spec.nets().iter().enumerate() {
        let (tap, figures) = cards.next().ok_or(AssembleError::NoTap { card })?;
        let tap = Tap::from_fd(tap).map_err(|problem| AssembleError::Tap { card, problem })?;
        let tap = tap.with_figures(figures);
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
    for ((disk, spec), file) in spec.disks().iter().enumerate().zip(outside.disks) {
        let file =
            Disk::new(spec, file).map_err(|problem| AssembleError::Disk { disk, problem })?;
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
    if let Some((vsock, (listener, dir))) = spec.vsock().zip(outside.vsock) {
        backends.push(Box::new(Vsock::new(vsock, listener, &dir)?));
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

/// What the frames of a sliver pass.
fn gate_of(spec: &SliverSpec) -> Gate {
    let now = attend::now();
    // Nobody outside can guess it; that it could not be had is no reason not to start.
    let mut seed = [0; 8];
    let _ = rustix::rand::getrandom(&mut seed, GetRandomFlags::empty());
    let seed = u64::from_ne_bytes(seed);
    Gate::new(spec, seed, now, wall() - now)
}
