//! Frames of any bytes through the translation of ports, both ways: nothing but ports and checksums
//! changes, and a port outside is one of the range.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use vmm::nanos::Nanos;
use vmm::net::packet::{HEAD_BYTES, Packet};
use vmm::net::ports::{PortMap, PortRange};
use vmm_fuzz::Unstructured;

const CARD: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 2, 15), 24);

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let range = PortRange::new(20_000, 20_031).expect("a range");
    let mut ports = PortMap::new(range, &[CARD], 7);
    let mut now = Nanos::ZERO;
    // At its end there are zeros without end.
    while !input.is_empty() {
        let Ok((how, wait, len)) = input.arbitrary::<(u8, u8, u8)>() else {
            return;
        };
        let len = usize::from(len).min(HEAD_BYTES).min(input.len());
        let Ok(bytes) = input.bytes(len) else {
            return;
        };
        let mut head = bytes.to_vec();
        let packet = Packet::parse(&head, head.len());
        let partial = how & 1 != 0;
        now = now + Nanos::from_millis(u64::from(wait) * 1000);
        if how & 2 == 0 {
            if let Ok(Some(port)) = ports.outgoing(&mut head, &packet, partial, now) {
                assert!(range.contains(port));
            }
        } else if !ports.incoming(&mut head, &packet, partial, now) {
            assert_eq!(head, bytes);
        }
        assert_eq!(head.len(), bytes.len());
        let changed = head.iter().zip(bytes).filter(|(now, then)| now != then);
        // A port, its checksum, and that of the error which quotes them.
        assert!(changed.count() <= 6);
        for table in ports.in_use(now) {
            assert!(table <= range.count());
        }
    }
});
