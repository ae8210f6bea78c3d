//! A key-value store whose monitor is killed again and again while it is written to: whatever it
//! has acknowledged is there afterwards.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use integration::kv::{Kv, Reply};
use integration::needs_kvm;
use integration::service::{Kind, Service};
use integration::sliver::new_place;
use rustix::process::{Signal, kill_process};

/// How often the monitor is killed.
const KILLS: usize = 100;

/// Clients that write at once.
const CLIENTS: u32 = 4;

/// Keys of each client.
const KEYS: u32 = 16;

/// Requests that a client sends before it reads their answers.
const TOGETHER: u32 = 8;

/// Large enough for a few kills' writes, and small enough that the store is copied from one half to
/// the other now and then.
const DISK: u64 = 4 << 20;

/// The numbers that a key may have: that of the last write that was acknowledged, and those of the
/// writes after it. 0: it was never written.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    acknowledged: u64,
    last: u64,
}

type Model = BTreeMap<(u32, u32), Known>;

#[test]
fn what_was_acknowledged_is_there_after_any_of_a_hundred_kills() {
    needs_kvm!();
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64;
    println!("the moments follow from {seed}");
    let mut random = seed | 1;
    let place = Arc::new(new_place());
    let disk = place.path().join("disk.img");
    let file = File::create(&disk).expect("the disk is made");
    file.set_len(DISK).expect("the disk has room");
    let store = Service::new("kv").in_place(&place).disk(&disk);
    let mut model = Model::new();
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let mut running = store.clone().start(Kind::Slice);
        check(running.tcp(), &mut model);
        let address = running.tcp();
        let monitor = running.monitors()[0];
        random = after(random);
        let moment = Duration::from_micros(random % 60_000);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let mine = model.range((client, 0)..(client + 1, 0));
                    let mine: Model = mine.map(|(key, known)| (*key, *known)).collect();
                    scope.spawn(move || write(address, client, mine))
                })
                .collect();
            thread::sleep(moment);
            kill_process(monitor, Signal::KILL).expect("it is there");
            for client in clients {
                let (count, known) = client.join().expect("a client does not panic");
                acknowledged += count;
                model.extend(known);
            }
        });
        let ended = running.wait();
        assert_eq!(ended.code(), Some(125), "kill {kill}: {}", running.errors());
    }
    check(store.start(Kind::Slice).tcp(), &mut model);
    println!("{acknowledged} writes were acknowledged");
    // A client sends that many at once: more often than not some were.
    assert!(acknowledged >= KILLS * TOGETHER as usize, "{acknowledged}");
}

/// Asserts that every key has one of the values that it may have. From now on it is the one.
fn check(address: SocketAddr, model: &mut Model) {
    let mut client = Kv::connect(address).expect("it listens");
    let mut names = client.keys();
    names.sort();
    for name in &names {
        let of = |key: &(u32, u32)| name_of(*key) == *name;
        assert!(model.keys().any(of), "{} was made up", name.escape_ascii());
    }
    for (key, known) in model {
        let value = client.get(&name_of(*key));
        let found = value.map_or(0, |value| {
            let number = value
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes));
            assert!(value == value_of(number), "{key:?}: {number} is garbled");
            number
        });
        let possible = known.acknowledged..=known.last;
        assert!(
            possible.contains(&found),
            "{key:?} is {found}, and not of {possible:?}"
        );
        *known = Known {
            acknowledged: found,
            last: found,
        };
    }
}

/// Writes until the store is gone; how many writes were acknowledged, and what is known now.
fn write(address: SocketAddr, client: u32, mut model: Model) -> (usize, Model) {
    let mut acknowledged = 0;
    let Ok(mut store) = Kv::connect(address) else {
        return (acknowledged, model);
    };
    for round in 0.. {
        let keys = (0..TOGETHER).map(|part| (client, (round * TOGETHER + part) % KEYS));
        let keys: Vec<_> = keys.collect();
        for key in &keys {
            let known = model.entry(*key).or_default();
            known.last += 1;
            let value = value_of(known.last);
            if store.send(&[b"SET", &name_of(*key), &value]).is_err() {
                return (acknowledged, model);
            }
        }
        for key in &keys {
            match store.receive() {
                Ok(Reply::Simple(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(_) => return (acknowledged, model),
            }
            let known = model.entry(*key).or_default();
            known.acknowledged = known.last;
            acknowledged += 1;
        }
    }
    (acknowledged, model)
}

fn name_of((client, key): (u32, u32)) -> Vec<u8> {
    format!("client {client} key {key}").into_bytes()
}

/// The number, and bytes that only this number is followed by: up to 4000.
fn value_of(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = random % 4000;
    while (value.len() as u64) < length {
        random = after(random);
        value.extend(random.to_le_bytes());
    }
    value
}

/// Marsaglia's xorshift, 64 bits.
fn after(mut random: u64) -> u64 {
    random ^= random << 13;
    random ^= random >> 7;
    random ^ random << 17
}
