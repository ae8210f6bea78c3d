//! The files that cases need.

/// A file, or a set of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// What runs the case in there.
    Inside,
    /// `slicevmm`.
    Monitor,
    /// The tools of the emulated host.
    Busybox,
    /// Debian's cloud kernel as it is shipped.
    BzImage,
    /// The ELF file inside of it, which is entered by PVH.
    Vmlinux,
    /// A RAM disk for it: busybox, its modules, and `guests/linux/init`.
    Initrd,
    /// A disk with an ext4 file system in which busybox is everything.
    RootDisk,
    /// A memory tester: a foreign kernel that speaks Linux's boot protocol.
    Memtest,
    /// The native example `spin`, which computes for as long as it is told to.
    Spin,
    /// An ssh server, a client and what makes keys, with their libraries: an archive.
    Ssh,
    /// The kernel that misbehaves: `guests/metal`.
    Metal,
    /// QEMU with its libraries and firmware, at the places where it looks for them.
    Qemu,
}

impl Part {
    /// Its name among the parts. QEMU's is that of an archive.
    pub fn file(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Monitor => "slicevmm",
            Self::Busybox => "busybox",
            Self::BzImage => "bzimage",
            Self::Vmlinux => "vmlinux",
            Self::Initrd => "initrd.cpio",
            Self::RootDisk => "root.img",
            Self::Memtest => "memtest",
            Self::Spin => "spin",
            Self::Ssh => "ssh.cpio",
            Self::Metal => "metal",
            Self::Qemu => "qemu.cpio",
        }
    }
}
