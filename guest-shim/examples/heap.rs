//! Puts the heap under stress on all vCPUs at once: random sizes, allocated, grown, shrunk, moved
//! and freed, with every byte checked.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use core::mem;
use core::ops::AddAssign;

use guest_shim::prelude::*;
use guest_shim::{args, vcpu};

const USAGE: &str = "usage: heap [--rounds N]";

/// Rounds per vCPU unless told otherwise.
const ROUNDS: u64 = 50_000;

/// Allocations that each vCPU holds at a time.
const SLOTS: usize = 256;

/// The largest allocation. Most are much smaller.
const LARGEST: u64 = 64 << 10;

/// Something that must lie on a boundary.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// An allocation, and the seed of what is written in it.
enum Held {
    Nothing,
    Bytes(Vec<u8>, u64),
    Page(Box<Page>, u64),
}

#[derive(Default)]
struct Counts {
    allocated: u64,
    resized: u64,
    freed: u64,
    bytes: u64,
}

fn run() -> Result<u8, String> {
    let Some(rounds) = parse() else {
        eprintln!("{USAGE}");
        return Ok(2);
    };
    let counts = vcpu::on_all(move |part| stress(part as u64, rounds));
    let mut total = Counts::default();
    for count in counts.map_err(|busy| busy.to_string())? {
        total += count?;
    }
    println!("vcpus {}", vcpu::count());
    println!("allocated {}", total.allocated);
    println!("resized {}", total.resized);
    println!("freed {}", total.freed);
    println!("bytes {}, all as written", total.bytes);
    Ok(0)
}

fn parse() -> Option<u64> {
    let mut words = args();
    match (words.next(), words.next(), words.next()) {
        (None, ..) => Some(ROUNDS),
        (Some("--rounds"), Some(number), None) => number.parse().ok(),
        _ => None,
    }
}

fn stress(seed: u64, rounds: u64) -> Result<Counts, String> {
    let mut random = Random(seed * 2 + 1);
    let mut counts = Counts::default();
    let mut slots: Vec<Held> = (0..SLOTS).map(|_| Held::Nothing).collect();
    for _ in 0..rounds {
        let slot = &mut slots[random.below(SLOTS as u64) as usize];
        let held = mem::replace(slot, Held::Nothing);
        held.check()?;
        *slot = match held {
            Held::Nothing => allocate(&mut random, &mut counts)?,
            Held::Bytes(bytes, seed) if random.below(2) == 0 => {
                resize(bytes, seed, &mut random, &mut counts)?
            }
            Held::Bytes(..) | Held::Page(..) => {
                counts.freed += 1;
                Held::Nothing
            }
        };
    }
    for held in slots {
        held.check()?;
        counts.freed += u64::from(!matches!(held, Held::Nothing));
    }
    Ok(counts)
}

fn allocate(random: &mut Random, counts: &mut Counts) -> Result<Held, String> {
    let seed = random.next();
    counts.allocated += 1;
    if random.below(16) == 0 {
        counts.bytes += size_of::<Page>() as u64;
        let mut page = Box::new(Page([0; 4096]));
        fill(&mut page.0, seed);
        return Ok(Held::Page(page, seed));
    }
    let size = random.size();
    counts.bytes += size as u64;
    let mut bytes = vec![0; size];
    if bytes.iter().any(|&byte| byte != 0) {
        return Err(format!("{size} bytes asked for as zero are not"));
    }
    fill(&mut bytes, seed);
    Ok(Held::Bytes(bytes, seed))
}

fn resize(
    mut bytes: Vec<u8>,
    seed: u64,
    random: &mut Random,
    counts: &mut Counts,
) -> Result<Held, String> {
    let (old, new) = (bytes.len(), random.size());
    counts.resized += 1;
    counts.bytes += new.saturating_sub(old) as u64;
    if new < old {
        bytes.truncate(new);
        bytes.shrink_to_fit();
    } else {
        bytes.reserve_exact(new - old);
        bytes.resize(new, 0);
    }
    check(&bytes[..old.min(new)], seed)?;
    let seed = random.next();
    fill(&mut bytes, seed);
    Ok(Held::Bytes(bytes, seed))
}

impl Held {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Nothing => Ok(()),
            Self::Bytes(bytes, seed) => check(bytes, *seed),
            Self::Page(page, seed) => {
                let address = page.0.as_ptr().addr();
                if address % align_of::<Page>() != 0 {
                    return Err(format!("a page lies at {address:#x}"));
                }
                check(&page.0, *seed)
            }
        }
    }
}

/// Writes what only this seed writes.
fn fill(bytes: &mut [u8], seed: u64) {
    let mut random = Random(seed | 1);
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
}

fn check(bytes: &[u8], seed: u64) -> Result<(), String> {
    let mut random = Random(seed | 1);
    for (i, chunk) in bytes.chunks(8).enumerate() {
        if chunk != &random.next().to_le_bytes()[..chunk.len()] {
            let (at, len) = (bytes[8 * i..].as_ptr().addr(), bytes.len());
            return Err(format!(
                "byte {} of {len} at {at:#x} is not as written",
                8 * i
            ));
        }
    }
    Ok(())
}

/// Marsaglia's xorshift, 64 bits: the same counts on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Mostly small, sometimes large, never nothing.
    fn size(&mut self) -> usize {
        let limit = if self.below(16) == 0 { LARGEST } else { 512 };
        1 + self.below(limit) as usize
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.allocated += other.allocated;
        self.resized += other.resized;
        self.freed += other.freed;
        self.bytes += other.bytes;
    }
}

guest_shim::entry!(run);
