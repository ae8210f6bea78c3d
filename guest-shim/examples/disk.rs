//! Reads and writes disks: lists them, or reads and writes one from end to end and checks it, with
//! many requests at a time.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use guest_shim::block::{Buffer, Disk, Error};
use guest_shim::prelude::*;
use guest_shim::{args, eprintln, println, task};

const USAGE: &str = "usage: disk [NAME]";

/// Bytes of a request, and requests at a time.
const PIECE: u64 = 4096;
const DEPTH: u64 = 64;

fn run() -> Result<u8, Error> {
    let mut words = args();
    match (words.next(), words.next()) {
        (None, _) => list(),
        (Some(name), None) => task::block_on(check(Disk::open(name)?))?,
        _ => {
            eprintln!("{USAGE}");
            return Ok(2);
        }
    }
    Ok(0)
}

fn list() {
    for disk in Disk::all() {
        let access = if disk.is_read_only() { "ro" } else { "rw" };
        let (name, serial) = (disk.name(), disk.serial());
        println!(
            "{name} {} bytes, {access}, in blocks of {}, serial '{serial}'",
            disk.size(),
            disk.block_size()
        );
    }
}

/// Writes a pattern that differs everywhere, makes it durable, and reads it back.
async fn check(disk: Disk) -> Result<(), Error> {
    let pieces = disk.size() / PIECE;
    if !disk.is_read_only() {
        let written = for_all(&disk, pieces, |disk, piece| async move {
            let mut buffer = Buffer::zeroed(PIECE as usize);
            fill(&mut buffer, piece);
            disk.write_owned(piece * PIECE, buffer).await.0.map(|()| 1)
        });
        println!("wrote {} pieces", written.await?);
        disk.flush().await?;
    }
    let same = for_all(&disk, pieces, |disk, piece| async move {
        let mut expected = Buffer::zeroed(PIECE as usize);
        fill(&mut expected, piece);
        let mut bytes = vec![0; PIECE as usize];
        disk.read_at(piece * PIECE, &mut bytes).await?;
        Ok(u64::from(bytes == expected[..]))
    });
    println!("{} of {pieces} pieces are as written", same.await?);
    if !disk.is_read_only() {
        disk.write_zeroes(0..PIECE).await?;
        disk.discard(PIECE..2 * PIECE).await?;
        let mut bytes = [1; PIECE as usize];
        disk.read_at(0, &mut bytes).await?;
        println!(
            "zeroes are {}",
            if bytes == [0; PIECE as usize] {
                "zeroes"
            } else {
                "not"
            }
        );
    }
    Ok(())
}

/// Does something for each piece, many at a time; the sum of what comes of it.
async fn for_all<F>(
    disk: &Disk,
    pieces: u64,
    what: impl Fn(Disk, u64) -> F + Copy + Send + 'static,
) -> Result<u64, Error>
where
    F: Future<Output = Result<u64, Error>> + Send + 'static,
{
    let tasks: Vec<_> = (0..DEPTH)
        .map(|first| {
            let disk = disk.clone();
            task::spawn(async move {
                let mut sum = 0;
                for piece in (first..pieces).step_by(DEPTH as usize) {
                    sum += what(disk.clone(), piece).await?;
                }
                Ok::<u64, Error>(sum)
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await?;
    }
    Ok(sum)
}

fn fill(bytes: &mut [u8], piece: u64) {
    for (at, word) in bytes.as_chunks_mut().0.iter_mut().enumerate() {
        *word = (piece << 16 | at as u64).to_le_bytes();
    }
}

guest_shim::entry!(run);
