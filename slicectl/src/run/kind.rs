//! Is this image a native one, or a kernel? Asked before anything else, because it decides which
//! flags make sense and what the defaults are.

use vmm::boot::image::{self, Found};
use vmm::boot::legacy::{Kernel, least_memory_mib};
use vmm::spec::{Protocol, SliverSpec};

use crate::images::Wanted;
use crate::problem::Problem;
use crate::units::format_kib;

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is built on `guest-shim`.
    Native,
    /// A kernel.
    Legacy,
    /// Neither, or it cannot be read: the monitor will say what is wrong.
    Unknown,
}

/// What a look at an image has shown.
#[derive(Debug)]
pub(super) struct Look {
    /// What it is.
    pub(super) kind: Kind,
    /// The kernel that it is, or why it cannot be booted.
    kernel: Option<Result<Box<Kernel>, String>>,
}

impl Look {
    /// Looks at what was found, which is to be booted as `protocol` says; an example is native.
    pub(super) fn at(wanted: &Wanted, protocol: Option<Protocol>) -> Self {
        let path = match wanted {
            Wanted::Example(_) => return Kind::Native.into(),
            Wanted::File(path) => path,
        };
        match image::inspect(path, protocol) {
            Ok(Found::Native(found)) if found.has_note => Kind::Native.into(),
            Ok(Found::Kernel(kernel)) => Self {
                kind: Kind::Legacy,
                kernel: Some(Ok(kernel)),
            },
            Ok(Found::BrokenKernel(problem)) => Self {
                kind: Kind::Legacy,
                kernel: Some(Err(problem.to_string())),
            },
            Ok(Found::Native(_)) | Err(_) => Kind::Unknown.into(),
        }
    }

    /// Why the kernel cannot be booted at all.
    pub(super) fn broken(&self, what: &str) -> Option<Problem> {
        let problem = self.kernel.as_ref()?.as_ref().err()?;
        Some(Problem::new(
            what,
            format!("is no kernel that can be booted: {problem}"),
        ))
    }

    /// Why the kernel cannot be booted with this initial RAM disk in this memory.
    pub(super) fn too_large(&self, spec: &SliverSpec) -> Option<Problem> {
        let kernel = self.kernel.as_ref()?.as_ref().ok()?;
        let initrd = spec.kernel()?.initrd();
        let initrd = initrd.map_or(Some(0), |path| Some(path.metadata().ok()?.len()))?;
        let what = match initrd {
            0 => "the kernel",
            _ => "the kernel with its --initrd",
        };
        match least_memory_mib(kernel, initrd) {
            Err(problem) => Some(Problem::new(what, problem.to_string())),
            Ok(least) if least << 20 > spec.memory_bytes() => {
                let memory = format_kib(spec.memory_bytes() >> 10);
                let why = format!("needs {least} MiB of memory to begin, the sliver has {memory}");
                Some(Problem::new(what, why).mend("give it more: --mem"))
            }
            Ok(_) => None,
        }
    }
}

impl From<Kind> for Look {
    fn from(kind: Kind) -> Self {
        Self { kind, kernel: None }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The beginning of a kernel that wants 64 MiB, with nothing behind it but zeros.
    pub(crate) fn bzimage() -> Vec<u8> {
        let mut file = vec![0; 0x4000];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[1]);
        put(0x1f4, &0x300u32.to_le_bytes());
        put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
        put(0x202, b"HdrS");
        put(0x206, &0x20fu16.to_le_bytes());
        put(0x211, &[1]);
        put(0x22c, &0x7fff_ffffu32.to_le_bytes());
        put(0x230, &0x20_0000u32.to_le_bytes());
        put(0x234, &[1]);
        put(0x236, &3u16.to_le_bytes());
        put(0x238, &2047u32.to_le_bytes());
        put(0x258, &0x100_0000u64.to_le_bytes());
        put(0x260, &(48u32 << 20).to_le_bytes());
        file
    }

    fn look(content: &[u8]) -> Look {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("written");
        Look::at(&Wanted::File(file.path().to_owned()), None)
    }

    #[test]
    fn kernels_are_told_from_what_is_none() {
        let kind = |content: &[u8]| look(content).kind;
        assert_eq!(kind(&bzimage()), Kind::Legacy);
        assert_eq!(kind(b"#!/bin/sh\n"), Kind::Unknown);
        assert_eq!(kind(b""), Kind::Unknown);
        assert_eq!(
            Look::at(&Wanted::File("/".into()), None).kind,
            Kind::Unknown
        );
        assert_eq!(
            Look::at(&Wanted::Example("hello".into()), None).kind,
            Kind::Native
        );
    }

    #[test]
    fn a_kernel_that_cannot_be_booted_is_told_with_the_reason() {
        assert_eq!(look(&bzimage()).broken("k"), None);
        let mut old = bzimage();
        old[0x206] = 1;
        let told = look(&old).broken("k").expect("too old").to_string();
        assert!(
            told.starts_with("k: is no kernel that can be booted: it speaks"),
            "{told}"
        );
        assert!(
            look(&bzimage()[..0x2000]).broken("k").is_some(),
            "it is cut off"
        );
    }
}
