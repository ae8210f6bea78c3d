//! Greets. The first thing to run, and the smallest thing that prints.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use guest_shim::{args, eprintln, print, println, sliver_name};

const USAGE: &str = "usage: hello [--status N] [WORD...]";

fn run() -> u8 {
    let mut status = 0;
    let mut words = args();
    while let Some(word) = words.next() {
        if word == "--status" {
            match words.next().and_then(|n| n.parse().ok()) {
                Some(n) => status = n,
                None => return usage(),
            }
        } else if word.starts_with('-') {
            return usage();
        }
    }
    print!("hello from {}", sliver_name());
    let mut words = args();
    while let Some(word) = words.next() {
        if word == "--status" {
            words.next();
        } else {
            print!(" {word}");
        }
    }
    println!();
    status
}

fn usage() -> u8 {
    eprintln!("{USAGE}");
    2
}

guest_shim::entry!(run);
