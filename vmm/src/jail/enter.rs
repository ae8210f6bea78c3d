//! The new process's way into the jail, from its first instruction to that of the program.
//!
//! It is a copy of one thread of a process that may have had others, any of which may have held a
//! lock of the allocator or of the C library. So nothing here allocates, locks or panics: only system
//! calls, on what the parent has prepared.
#![allow(
    unsafe_code,
    reason = "descriptors by their numbers, and calls that no library offers"
)]

use std::ffi::{CStr, c_char};
use std::io::IoSliceMut;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags, mkdirat};
use rustix::io::{DupFlags, Errno};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use rustix::{io, mount, process, thread};

use super::layers::{Layer, Layers};
use super::spawn::Step;

/// Where the empty root is put up before it becomes the root. Every host has it, and nothing in it is
/// needed any more.
const STAGE: &CStr = c"/proc";

/// Where a directory of the host is seen, if one is.
pub const SHOWN: &str = "/shown";

/// The highest capability that any kernel may have.
const LAST_CAPABILITY: u32 = 63;

/// What the parent has prepared.
pub(super) struct Plan<'a> {
    /// The namespaces that this process was made in.
    pub(super) layers: Layers,
    /// The program.
    pub(super) program: BorrowedFd<'a>,
    /// Its arguments, ended by a null pointer.
    pub(super) argv: &'a [*const c_char],
    /// What become its descriptors 0, 1, 2 and so on; each has a number beyond all of these.
    pub(super) descriptors: &'a [RawFd],
    /// Where the parent says who to be, and hears of a failure.
    pub(super) parent: BorrowedFd<'a>,
    /// A directory of the host to be seen in the empty root.
    pub(super) shown: Option<&'a CStr>,
    /// What may be used of each resource.
    pub(super) limits: &'a [(Resource, u64)],
}

/// What went wrong, as the parent reads it.
pub(super) const REPORT_BYTES: usize = 5;

/// Goes into the jail and starts the program. Never returns.
pub(super) fn enter(plan: &Plan<'_>) -> ! {
    let Err((step, errno)) = go_in(plan);
    let mut report = [step as u8; REPORT_BYTES];
    report[1..].copy_from_slice(&errno.raw_os_error().to_ne_bytes());
    let _ = io::write(plan.parent, &report);
    // SAFETY: ends the process without running anything that the parent has registered for its end.
    unsafe { libc::_exit(127) }
}

/// A step that failed, and how.
type Failed = (Step, Errno);

fn at(step: Step) -> impl Fn(Errno) -> Failed {
    move |errno| (step, errno)
}

fn go_in(plan: &Plan<'_>) -> Result<std::convert::Infallible, Failed> {
    let (id, mapped) = hear_who_to_be(plan.parent)?;
    hold_signals();
    // Out of the group and off the terminal of who starts it: a signal to its own group is for it alone.
    process::setsid().map_err(at(Step::User))?;
    // Changing the user would take the privileges that the next steps need.
    let bits = CapabilitiesSecureBits::NO_SETUID_FIXUP | CapabilitiesSecureBits::NO_ROOT;
    thread::set_capabilities_secure_bits(bits).map_err(at(Step::Privileges))?;
    become_user(id).map_err(at(Step::User))?;
    if plan.layers.has(Layer::User) {
        forbid_namespaces();
    }
    if plan.layers.has(Layer::Mount) {
        let shown = match (mapped, plan.shown) {
            (Some(mapped), _) => Some(mapped),
            (None, Some(path)) => Some(as_it_is(path).map_err(at(Step::Shown))?),
            (None, None) => None,
        };
        put_up_root().map_err(at(Step::Root))?;
        if let Some(shown) = shown {
            show(&shown).map_err(at(Step::Shown))?;
        }
        move_into_root().map_err(at(Step::Root))?;
    }
    place_descriptors(plan).map_err(at(Step::Descriptors))?;
    for &(resource, most) in plan.limits {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        process::setrlimit(resource, limit).map_err(at(Step::Limits))?;
    }
    drop_privileges().map_err(at(Step::Privileges))?;
    Err((Step::Program, execute(plan)))
}

/// Waits until the parent has said what its users are called here, and who of them to be. With it may
/// come a directory to be seen.
fn hear_who_to_be(parent: BorrowedFd<'_>) -> Result<(u32, Option<OwnedFd>), Failed> {
    let mut id = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let heard = loop {
        let mut bytes = [IoSliceMut::new(&mut id)];
        match recvmsg(parent, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(heard) => break heard.bytes,
            Err(Errno::INTR) => {}
            Err(errno) => return Err((Step::Parent, errno)),
        }
    };
    // So few bytes travel together.
    if heard != id.len() {
        return Err((Step::Parent, Errno::PIPE));
    }
    let mut directory = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            directory = some.last();
        }
    }
    Ok((u32::from_ne_bytes(id), directory))
}

/// Holds the signals that ask for an end until the program takes them: what the first process of a
/// namespace neither blocks nor handles never reaches it. Unblocks whatever else the starting thread
/// had blocked, and lets a broken pipe end the program unless it says otherwise: both are inherited.
fn hold_signals() {
    // SAFETY: both calls are safe in a process like this one (signal-safety(7)); the set is
    // initialised before it is read.
    unsafe {
        let mut held: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut held);
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
            libc::sigaddset(&mut held, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &held, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

fn become_user(id: u32) -> Result<(), Errno> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
    match thread::set_thread_groups(&[]) {
        // Forbidden where the user namespace was made without privileges: its only groups are then
        // those of who started it.
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)
}

/// Allows no user namespace below this one, in which a process would have every privilege that its
/// kernel offers to the root of a namespace. Where proc(5) cannot be written, that is left to the
/// filters of system calls.
fn forbid_namespaces() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(most) = rustix::fs::open(c"/proc/sys/user/max_user_namespaces", flags, Mode::empty())
    {
        let _ = io::write(&most, b"0");
    }
}

/// A directory of the host, to be put up elsewhere.
fn as_it_is(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    mount::open_tree(CWD, path, flags)
}

/// Puts up an empty file system.
fn put_up_root() -> Result<(), Errno> {
    // Nothing of what follows is to be seen outside.
    mount::mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount::mount(
        c"none",
        STAGE,
        c"tmpfs",
        flags,
        c"size=4k,nr_inodes=3,mode=555",
    )?;
    process::chdir(STAGE)
}

/// Puts up a directory of the host in it, not to be changed.
fn show(directory: &OwnedFd) -> Result<(), Errno> {
    const HERE: &CStr = c"shown";
    mkdirat(CWD, HERE, Mode::from_raw_mode(0o555))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    mount::move_mount(directory, c"", CWD, HERE, flags)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount::mount_remount(HERE, flags | MountFlags::RDONLY | MountFlags::BIND, c"")
}

/// Makes that file system the root, and forgets the old one.
fn move_into_root() -> Result<(), Errno> {
    // The new root on top of the old one at the same place, and then the old one from below
    // (pivot_root(2)).
    process::pivot_root(c".", c".")?;
    mount::unmount(c".", UnmountFlags::DETACH)?;
    process::chdir(c"/")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount::mount_remount(c"/", flags | MountFlags::RDONLY | MountFlags::BIND, c"")
}

/// Gives the descriptors their numbers and has all others close when the program starts.
fn place_descriptors(plan: &Plan<'_>) -> Result<(), Errno> {
    for (number, &from) in plan.descriptors.iter().enumerate() {
        // SAFETY: the parent keeps it open, and has given it a number that no target has.
        let from = unsafe { BorrowedFd::borrow_raw(from) };
        // SAFETY: what was there, if anything, is this copy's of a descriptor that nobody uses any
        // more; the handle is not dropped.
        let mut to = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number as RawFd) });
        io::dup3(from, &mut to, DupFlags::empty())?;
    }
    let first = plan.descriptors.len() as libc::c_uint;
    // SAFETY: sets a flag on descriptors and closes none.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 { Ok(()) } else { Err(errno()) }
}

/// Gives up every capability for good, and every way to get one by starting a program.
fn drop_privileges() -> Result<(), Errno> {
    for number in 0..=LAST_CAPABILITY {
        // The numbers have no gaps: the first that the kernel does not know is the last.
        match drop_from_bounding_set(number) {
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    thread::set_capabilities_secure_bits(locked)?;
    thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    thread::set_capabilities(None, none)?;
    thread::set_no_new_privs(true)
}

fn drop_from_bounding_set(number: u32) -> Result<(), Errno> {
    // SAFETY: takes a number and changes nothing in memory.
    match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// Starts the program, with an empty environment. Returns only to say why it could not.
fn execute(plan: &Plan<'_>) -> Errno {
    let environment = [std::ptr::null::<c_char>()];
    // SAFETY: the arrays are ended by null pointers and, with the strings in them, outlive the call;
    // the path is an empty string, so that the descriptor itself is what is executed.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            plan.program.as_raw_fd(),
            c"".as_ptr(),
            plan.argv.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    errno()
}

fn errno() -> Errno {
    // SAFETY: the location is this thread's own and always valid.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
