//! The command line of a kernel: what it has to know to find its console, its root and, without
//! ACPI, its devices, then what the spec says.

use linux_loader::cmdline::{self, Cmdline};
use slice_abi::layout::PAGE_SIZE;
use vm_memory::GuestAddress;

use super::entry::DeviceWindow;
use super::place::COMMAND_LINE_ROOM;
use crate::spec::{KernelConsole, KernelSpec, SliverSpec};

/// A panic ends the machine at once, and a reset goes through the register that ACPI names, or the
/// 8042. Without the second, Linux on a machine with reduced hardware tries EFI and then a BIOS.
const ENDS: &str = "panic=-1 reboot=acpi";

/// A command line could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// The kernel would cut it.
    #[error(
        "the kernel's command line is too long: this kernel reads {limit} bytes (shorten append or \
         args)"
    )]
    TooLong {
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// An argument cannot be told.
    #[error("argument {0:?} cannot be on a kernel's command line: it has {1}")]
    BadArgument(String, &'static str),
}

/// The command line, at most `limit` bytes long.
pub(super) fn make(
    spec: &SliverSpec,
    kernel: &KernelSpec,
    devices: &[DeviceWindow],
    limit: usize,
) -> Result<Cmdline, CommandLineError> {
    // What is counted includes the terminator.
    let room = limit.saturating_add(1).min(COMMAND_LINE_ROOM);
    let too_long = |_: cmdline::Error| CommandLineError::TooLong { limit: room - 1 };
    let mut line = Cmdline::new(room).map_err(too_long)?;
    let console = match kernel.console() {
        KernelConsole::Serial => "console=ttyS0",
        KernelConsole::Virtio => "console=hvc0",
    };
    line.insert_str(console).map_err(too_long)?;
    line.insert_str(ENDS).map_err(too_long)?;
    let (append, init_append) = split(kernel.append());
    if let Some(root) = root(spec, append) {
        line.insert_str(root).map_err(too_long)?;
    }
    if !append.is_empty() {
        line.insert_str(append).map_err(too_long)?;
    }
    if !kernel.acpi() {
        for device in devices {
            let base = GuestAddress(device.base);
            line.add_virtio_mmio_device(PAGE_SIZE, base, device.interrupt, None)
                .map_err(too_long)?;
        }
    }
    if !init_append.is_empty() {
        line.insert_init_args(init_append).map_err(too_long)?;
    }
    for arg in spec.args() {
        line.insert_init_args(&quoted(arg)?).map_err(too_long)?;
    }
    Ok(line)
}

/// What of `append` is the kernel's, and what follows `--` and is init's.
fn split(append: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in append.char_indices() {
        quoted ^= c == '"';
        let starts = append[..at].is_empty() || append[..at].ends_with(' ');
        if let Some(rest) = append[at..].strip_prefix("--")
            && !quoted
            && starts
            && (rest.is_empty() || rest.starts_with(' '))
        {
            return (append[..at].trim(), rest.trim());
        }
    }
    (append.trim(), "")
}

/// The first disk is the root, unless the spec says another.
fn root(spec: &SliverSpec, append: &str) -> Option<&'static str> {
    let disk = spec.disks().first()?;
    if append.split(' ').any(|word| word.starts_with("root=")) {
        return None;
    }
    Some(match disk.read_only() {
        true => "root=/dev/vda ro",
        false => "root=/dev/vda rw",
    })
}

/// An argument as the kernel reads it: in quotes, which it has no way to escape, if it has spaces.
fn quoted(arg: &str) -> Result<String, CommandLineError> {
    let bad = |what| CommandLineError::BadArgument(arg.to_owned(), what);
    if arg.contains('"') {
        return Err(bad("a double quote"));
    }
    if !arg.chars().all(|c| (' '..='~').contains(&c)) {
        return Err(bad("something that is not printable ASCII"));
    }
    let plain = !arg.is_empty() && !arg.contains(' ');
    Ok(match plain {
        true => arg.to_owned(),
        false => format!("\"{arg}\""),
    })
}

#[cfg(test)]
mod tests;
