//! ACPI tables of a machine with reduced hardware (ACPI 6.5, 4.1): RSDP, XSDT, FADT, MADT, DSDT.

mod dsdt;
#[cfg(test)]
mod tests;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::LoadError;
use super::entry::DeviceWindow;
use super::map::{IO_APIC, LOCAL_APIC, port};
use super::place::{ACPI, ACPI_ROOM};

/// Who made the tables.
const OEM: [u8; 6] = *b"SLICEV";
const OEM_TABLE: [u8; 8] = *b"SLICEVIS";
const OEM_REVISION: u32 = 1;

/// Tables lie on multiples of this, as the RSDP must.
const ALIGNMENT: usize = 16;

/// What is written to the reset register.
const RESET_VALUE: u8 = 1;

/// Bits of the FADT's boot flags (ACPI 6.5, 5.2.9.3). Nothing says that there are legacy devices or
/// an 8042: a kernel need not look for them.
mod boot_flag {
    pub(super) const NO_VGA: u16 = 1 << 2;
    pub(super) const NO_CMOS_RTC: u16 = 1 << 5;
}

/// Writes the tables; the address of the RSDP.
pub(super) fn write(
    vcpus: usize,
    devices: &[DeviceWindow],
    memory: &GuestMemoryMmap,
) -> Result<u64, LoadError> {
    let bytes = tables(vcpus, devices);
    if bytes.len() as u64 > ACPI_ROOM {
        return Err(LoadError::Tables(bytes.len()));
    }
    memory.write_slice(&bytes, GuestAddress(ACPI))?;
    Ok(ACPI)
}

/// All tables as they lie in memory from [`ACPI`] on, the RSDP first.
fn tables(vcpus: usize, devices: &[DeviceWindow]) -> Vec<u8> {
    let mut out = Tables(vec![0; Rsdp::len().next_multiple_of(ALIGNMENT)]);
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&dsdt::definitions(devices));
    let dsdt = out.add(&dsdt);
    let fadt = out.add(&fadt(dsdt).finalize());
    let madt = out.add(&madt(vcpus));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = out.add(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    out.0[..rsdp.len()].copy_from_slice(&rsdp);
    out.0
}

/// Tables, one after the other.
struct Tables(Vec<u8>);

impl Tables {
    /// Appends a table; its address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let at = self.0.len().next_multiple_of(ALIGNMENT);
        self.0.resize(at, 0);
        table.to_aml_bytes(&mut self.0);
        ACPI + at as u64
    }
}

fn fadt(dsdt: u64) -> FADTBuilder {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        // The power button is a device of the DSDT, and there is none for sleep.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    fadt.iapc_boot_arch = (boot_flag::NO_VGA | boot_flag::NO_CMOS_RTC).into();
    fadt.reset_reg = byte_port(port::RESET);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = byte_port(port::SLEEP_CONTROL);
    fadt.sleep_status_reg = byte_port(port::SLEEP_STATUS);
    fadt
}

fn byte_port(port: u16) -> GAS {
    let (space, access) = (AddressSpace::SystemIo, AccessSize::ByteAccess);
    GAS::new(space, 8, 0, access, u64::from(port))
}

fn madt(vcpus: usize) -> MADT {
    let registers = LocalInterruptController::Address(LOCAL_APIC as u32);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, registers);
    for index in 0..vcpus {
        let id = index as u8;
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IO_APIC as u32, 0));
    madt
}
