//! Guest memory for a debugger: by virtual address, which in a native guest's RAM is the physical
//! one.

use slice_abi::layout::PAGE_SIZE;
use vm_memory::{Bytes, GuestAddress};

use crate::control::proto::MAX_MEMORY_ACCESS;
use crate::machine::Machine;

/// Up to `len` bytes at `address`, as hexadecimal digits: as many as are mapped without a gap.
pub(crate) fn read(machine: &Machine, address: u64, len: usize) -> Result<String, String> {
    let len = mapped_run(machine, address, len.min(MAX_MEMORY_ACCESS));
    if len == 0 {
        return Err(format!("nothing is mapped at {address:#x}"));
    }
    let mut bytes = vec![0; len];
    machine
        .vm()
        .ram()
        .read_slice(&mut bytes, GuestAddress(address))
        .map_err(|error| format!("cannot read at {address:#x}: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes bytes given as hexadecimal digits, in text and read-only data, too.
pub(crate) fn write(machine: &Machine, address: u64, hex: &str) -> Result<(), String> {
    let bytes = decode(hex).ok_or("the bytes are not pairs of hexadecimal digits")?;
    if bytes.len() > MAX_MEMORY_ACCESS {
        return Err(format!(
            "{} bytes are more than {MAX_MEMORY_ACCESS}",
            bytes.len()
        ));
    }
    if mapped_run(machine, address, bytes.len()) < bytes.len() {
        return Err(format!(
            "not all of {} bytes at {address:#x} are mapped",
            bytes.len()
        ));
    }
    machine
        .vm()
        .ram()
        .write_any(&bytes, address)
        .map_err(|error| format!("cannot write at {address:#x}: {error}"))
}

/// How many of `len` bytes from `address` on are mapped.
fn mapped_run(machine: &Machine, address: u64, len: usize) -> usize {
    let mut at = address;
    let end = address.saturating_add(len as u64);
    while at < end && is_mapped(machine, at) {
        at = (at / PAGE_SIZE + 1) * PAGE_SIZE;
    }
    (at.min(end) - address.min(at)) as usize
}

/// A legacy guest's addresses are physical ones here: its page tables are its own business.
fn is_mapped(machine: &Machine, address: u64) -> bool {
    let Some(native) = machine.native() else {
        let mut parts = machine.vm().ram().parts().iter();
        return parts.any(|part| part.guest.contains(address));
    };
    let layout = native.layout();
    let in_segment = native.image().segments().iter().any(|segment| {
        let (start, end) = segment.pages();
        (start..end).contains(&address)
    });
    in_segment
        || layout.heap().contains(address)
        || (0..layout.vcpus()).any(|index| layout.stack(index).contains(address))
}

fn decode(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    hex.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pairs_of_hexadecimal_digits_are_bytes() {
        assert_eq!(decode("00ffCc"), Some(vec![0, 0xff, 0xcc]));
        assert_eq!(decode(""), Some(vec![]));
        for bad in ["0", "0g", "é", "+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
