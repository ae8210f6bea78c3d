//! What is sent when: a function of profile, rate and seed and of nothing else, in whole numbers, so
//! that the same three give the same load on any machine.
//!
//! Each profile keeps to its rate in the long run: a step is due when all before it have had the
//! time that they take at that rate. What chance decides is how large the pieces are and where the
//! pauses lie.

#[cfg(test)]
mod tests;

use core::time::Duration;

/// Payload of a telephone call's packet: 20 ms of G.711 behind an RTP header (RFC 3551, 4.5.14).
const VOICE_BYTES: u64 = 172;
/// How often a call sends one.
const VOICE_EVERY: u64 = 20_000_000;
/// Bits a second of a call.
const VOICE_RATE: u64 = VOICE_BYTES * 8 * 1_000_000_000 / VOICE_EVERY;
/// More calls than these, and their packets are sent in too small steps.
const MOST_CALLS: u64 = 1 << 16;

/// The least and the greatest piece of a bulk transfer.
const LEAST_CHUNK: u64 = 4 << 10;
const GREATEST_CHUNK: u64 = 32 << 10;

/// Objects of a page, and the least of them. Twice the size is half as frequent, as many times.
const MOST_OBJECTS: usize = 20;
const LEAST_OBJECT: u64 = 1 << 10;
const DOUBLINGS: u32 = 10;
/// How much faster than the rate a page is sent; then there is a pause.
const PAGE_HASTE: u64 = 4;

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Pages: short connections with a few small objects and now and then a large one, and pauses.
    Web,
    /// One connection that never rests.
    Bulk,
    /// Telephone calls: small datagrams, as regular as a clock.
    Voip,
}

/// Something to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// When, from the start.
    pub(crate) at: Duration,
    /// The connection or call that it is part of, in the order in which they begin.
    pub(crate) flow: u64,
    /// How much.
    pub(crate) bytes: usize,
    /// Whether the connection ends with it.
    pub(crate) last: bool,
}

/// The steps of a load, without end.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    profile: Profile,
    /// Bits a second, never 0.
    rate: u64,
    chance: Chance,
    /// Of all steps so far.
    bytes: u64,
    /// Web: the page. Voip: the next call of this round.
    flow: u64,
    page: Option<Page>,
    /// Voip: packets that each call has sent.
    round: u64,
}

/// A page that is being sent.
#[derive(Debug, Clone, Copy)]
struct Page {
    objects: [u64; MOST_OBJECTS],
    count: usize,
    next: usize,
    /// When it began, in nanoseconds.
    start: u64,
    sent: u64,
}

impl Profile {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "web" => Some(Self::Web),
            "bulk" => Some(Self::Bulk),
            "voip" => Some(Self::Voip),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Bulk => "bulk",
            Self::Voip => "voip",
        }
    }
}

impl Schedule {
    /// The load of so many bits a second, at least 1.
    pub(crate) fn new(profile: Profile, rate: u64, seed: u64) -> Self {
        Self {
            profile,
            rate: rate.max(1),
            chance: Chance(seed),
            bytes: 0,
            flow: 0,
            page: None,
            round: 0,
        }
    }

    fn chunk(&mut self) -> Step {
        let bytes = LEAST_CHUNK + self.chance.below(GREATEST_CHUNK - LEAST_CHUNK + 1);
        let at = time_of(self.bytes, self.rate);
        self.bytes += bytes;
        step(at, 0, bytes, false)
    }

    fn object(&mut self) -> Step {
        let mut page = match self.page.take() {
            Some(page) => page,
            None => self.next_page(),
        };
        let bytes = page.objects[page.next];
        let at = page.start + time_of(page.sent, self.rate.saturating_mul(PAGE_HASTE));
        let flow = self.flow;
        page.next += 1;
        page.sent += bytes;
        let last = page.next == page.count;
        if last {
            self.flow += 1;
        } else {
            self.page = Some(page);
        }
        step(at, flow, bytes, last)
    }

    /// A page begins up to half of the time that is its own late, and takes a quarter of it: it ends
    /// before the next begins.
    fn next_page(&mut self) -> Page {
        let mut objects = [0; MOST_OBJECTS];
        let count = 1 + self.chance.below(MOST_OBJECTS as u64) as usize;
        for object in &mut objects[..count] {
            let doublings = self.chance.next().trailing_zeros().min(DOUBLINGS - 1);
            let least = LEAST_OBJECT << doublings;
            *object = least + self.chance.below(least);
        }
        let bytes = objects.iter().sum();
        let late = self.chance.below(time_of(bytes, self.rate) / 2 + 1);
        let start = time_of(self.bytes, self.rate) + late;
        self.bytes += bytes;
        Page {
            objects,
            count,
            next: 0,
            start,
            sent: 0,
        }
    }

    /// All calls begin within the first 20 ms, as far from each other as can be.
    fn packet(&mut self) -> Step {
        let calls = (self.rate.saturating_add(VOICE_RATE / 2) / VOICE_RATE).clamp(1, MOST_CALLS);
        let call = self.flow;
        let at = self.round * VOICE_EVERY + call * VOICE_EVERY / calls;
        self.flow = (call + 1) % calls;
        self.round += u64::from(self.flow == 0);
        step(at, call, VOICE_BYTES, false)
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        Some(match self.profile {
            Profile::Web => self.object(),
            Profile::Bulk => self.chunk(),
            Profile::Voip => self.packet(),
        })
    }
}

fn step(at: u64, flow: u64, bytes: u64, last: bool) -> Step {
    Step {
        at: Duration::from_nanos(at),
        flow,
        bytes: bytes as usize,
        last,
    }
}

/// Nanoseconds that these bytes take.
fn time_of(bytes: u64, rate: u64) -> u64 {
    let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate);
    u64::try_from(nanos).unwrap_or(u64::MAX / 4)
}

/// Chance that a seed decides (SplitMix64, Steele 2014).
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`. Its bias is `bound / 2^64`.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
