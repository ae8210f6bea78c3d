//! How a legacy image is booted, in its spec.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fields::Fields;

/// The longest `append`, in bytes: what Linux reads of a command line, less what the monitor adds.
pub const MAX_APPEND_BYTES: usize = 1536;

/// How a legacy image is booted:
/// `{ "initrd": "/boot/initrd.img", "append": "quiet", "protocol": "auto", "acpi": true,
/// "console": "serial" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<PathBuf>,
    append: String,
    protocol: Protocol,
    acpi: bool,
    console: KernelConsole,
}

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// As the image says: PVH if it has a PVH note, else Linux's.
    #[default]
    Auto,
    /// Linux's 64-bit boot protocol.
    Linux,
    /// PVH.
    Pvh,
}

impl Protocol {
    /// The one that is called so in a spec.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "linux" => Some(Self::Linux),
            "pvh" => Some(Self::Pvh),
            _ => None,
        }
    }
}

/// The console that a kernel is told to use, and that has the input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelConsole {
    /// The 16550: every kernel has a driver.
    #[default]
    Serial,
    /// The virtio console: an exit per line instead of one per character.
    Virtio,
}

impl KernelSpec {
    pub(super) fn read(fields: &mut Fields) -> Self {
        let protocol = |text: &str| {
            Protocol::of_name(text)
                .ok_or_else(|| format!("is {text:?}, known are auto, linux and pvh"))
        };
        let console = |text: &str| match text {
            "serial" => Ok(KernelConsole::Serial),
            "virtio" => Ok(KernelConsole::Virtio),
            other => Err(format!("is {other:?}, known are serial and virtio")),
        };
        Self {
            initrd: fields.optional_parsed("initrd", super::path),
            append: fields.optional_parsed("append", append).unwrap_or_default(),
            protocol: fields
                .optional_parsed("protocol", protocol)
                .unwrap_or_default(),
            acpi: fields.bool("acpi", true),
            console: fields
                .optional_parsed("console", console)
                .unwrap_or_default(),
        }
    }

    /// The initial RAM disk.
    pub fn initrd(&self) -> Option<&Path> {
        self.initrd.as_deref()
    }

    /// What is added to the kernel's command line.
    pub fn append(&self) -> &str {
        &self.append
    }

    /// How the kernel is entered.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether there are ACPI tables; without, devices are told on the command line.
    pub fn acpi(&self) -> bool {
        self.acpi
    }

    /// The console that it is told to use.
    pub fn console(&self) -> KernelConsole {
        self.console
    }
}

impl Default for KernelSpec {
    fn default() -> Self {
        Self {
            initrd: None,
            append: String::new(),
            protocol: Protocol::Auto,
            acpi: true,
            console: KernelConsole::Serial,
        }
    }
}

fn append(text: &str) -> Result<String, String> {
    if text.len() > MAX_APPEND_BYTES {
        return Err(format!(
            "has {} bytes, {MAX_APPEND_BYTES} are allowed",
            text.len()
        ));
    }
    if let Some(bad) = text.chars().find(|c| !(' '..='~').contains(c)) {
        return Err(format!("contains {bad:?}: only printable ASCII is allowed"));
    }
    Ok(text.to_owned())
}
