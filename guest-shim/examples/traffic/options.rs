//! What is asked for on the command line.

use core::net::SocketAddr;
use core::time::Duration;

use guest_shim::prelude::*;

use crate::flags::{Flags, Wrong};
use crate::schedule::Profile;

pub(crate) const USAGE: &str = "\
usage: traffic --to ADDRESS:PORT [--profile web|bulk|voip] [--rate KBIT] [--seed N]
               [--seconds N] [--json]

Sends a load that can be had again: the same profile, rate and seed send the same pieces at the same
moments. What comes back is not looked at.

  --to ADDRESS:PORT  where to, such as 192.0.2.7:9000 or [2001:db8::7]:9000; for web and bulk
                     something has to take connections there (blast --listen 9000 --mode sink)
  --profile KIND     web: short TCP connections with many small and few large objects, and pauses
                     bulk: one TCP connection that never rests
                     voip: UDP datagrams of 172 bytes, every 20 ms for each call (web)
  --rate KBIT        payload in the mean, in kbit/s of 1000 bit/s; voip makes whole calls of 68.8 of
                     it (1000)
  --seed N           what chance is drawn from (1)
  --seconds N        how long (10)
  --json             tell what came of it as JSON";

/// The highest rate: 100 Gbit/s.
const MOST_KBIT: u64 = 100_000_000;

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) to: SocketAddr,
    pub(crate) profile: Profile,
    pub(crate) rate_kbit: u64,
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) json: bool,
}

pub(crate) fn parse() -> Result<Options, Wrong> {
    let mut to = None;
    let mut profile = Profile::Web;
    let (mut rate_kbit, mut seed, mut seconds, mut json) = (1000, 1, 10.0, false);
    let mut flags = Flags::of_this_program();
    while let Some(flag) = flags.next() {
        match flag {
            "--to" => to = Some(flags.value(flag)?),
            "--profile" => {
                let name = flags.word(flag)?;
                let found = Profile::named(name);
                profile = found.ok_or_else(|| {
                    Wrong::Told(format!("--profile {name}: there are web, bulk and voip"))
                })?;
            }
            "--rate" => rate_kbit = flags.value(flag)?,
            "--seed" => seed = flags.value(flag)?,
            "--seconds" => seconds = flags.value(flag)?,
            "--json" => json = true,
            _ => return Err(Wrong::unknown(flag)),
        }
    }
    if !(1..=MOST_KBIT).contains(&rate_kbit) {
        return Err(Wrong::Told(format!(
            "--rate {rate_kbit}: allowed are 1 to {MOST_KBIT} kbit/s"
        )));
    }
    let time = Duration::try_from_secs_f64(seconds)
        .map_err(|error| Wrong::Told(format!("--seconds {seconds}: {error}")))?;
    Ok(Options {
        to: to.ok_or_else(|| Wrong::Told("--to is needed".to_owned()))?,
        profile,
        rate_kbit,
        seed,
        time,
        json,
    })
}
