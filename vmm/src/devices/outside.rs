//! What the devices of a sliver are connected to: opened here by the names in its spec, for a monitor
//! that opens nothing itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::assemble::AssembleError;
use super::uplink::open_counter;
use super::virtio::vsock::GuestSocket;
use crate::disk::Disk;
use crate::net::tap::Tap;
use crate::spec::{NetSpec, SliverSpec};

/// Open descriptors, as a monitor has them.
#[derive(Debug)]
pub struct Outside {
    /// Where the guest's console goes.
    pub console: File,
    /// Where its input comes from, if the spec wants any.
    pub input: Option<File>,
    /// The files of its disks, in the order of the spec.
    pub disks: Vec<File>,
    /// The taps of its network cards, in the order of the spec, and what the host counts of each.
    pub cards: Vec<(OwnedFd, Option<File>)>,
    /// What the host counts of the uplink, if the spec names one.
    pub uplink: Option<File>,
    /// The listening socket of its vsock, if it has one, and where the host's ports are.
    pub vsock: Option<(OwnedFd, PathBuf)>,
}

/// What a spec names, opened.
#[derive(Debug)]
pub struct Opened {
    /// The files of the disks.
    pub disks: Vec<File>,
    /// The taps, and what the host counts of each, if it tells.
    pub cards: Vec<(OwnedFd, Option<File>)>,
    /// What the host counts of the uplink.
    pub uplink: Option<File>,
    /// The listening socket of the vsock.
    pub vsock: Option<GuestSocket>,
}

impl Opened {
    /// Opens it all. `taps` are those that were made for the sliver, by the index of their card.
    pub fn open(
        spec: &SliverSpec,
        mut taps: BTreeMap<usize, OwnedFd>,
    ) -> Result<Self, AssembleError> {
        let count = spec.nets().len();
        if let Some(&card) = taps.keys().find(|&&card| card >= count) {
            return Err(AssembleError::NoSuchCard { card, count });
        }
        let cards = spec.nets().iter().enumerate().map(|(card, net)| {
            let tap = tap(card, net, taps.remove(&card))?;
            // Where the host does not tell, nothing is shown.
            let figures = tap.open_figures().ok();
            Ok((tap.into_fd(), figures))
        });
        let cards = cards.collect::<Result<_, AssembleError>>()?;
        let uplink = open_counter(spec)?;
        let disks = spec.disks().iter().enumerate().map(|(disk, spec)| {
            Disk::open_file(spec).map_err(|problem| AssembleError::Disk { disk, problem })
        });
        let disks = disks.collect::<Result<_, AssembleError>>()?;
        let vsock = spec.vsock().map(|vsock| GuestSocket::open(vsock.dir()));
        Ok(Self {
            disks,
            cards,
            uplink,
            vsock: vsock.transpose()?,
        })
    }
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
