//! Start to first guest instruction against QEMU's microvm machine, as Debian ships it.
//!
//! QEMU's guest is a ROM whose first instruction, at the reset vector, sends a byte to the debug
//! console, QEMU's standard output; the harness stamps its arrival. The next one ends QEMU.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use integration::sliver::monotonic_ns;

use crate::lab::{Lab, cc, exit_image, ms, run_program};
use crate::metrics::Samples;
use crate::process;

const QEMU: &str = "qemu-system-x86_64";

/// What `isa-debug-exit` makes of the 0 that is in `al` at reset: status 2 n + 1.
const ROM_DONE: i32 = 1;

/// Runs it.
pub(crate) fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    if Command::new(QEMU).arg("--version").output().is_err() {
        return Ok(vec![Samples::LeftOut(format!(
            "no {QEMU}: apt-get install -y --no-install-recommends qemu-system-x86"
        ))]);
    }
    let object = cc(lab, "rom/first.S", "rom.o", &["-c"])?;
    let rom = lab.path("first.rom");
    let section = ["-O", "binary", "-j", ".text"].map(Into::into);
    let files = [object.into_os_string(), rom.clone().into_os_string()];
    run_program("objcopy", &[&section[..], &files].concat())?;
    let spec = lab.spec("exit", &exit_image(lab)?, &[])?;
    let ours = |lab: &Lab| {
        let (run, record) = lab.run_sliver(&spec)?;
        let first = record.timing_us.first_instruction as f64 / 1000.0;
        Ok((first, ms(run.cpu_ns)))
    };
    let peer = |_: &Lab| {
        let mut command = Command::new(QEMU);
        command
            .args(["-M", "microvm", "-accel", "kvm", "-m", "64M", "-no-reboot"])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-bios",
            ])
            .arg(&rom)
            .args(["-chardev", "stdio,id=out,signal=off"])
            .args(["-device", "isa-debugcon,chardev=out,iobase=0xe9"])
            .args(["-device", "isa-debug-exit,iobase=0xf4"])
            .stdin(Stdio::null());
        let run = process::run(command, monotonic_ns())?.expect(QEMU, ROM_DONE)?;
        ensure!(run.stdout.len() == 1, "the ROM sends one byte: {run:?}");
        let first = run.first_byte_ns.context("the ROM was not reached")?;
        Ok((ms(first), ms(run.cpu_ns)))
    };
    let quads = lab.interleave("start against QEMU microvm", lab.pairs, ours, peer)?;
    Ok(vec![Samples::Paired {
        values: quads.iter().map(|quad| quad.map(|run| run.0)).collect(),
        cpu_ms: quads.iter().map(|quad| quad.map(|run| run.1)).collect(),
    }])
}
