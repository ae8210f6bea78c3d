//! Says back each line it reads, with its number, until `end`.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use guest_shim::console::{read_line, window_size};
use guest_shim::{println, task};

fn run() {
    if let Some(size) = window_size() {
        println!("{} columns, {} rows", size.columns, size.rows);
    }
    println!("ready");
    task::block_on(async {
        let mut number = 0;
        while let Some(line) = read_line().await {
            if line == "end" {
                break;
            }
            number += 1;
            println!("{number} {line}");
        }
    });
}

guest_shim::entry!(run);
