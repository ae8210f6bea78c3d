//! The layers of the jail by their names, so that an operator can do without one, but not unknowingly.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Layer {
    /// A user namespace: whatever the process is in its own, it is nobody outside.
    User,
    /// A mount namespace, and in it an empty root that cannot be written.
    Mount,
    /// A process namespace: others cannot be named, and so neither signalled nor traced.
    Pid,
    /// A network namespace without an interface.
    Network,
    /// A namespace of System V and POSIX message queues, semaphores and shared memory.
    Ipc,
    /// A namespace of the host's name.
    Uts,
    /// A namespace of control groups.
    Cgroup,
    /// Landlock, with which the program forbids itself files and ports.
    Landlock,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Mount,
        Self::Pid,
        Self::Network,
        Self::Ipc,
        Self::Uts,
        Self::Cgroup,
        Self::Landlock,
    ];

    /// Its name, as in `--allow-weak-jail=NAME`.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mount",
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Landlock => "landlock",
        }
    }

    /// The flag that asks clone(2) for it; 0 if it is not asked for there.
    pub(super) fn clone_flag(self) -> i32 {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Network => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Landlock => 0,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no layer of the jail: name one of user, mount, pid, network, ipc, uts, \
     cgroup, landlock"
)]
pub struct UnknownLayer(pub String);

impl FromStr for Layer {
    type Err = UnknownLayer;

    fn from_str(name: &str) -> Result<Self, UnknownLayer> {
        let found = Self::ALL.into_iter().find(|layer| layer.name() == name);
        found.ok_or_else(|| UnknownLayer(name.to_owned()))
    }
}

/// Some of the layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layers(u8);

impl Layers {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// All of them.
    pub fn all() -> Self {
        Layer::ALL.into_iter().collect()
    }

    /// Whether `layer` is one of these.
    pub fn has(self, layer: Layer) -> bool {
        self.0 & 1 << layer as u8 != 0
    }

    /// These but for `others`.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Layer> {
        let all = Layer::ALL.into_iter();
        all.filter(move |layer| self.has(*layer))
    }

    /// What asks clone(2) for all of them.
    pub(super) fn clone_flags(self) -> i32 {
        self.iter()
            .fold(0, |flags, layer| flags | layer.clone_flag())
    }
}

impl Serialize for Layers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let layers = Vec::<Layer>::deserialize(deserializer)?;
        Ok(layers.into_iter().collect())
    }
}

impl fmt::Display for Layers {
    /// Their names, with commas between.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, layer) in self.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{layer}")?;
        }
        Ok(())
    }
}

impl FromIterator<Layer> for Layers {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        let bits = layers.into_iter().map(|layer| 1 << layer as u8);
        Self(bits.fold(0, |set, bit| set | bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_found_by_its_name() {
        for layer in Layer::ALL {
            assert_eq!(layer.name().parse(), Ok(layer));
        }
        let error = "seccomp".parse::<Layer>().unwrap_err();
        assert!(
            Layer::ALL
                .iter()
                .all(|layer| error.to_string().contains(layer.name()))
        );
    }

    #[test]
    fn what_is_done_without_is_not_asked_for() {
        let weak = Layers::all().without([Layer::User, Layer::Pid].into_iter().collect());
        assert!(!weak.has(Layer::User) && !weak.has(Layer::Pid) && weak.has(Layer::Mount));
        assert_eq!(weak.iter().count(), Layer::ALL.len() - 2);
        assert_eq!(
            weak.clone_flags() & (libc::CLONE_NEWUSER | libc::CLONE_NEWPID),
            0
        );
    }
}
