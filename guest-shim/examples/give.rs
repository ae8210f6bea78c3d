//! Uses memory, lets go of it, and then gives the node's operator as much as is asked for.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use core::hint::black_box;
use core::time::Duration;

use guest_shim::prelude::*;
use guest_shim::{args, balloon, console, task};

/// How often it looks whether it is still wanted.
const BEAT: Duration = Duration::from_secs(1);

fn run() -> Result<(), String> {
    let words: Vec<&str> = args().collect();
    let [mib, seconds] = words[..] else {
        return Err("usage: give MIB SECONDS".to_owned());
    };
    let number = |word: &str| word.parse().map_err(|_| format!("'{word}' is no number"));
    let (mib, seconds): (usize, u64) = (number(mib)? as usize, number(seconds)?);
    let used = black_box(vec![1u8; mib << 20]);
    println!("used {} bytes", used.len());
    drop(used);
    task::block_on(async {
        balloon::follow();
        println!("giving");
        console::flush();
        for _ in 0..seconds {
            task::sleep(BEAT).await;
        }
    });
    Ok(())
}

guest_shim::entry!(run);
