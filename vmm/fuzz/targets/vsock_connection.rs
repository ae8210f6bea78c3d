//! One connection of a vsock, both of whose ends do as they like; and the line by which a program
//! asks for one.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use vmm::devices::virtio::vsock::connection::{Arrival, Connection, Ports};
use vmm::devices::virtio::vsock::credit::BUFFER_BYTES;
use vmm::devices::virtio::vsock::handshake::{Ask, LONGEST_LINE, parse};
use vmm::devices::virtio::vsock::packet::{HEADER_BYTES, Header};
use vmm_fuzz::Unstructured;

const CID: u64 = 3;

fuzz_target!(|data: &[u8]| {
    if let Ask::Port { line, .. } = parse(data) {
        assert!(line <= LONGEST_LINE && data[line - 1] == b'\n');
    }
    let _ = run(&mut Unstructured::new(data));
});

fn header(input: &mut Unstructured) -> Result<Header> {
    let mut raw = [0; HEADER_BYTES];
    input.fill_buffer(&mut raw)?;
    let mut header = Header::parse(&raw);
    assert_eq!(header.encode(), raw);
    header.raw_op %= 9;
    if input.ratio(3, 4)? {
        header.len %= BUFFER_BYTES;
    }
    Ok(header)
}

fn run(input: &mut Unstructured) -> Result<()> {
    let ports = Ports {
        host: input.arbitrary()?,
        guest: input.arbitrary()?,
    };
    let mut connection = match input.arbitrary()? {
        true => Connection::accepted(ports, &header(input)?),
        false => Connection::asking(ports),
    };
    while !input.is_empty() {
        match input.arbitrary::<u8>()? % 8 {
            0..=2 => {
                let header = header(input)?;
                let Some(op) = header.op() else { continue };
                match connection.receive(&header, op) {
                    Err(_) | Ok(Arrival::Gone) => return Ok(()),
                    Ok(Arrival::Data) => assert!(connection.is_open()),
                    Ok(_) => {}
                }
            }
            3 => {
                let bytes = input.int_in_range(0..=connection.held())?;
                connection.forward(bytes);
            }
            4 => connection.shut_host(u32::from(input.arbitrary::<u8>()? % 4)),
            5 => connection.miss_room(),
            6 => {
                let owes = connection.owes();
                let paid = connection.pay(CID);
                assert_eq!(owes, paid.is_some());
            }
            _ => {
                let len = input.int_in_range(0..=connection.room())?;
                if len > 0 {
                    let before = connection.room();
                    connection.send(CID, len);
                    assert_eq!(connection.room(), before - len);
                }
            }
        }
        assert!(connection.held() <= BUFFER_BYTES);
        // What is owed is owed a finite number of times.
        for _ in 0..8 {
            if connection.clone().pay(CID).is_none() {
                break;
            }
        }
    }
    for turn in 0.. {
        if connection.pay(CID).is_none() {
            break;
        }
        assert!(turn < 8, "it owes packets without end");
    }
    Ok(())
}
