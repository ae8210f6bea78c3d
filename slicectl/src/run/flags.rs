//! The flags of `run` that describe devices, and how a kernel is booted: what they say, turned into fields of a spec and into
//! what the host has to do for them. Everything that is wrong is reported at once.

mod console;
mod disk;
mod kernel;
mod keys;
mod net;
mod publish;
#[cfg(test)]
mod tests;
mod words;

pub(super) use console::Console;
pub(super) use keys::DetachKeys;

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};
use vmm::spec::{NetSpec, SliverSpec};

use crate::cli::RunArgs;
use crate::network::publish::Publish;
use crate::network::{Card, nat, tap};
use crate::problem::Problem;
use crate::run::kind::Kind;
use crate::units::whole_mib;

use kernel::Kernel;

/// Ports that can be published.
const MAX_PUBLISHED: usize = 256;

/// The longest path a socket can be bound to.
const MAX_SOCKET_PATH: usize = 107;

/// A socket of a vsock directory: a slash and the decimal number of a port.
const PORT_NAME: usize = 1 + 10;

/// Devices as the flags describe them.
#[derive(Debug, Clone)]
pub(super) struct Devices {
    nets: Vec<net::Net>,
    /// Ports of the host that lead to the sliver.
    pub(super) publishes: Vec<Publish>,
    /// Where the console goes.
    pub(super) console: Console,
    /// What gives the console's keys back, if the guest gets all of them.
    pub(super) detach_keys: Option<DetachKeys>,
    disks: Vec<Value>,
    /// Whether the first disk is the image of the command line.
    image_is_disk: bool,
    vsock: Option<String>,
    balloon_mib: u64,
    kernel: Kernel,
}

impl Devices {
    /// Reads the flags for an image of `kind`, run from a terminal or not; what is wrong with them
    /// is added to `problems`.
    pub(super) fn read(
        args: &RunArgs,
        kind: Kind,
        terminal: bool,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut texts = args.net.clone();
        if texts.is_empty() && !args.publish.is_empty() {
            texts.push("tap".to_owned());
        }
        let host = net::Host {
            has_ipv6: Path::new("/proc/net/if_inet6").exists(),
            name_servers: nat::name_servers(),
        };
        let mut nets = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let (net, mistakes) = net::Net::read(text, index, &host);
            let what = format!("--net {text}");
            problems.extend(mistakes.into_iter().map(|why| Problem::new(&what, why)));
            nets.push(net);
        }
        problems.extend(objection_to_mixture(&nets));
        let image = args.image.as_ref().filter(|_| args.kernel.is_some());
        let mut disks: Vec<Value> = image
            .map(|path| json!({ "path": absolute(path) }))
            .into_iter()
            .collect();
        for text in &args.disk {
            match disk::read(text) {
                Ok(disk) => disks.push(disk),
                Err(mistakes) => {
                    let what = format!("--disk {text}");
                    problems.extend(mistakes.into_iter().map(|why| Problem::new(&what, why)));
                }
            }
        }
        let balloon = args.balloon.as_deref().map_or(Ok(0), whole_mib);
        let kernel = Kernel::read(args, kind, problems);
        let console = match args.console.as_deref() {
            Some(text) => Console::read(text),
            None if kernel.is_booted() && terminal => Console::Stdio,
            None => Console::Stdout,
        };
        let all_keys = console == Console::Stdio && (kernel.is_booted() && terminal);
        let detach_keys = match args.detach_keys.as_deref() {
            Some(text) => keys::read(text, &console, terminal)
                .map_err(|why| problems.push(Problem::new("--detach-keys", why)))
                .ok(),
            None => all_keys.then(DetachKeys::default),
        };
        Self {
            nets,
            publishes: read_publishes(&args.publish, problems),
            console,
            detach_keys,
            disks,
            image_is_disk: image.is_some(),
            kernel,
            vsock: args.vsock_dir.as_deref().map(absolute),
            balloon_mib: balloon
                .map_err(|why| problems.push(Problem::new("--balloon", why)))
                .unwrap_or(0),
        }
    }

    /// Adds the devices to a spec.
    pub(super) fn describe(&self, document: &mut Value) {
        document["console"] = json!({ "input": self.console == Console::Stdio });
        let nets = self.nets.iter().map(net::Net::to_json);
        document["nets"] = nets.collect();
        document["disks"] = json!(self.disks);
        if let Some(dir) = &self.vsock {
            document["vsock"] = json!({ "dir": dir });
        }
        document["balloon_mib"] = json!(self.balloon_mib);
        self.kernel.describe(document);
    }

    /// Whether what they belong to is a kernel.
    pub(super) fn boots_kernel(&self) -> bool {
        self.kernel.is_booted()
    }

    /// What this host has against these devices, which are right in themselves.
    pub(super) fn objections(&self, spec: &SliverSpec) -> Vec<Problem> {
        let taps = spec.nets().iter().filter_map(NetSpec::tap);
        let taps = taps.filter_map(|name| tap::check(name).err());
        let disks = spec.disks().iter().enumerate();
        let disks = disks.filter_map(|(index, disk)| {
            let flag = self.flag_of_disk(index);
            disk::objection(&format!("{flag} {}", disk.path().display()), disk)
        });
        let mut problems: Vec<Problem> = taps.chain(disks).collect();
        problems.extend(kernel::objection(spec));
        problems.extend(spec.vsock().and_then(|vsock| objection_to_dir(vsock.dir())));
        problems.extend(self.console.objection());
        if self.nets.iter().any(net::Net::leads_out) {
            problems.extend(nat::objections());
        }
        if !self.publishes.is_empty() && self.target(spec).is_none() {
            let why = "no card of the sliver has an address to lead to";
            problems.push(Problem::new("--publish", why).mend("add addr=CIDR to --net"));
        }
        problems
    }

    /// The cards that get a tap of their own.
    pub(super) fn own_cards(&self, spec: &SliverSpec) -> Vec<Card> {
        let cards = self.nets.iter().zip(spec.nets()).enumerate();
        cards
            .filter(|(_, (net, _))| net.is_own())
            .map(|(index, (net, spec))| net::card(index, net, spec))
            .collect()
    }

    /// The way out, if a card has one, of the sliver called `name`.
    pub(super) fn nat(&self, name: &str) -> Option<nat::Wanted> {
        let leading_out: Vec<_> = self.nets.iter().filter(|net| net.leads_out()).collect();
        (!leading_out.is_empty()).then(|| nat::Wanted {
            sliver: name.to_owned(),
            ports: leading_out.iter().find_map(|net| net.ports()),
            avoid: self.publishes.iter().map(|publish| publish.host).collect(),
        })
    }

    /// The address that published ports lead to. With cards on taps of their own it is one of
    /// theirs: who is in their namespace cannot reach the others.
    pub(super) fn target(&self, spec: &SliverSpec) -> Option<IpAddr> {
        let any_own = self.nets.iter().any(net::Net::is_own);
        let cards = self.nets.iter().zip(spec.nets());
        cards
            .filter(|(net, _)| net.is_own() == any_own)
            .find_map(|(_, spec)| net::addresses(spec).first().copied())
    }

    /// The flag that a field of the spec comes from.
    pub(super) fn flag_of(&self, field: &str) -> String {
        let part = |list: &str| -> Option<(usize, String)> {
            let (index, rest) = field
                .strip_prefix(list)?
                .strip_prefix('[')?
                .split_once(']')?;
            Some((index.parse().ok()?, rest.trim_start_matches('.').to_owned()))
        };
        if let Some((index, rest)) = part("nets") {
            let text = self.nets.get(index).map_or("", |net| net.text());
            return format!("--net {text}: {}", net::word_of(&rest));
        }
        if let Some((index, rest)) = part("disks") {
            let path = self.disks.get(index).and_then(|disk| disk["path"].as_str());
            let flag = self.flag_of_disk(index);
            return format!("{flag} {}: {rest}", path.unwrap_or_default());
        }
        if let Some(flag) = kernel::flag_of(field) {
            return flag.to_owned();
        }
        match field {
            "nets" => "--net",
            "disks" => "--disk",
            "vsock.dir" => "--vsock-dir",
            "public" | "public.ports" | "public.address" => "--net nat",
            "balloon_mib" => "--balloon (MiB)",
            other => other,
        }
        .to_owned()
    }
}

impl Devices {
    fn flag_of_disk(&self, index: usize) -> &'static str {
        match index {
            0 if self.image_is_disk => "IMAGE",
            _ => "--disk",
        }
    }
}

fn read_publishes(texts: &[String], problems: &mut Vec<Problem>) -> Vec<Publish> {
    let mut publishes: Vec<Publish> = Vec::new();
    for text in texts {
        match publish::read(text) {
            Err(why) => problems.push(Problem::new(format!("--publish {text}"), why)),
            Ok(one) => {
                if let Some(other) = publishes.iter().find(|other| one.conflicts_with(other)) {
                    let why = format!(
                        "{} port {} is published by {other}, too",
                        one.protocol, one.host
                    );
                    problems.push(Problem::new(format!("--publish {text}"), why));
                }
                publishes.push(one);
            }
        }
    }
    if publishes.len() > MAX_PUBLISHED {
        let why = format!(
            "is given {} times, {MAX_PUBLISHED} are allowed",
            publishes.len()
        );
        problems.push(Problem::new("--publish", why));
    }
    publishes
}

/// Why cards cannot be had together: a sliver has one range of ports, on all of its cards.
fn objection_to_mixture(nets: &[net::Net]) -> Option<Problem> {
    let leading_out = || nets.iter().filter(|net| net.leads_out());
    let ranges: Vec<_> = leading_out().filter_map(net::Net::ports).collect();
    let why = if leading_out().next().is_some() && nets.iter().any(|net| !net.is_own()) {
        "a sliver has either cards with nat or cards on taps that are there: its ports are \
         translated on all of them or on none"
    } else if ranges.windows(2).any(|pair| pair[0] != pair[1]) {
        "a sliver has one range of ports for all of its cards"
    } else {
        return None;
    };
    Some(Problem::new("--net nat", why))
}

/// Why the sockets of a vsock cannot be in `dir`.
fn objection_to_dir(dir: &Path) -> Option<Problem> {
    use rustix::fs::{Access, access};
    let why = match std::fs::metadata(dir) {
        Err(error) => format!("cannot be read: {error}"),
        Ok(metadata) if !metadata.is_dir() => "is not a directory".to_owned(),
        Ok(_) => match access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
            Err(error) => format!("cannot be used: {error}"),
            Ok(()) if dir.as_os_str().len() + PORT_NAME > MAX_SOCKET_PATH => format!(
                "its path is too long for sockets in it: {} bytes are allowed",
                MAX_SOCKET_PATH - PORT_NAME
            ),
            Ok(()) => return None,
        },
    };
    Some(Problem::new(format!("--vsock-dir {}", dir.display()), why))
}

/// A path that means the same to the monitor and to whoever reads the spec.
fn absolute(path: &str) -> String {
    std::path::absolute(path)
        .ok()
        .and_then(|path| path.into_os_string().into_string().ok())
        .unwrap_or_else(|| path.to_owned())
}
