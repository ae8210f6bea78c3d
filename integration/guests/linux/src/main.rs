//! What busybox cannot do, for the lab's Linux guests: streams of a vsock, patterns on a disk, and
//! the time of day to the nanosecond. Each subcommand ends with a status other than 0 if something
//! is not as it should be.
#![allow(unsafe_code, reason = "sockets of this family are made by raw calls")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "usage: lab-guest now | vsock-say PORT TEXT | vsock-echo PORT | \
                     write DISK MIB SEED | check DISK MIB SEED";

/// The host's context (virtio 1.2, 5.10.4).
const HOST_CID: u32 = 2;

/// Bytes at a time.
const BLOCK: usize = 1 << 20;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["now"] => now(),
        ["vsock-say", port, text] => say(port.parse()?, text),
        ["vsock-echo", port] => echo(port.parse()?),
        ["write", disk, mib, seed] => write(disk, mib.parse()?, seed.parse()?),
        ["check", disk, mib, seed] => check(disk, mib.parse()?, seed.parse()?),
        _ => bail!(USAGE),
    }
}

/// Prints the nanoseconds since 1970.
fn now() -> Result<()> {
    println!(
        "{}",
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos()
    );
    Ok(())
}

/// Says something to the host and prints the answer.
fn say(port: u32, text: &str) -> Result<()> {
    let socket = socket()?;
    let address = address(HOST_CID, port);
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address lives through the call, and `length` is its size.
    check_call(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    let mut stream = File::from(socket);
    stream.write_all(text.as_bytes())?;
    shut_down(&stream)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{answer}");
    Ok(())
}

/// Takes one stream in and sends back what comes.
fn echo(port: u32) -> Result<()> {
    let socket = socket()?;
    let address = address(libc::VMADDR_CID_ANY, port);
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address lives through the call, and `length` is its size.
    check_call(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    // SAFETY: takes numbers only.
    check_call(unsafe { libc::listen(socket.as_raw_fd(), 1) })?;
    println!("listening");
    let (none, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: null pointers mean that the peer's address is not wanted.
    let fd = check_call(unsafe { libc::accept(socket.as_raw_fd(), none, no_length) })?;
    // SAFETY: the descriptor was just opened and is nobody else's.
    let mut stream = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut content = Vec::new();
    stream.read_to_end(&mut content)?;
    stream.write_all(&content)?;
    shut_down(&stream)?;
    Ok(())
}

/// Fills the beginning of a disk with a pattern that goes on and on, and has it made durable.
fn write(disk: &str, mib: usize, seed: u64) -> Result<()> {
    let file = File::options()
        .write(true)
        .open(disk)
        .context(disk.to_owned())?;
    let mut block = vec![0; BLOCK];
    for index in 0..mib {
        fill(&mut block, seed, index);
        file.write_all_at(&block, (index * BLOCK) as u64)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Whether it is as it was written.
fn check(disk: &str, mib: usize, seed: u64) -> Result<()> {
    let file = File::open(disk).context(disk.to_owned())?;
    let (mut block, mut expected) = (vec![0; BLOCK], vec![0; BLOCK]);
    for index in 0..mib {
        fill(&mut expected, seed, index);
        file.read_exact_at(&mut block, (index * BLOCK) as u64)?;
        ensure!(block == expected, "MiB {index} of {disk} is not as written");
    }
    Ok(())
}

/// Another content for each seed and index, no two words of which are alike.
fn fill(block: &mut [u8], seed: u64, index: usize) {
    let mut state = seed ^ ((index as u64) << 32);
    for word in block.chunks_exact_mut(size_of::<u64>()) {
        // A full-period generator (Knuth, MMIX).
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_le_bytes());
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = check_call(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0) })?;
    // SAFETY: the descriptor was just opened and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all members are numbers, of which zero is a valid value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

fn shut_down(stream: &File) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check_call(unsafe { libc::shutdown(stream.as_raw_fd(), libc::SHUT_WR) }).map(drop)
}

fn check_call(result: i32) -> io::Result<i32> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
