//! Prints random bytes: as many as asked for, in hexadecimal, 32 on a line.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use guest_shim::prelude::*;
use guest_shim::{args, rand};

fn run() -> Result<(), String> {
    let mut count = match args().next() {
        None => 32,
        Some(arg) => arg
            .parse()
            .map_err(|_| format!("usage: rand [BYTES], not '{arg}'"))?,
    };
    while count > 0 {
        let mut line = [0; 32];
        let line = &mut line[..count.min(32)];
        rand::fill(line);
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{}", hex.concat());
        count -= line.len();
    }
    Ok(())
}

guest_shim::entry!(run);
