//! `slicectl inspect`: what an image file is, and every reason why it would be refused.
//!
//! The checks are the monitor's own; only symbols, which the monitor never reads, are looked at
//! here.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use slice_abi::info::access;
use slice_abi::layout::{RAM_BASE, RAM_LIMIT};
use vmm::boot::image::{self, Found, ImageError};
use vmm::boot::legacy::{Entrance, Kernel, least_memory_mib};
use vmm::boot::slice::layout::Layout;
use vmm::boot::slice::{Examination, NativeImage, Segment};

use crate::cli::InspectArgs;
use crate::images::Places;
use crate::problem::{FAILED, Failure, Problem};
use crate::report::{print, print_json};
use crate::text::{columns, printable};
use crate::units::format_kib;

/// The largest section table that is searched for a symbol table.
const MAX_SECTIONS: u64 = 64 << 10;

/// What is told about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The file.
    pub file: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// `native`, `kernel`, or `unknown` if it has no slice note and is no kernel.
    pub kind: &'static str,
    /// The slice ABI it was built for.
    pub abi_version: Option<u32>,
    /// Address of its first instruction.
    pub entry: Option<u64>,
    /// What there is to say about a kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelTold>,
    /// Bytes of stack for each vCPU.
    pub stack_size: Option<u64>,
    /// Its loadable segments.
    pub segments: Vec<SegmentTold>,
    /// The least memory, in MiB, that it can be started with on one vCPU.
    pub memory_mib: Option<u64>,
    /// Whether it has a symbol table, for backtraces with names.
    pub symbols: bool,
    /// Every reason why it would be refused; empty if it would run.
    pub problems: Vec<String>,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelTold {
    /// How its file is made.
    pub format: &'static str,
    /// How it is entered: `linux` or `pvh`.
    pub protocol: &'static str,
    /// What it says of its version, if it does.
    pub version: Option<String>,
    /// The version of Linux's boot protocol that it speaks, if it says so.
    pub boot_protocol: Option<String>,
    /// Its PVH entry point, if it has one.
    pub pvh_entry: Option<u32>,
    /// The longest command line that it reads, in bytes.
    pub command_line_limit: usize,
}

/// A loadable segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentTold {
    /// Where it goes.
    pub address: u64,
    /// Bytes in memory.
    pub memory_len: u64,
    /// Bytes in the file.
    pub file_len: u64,
    /// Its permissions: `r-x`.
    pub access: String,
}

/// Runs the command; the exit code.
pub fn run(args: &InspectArgs) -> Result<u8, Failure> {
    let places = Places::here();
    let path = places.image(&places.find(&args.image)?, false)?;
    let told = inspect(&path)?;
    if args.json {
        print_json(&told)?;
    } else {
        print(describe(&told))?;
    }
    Ok(if told.problems.is_empty() { 0 } else { FAILED })
}

/// Looks at an image file.
pub fn inspect(path: &Path) -> Result<Inspection, Problem> {
    let unreadable = |why: String| Problem::new(format!("image {}", path.display()), why);
    let found = image::inspect(path, None).map_err(|error| match error {
        ImageError::Open { source, .. } => unreadable(format!("cannot be opened: {source}")),
        ImageError::Read { source, .. } => unreadable(format!("cannot be read: {source}")),
        ImageError::NotAFile { what, .. } => unreadable(format!("is {what}, not a regular file")),
        refused @ (ImageError::Refused { .. } | ImageError::NotBootable { .. }) => {
            unreadable(refused.to_string())
        }
    })?;
    let size = path.metadata().map(|metadata| metadata.len());
    let told = Inspection {
        file: path.to_owned(),
        size: size.map_err(|error| unreadable(error.to_string()))?,
        kind: "unknown",
        abi_version: None,
        entry: None,
        kernel: None,
        stack_size: None,
        segments: Vec::new(),
        memory_mib: None,
        symbols: has_symbols(path),
        problems: Vec::new(),
    };
    Ok(match found {
        Found::Native(examination) => tell_native(told, examination),
        Found::Kernel(kernel) => tell_kernel(told, &kernel),
        Found::BrokenKernel(problem) => Inspection {
            kind: "kernel",
            problems: vec![problem.to_string()],
            ..told
        },
    })
}

fn tell_native(told: Inspection, found: Examination) -> Inspection {
    let mut told = Inspection {
        kind: if found.abi_version.is_some() {
            "native"
        } else {
            "unknown"
        },
        abi_version: found.abi_version,
        entry: found.entry,
        stack_size: found.stack_size,
        segments: found.segments.iter().map(tell_segment).collect(),
        problems: found.problems.iter().map(ToString::to_string).collect(),
        ..told
    };
    if let Ok(native) = found.into_image() {
        told.memory_mib = memory_needed(&native);
        if told.memory_mib.is_none() {
            told.problems
                .push("no amount of memory would hold it".to_owned());
        }
    }
    told
}

fn tell_kernel(told: Inspection, kernel: &Kernel) -> Inspection {
    let (protocol, entry) = match kernel.entrance() {
        Entrance::Linux(entry) => ("linux", entry),
        Entrance::Pvh(entry) => ("pvh", u64::from(entry)),
    };
    let boot_protocol = kernel.boot_protocol();
    let memory = least_memory_mib(kernel, 0);
    Inspection {
        kind: "kernel",
        entry: Some(entry),
        kernel: Some(KernelTold {
            format: kernel.format_name(),
            protocol,
            version: kernel.version().map(str::to_owned),
            boot_protocol: boot_protocol.map(|(major, minor)| format!("{major}.{minor}")),
            pvh_entry: kernel.pvh_entry(),
            command_line_limit: kernel.command_line_limit(),
        }),
        memory_mib: memory.ok(),
        problems: memory.err().iter().map(ToString::to_string).collect(),
        ..told
    }
}

/// The least number of MiB that the monitor's layout accepts.
fn memory_needed(native: &NativeImage) -> Option<u64> {
    let fits = |mib: u64| Layout::new(native, mib << 20, 1).is_ok();
    let (mut too_little, mut enough) = (0, (RAM_LIMIT - RAM_BASE) >> 20);
    if !fits(enough) {
        return None;
    }
    while enough - too_little > 1 {
        let middle = (too_little + enough) / 2;
        match fits(middle) {
            true => enough = middle,
            false => too_little = middle,
        }
    }
    Some(enough)
}

fn tell_segment(segment: &Segment) -> SegmentTold {
    let bits = [
        (access::READ, 'r'),
        (access::WRITE, 'w'),
        (access::EXECUTE, 'x'),
    ];
    let letter = |(bit, letter)| {
        if segment.access & bit != 0 {
            letter
        } else {
            '-'
        }
    };
    SegmentTold {
        address: segment.address,
        memory_len: segment.memory_len,
        file_len: segment.file_len,
        access: bits.map(letter).iter().collect(),
    }
}

/// Whether the section table, at the offset the ELF header tells, names a symbol table.
fn has_symbols(path: &Path) -> bool {
    /// `sh_type` of a symbol table, and where it is in a section header.
    const SHT_SYMTAB: u32 = 2;
    const SECTION_HEADER: usize = 64;
    let read = |offset: u64, len: u64| {
        let mut file = File::open(path).ok()?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).ok()?;
        let mut bytes = Vec::new();
        file.take(len).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    let table = read(0, 64).and_then(|header| {
        let offset = u64::from_le_bytes(header.get(0x28..0x30)?.try_into().ok()?);
        let count = u16::from_le_bytes(header.get(0x3c..0x3e)?.try_into().ok()?);
        read(
            offset,
            (u64::from(count) * SECTION_HEADER as u64).min(MAX_SECTIONS),
        )
    });
    table
        .unwrap_or_default()
        .chunks_exact(SECTION_HEADER)
        .any(|section| section[4..8] == SHT_SYMTAB.to_le_bytes())
}

fn describe(told: &Inspection) -> String {
    let hex = |value: Option<u64>| value.map_or("none".to_owned(), |value| format!("{value:#x}"));
    let memory = told
        .memory_mib
        .map_or("unknown".to_owned(), |mib| format!("{mib} MiB or more"));
    let mut rows = vec![
        row("image", printable(&told.file.display().to_string())),
        row("size", format_kib(told.size.div_ceil(1024))),
        row("kind", told.kind.to_owned()),
        row("entry", hex(told.entry)),
        row("memory", memory),
    ];
    match &told.kernel {
        Some(kernel) => rows.extend(kernel_rows(kernel)),
        None => rows.extend(native_rows(told)),
    }
    let mut out = columns(&rows);
    if !told.segments.is_empty() {
        out.push_str("segments\n");
        let rows: Vec<Vec<String>> = told.segments.iter().map(segment_row).collect();
        out.push_str(&columns(&rows));
    }
    match told.problems.is_empty() {
        true => out.push_str("verdict    would run\n"),
        false => out.push_str("verdict    would be refused:\n"),
    }
    for problem in &told.problems {
        out.push_str(&format!("  - {}\n", printable(problem)));
    }
    out
}

fn row(name: &str, value: impl Into<String>) -> Vec<String> {
    vec![name.to_owned(), value.into()]
}

fn native_rows(told: &Inspection) -> Vec<Vec<String>> {
    let abi = told.abi_version.map(|version| version.to_string());
    let stack = told.stack_size.map(|size| format_kib(size >> 10));
    vec![
        row("slice ABI", abi.unwrap_or("none".to_owned())),
        row("stack", stack.unwrap_or("unknown".to_owned())),
        row("symbols", if told.symbols { "yes" } else { "no" }),
    ]
}

fn kernel_rows(kernel: &KernelTold) -> Vec<Vec<String>> {
    let version = kernel.version.as_deref().map(printable);
    let protocol = match (&kernel.boot_protocol, kernel.pvh_entry) {
        (Some(version), _) => format!("{} ({version})", kernel.protocol),
        (None, Some(entry)) => format!("{} (its PVH entry is {entry:#x})", kernel.protocol),
        (None, None) => kernel.protocol.to_owned(),
    };
    vec![
        row("format", kernel.format),
        row("version", version.unwrap_or("unknown".to_owned())),
        row("protocol", protocol),
        row(
            "command line",
            format!("{} bytes at most", kernel.command_line_limit),
        ),
    ]
}

fn segment_row(segment: &SegmentTold) -> Vec<String> {
    vec![
        format!(
            "  {:#x}..{:#x}",
            segment.address,
            segment.address + segment.memory_len
        ),
        segment.access.clone(),
        format!(
            "{} bytes, {} from the file",
            segment.memory_len, segment.file_len
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_program_is_told_as_what_it_is_with_every_objection() {
        let told = inspect(Path::new("/proc/self/exe")).expect("readable");
        assert_eq!(told.kind, "unknown");
        assert_eq!(told.memory_mib, None);
        assert!(
            told.problems
                .iter()
                .any(|problem| problem.contains("slice note"))
        );
        assert!(describe(&told).contains("would be refused"));
    }

    #[test]
    fn what_is_no_elf_file_is_told_without_made_up_fields() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("script");
        std::fs::write(&path, "#!/bin/sh\n").expect("written");
        let told = inspect(&path).expect("readable");
        assert_eq!(
            (told.entry, told.segments.len(), told.symbols),
            (None, 0, false)
        );
        assert_eq!(told.problems, ["it is a script, not an ELF file"]);
    }

    #[test]
    fn a_kernel_is_told_with_how_it_is_entered() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("vmlinuz");
        std::fs::write(&path, crate::run::bzimage_for_tests()).expect("written");
        let told = inspect(&path).expect("readable");
        assert_eq!((told.kind, told.problems.len()), ("kernel", 0));
        let text = describe(&told);
        for part in ["bzImage", "linux (2.15)", "64 MiB or more", "would run"] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        assert!(!text.contains("stack"), "{text}");
    }

    #[test]
    fn a_directory_is_a_problem_and_not_an_image() {
        let problem = inspect(Path::new("/")).expect_err("no file");
        assert_eq!(
            problem.to_string(),
            "image /: is a directory, not a regular file"
        );
    }
}
