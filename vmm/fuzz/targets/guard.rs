//! Frames in both directions, read and judged by a guard: what passes is the sliver's own.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use vmm::nanos::Nanos;
use vmm::net::flows::Acquaintance;
use vmm::net::guard::{Card, Guard, Verdict};
use vmm::net::packet::{HEAD_BYTES, Kind, Packet, Transport};
use vmm::spec::SliverSpec;
use vmm_fuzz::Unstructured;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// A sliver with an address of its own, and one that gets its address by DHCP.
static SPECS: LazyLock<[SliverSpec; 2]> = LazyLock::new(|| {
    [
        r#""ipv4": "10.0.2.15/24", "gateway4": "10.0.2.2", "ipv6": "fd00::15/64""#,
        r#""dhcp": true"#,
    ]
    .map(|card| {
        let text = format!(
            r#"{{"version": 1, "name": "f", "slice": "f_z", "owner": "o", "contact": "c",
                "image": "/i", "nets": [{{"mac": "02:00:00:00:00:07", {card}}}]}}"#
        );
        SliverSpec::parse(text.as_bytes()).expect("the spec is right")
    })
});

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(input: &mut Unstructured) -> Result<()> {
    let spec = &SPECS[usize::from(input.arbitrary::<bool>()?)];
    let mut guard = Guard::new(spec.guard(), spec.nets().iter().map(Card::new).collect());
    let mut now = Nanos::ZERO;
    while !input.is_empty() {
        let (how, wait, more, len) = input.arbitrary::<(u8, u16, u16, u16)>()?;
        now = now + Nanos::from_millis(wait.into());
        let (sent, more) = (how & 1 != 0, usize::from(more));
        let flow = match how & 0xa {
            0 => Acquaintance::New,
            8 => Acquaintance::Unanswered,
            _ => Acquaintance::Answered,
        };
        let len = usize::from(len).min(HEAD_BYTES).min(input.len());
        let mut head = input.bytes(len)?.to_vec();
        if let (true, Some(source)) = (how & 4 != 0, head.get_mut(6..12)) {
            source.copy_from_slice(&MAC);
        }
        let packet = Packet::parse(&head, head.len() + more);
        if sent {
            if guard.outgoing(0, &packet, flow, now) == Verdict::Pass {
                sound(&packet);
            }
            let mut out = [0; 160];
            if let Some(len) = guard.answer(0, &head, &packet, now, &mut out) {
                let told = Packet::parse(&out[..len], len);
                assert!(matches!(told.kind, Kind::Ip(_)), "{told:?}");
            }
        } else if guard.incoming(0, &packet) == Verdict::Pass {
            guard.learn(0, &packet, &head);
        }
    }
    Ok(())
}

/// What holds for all that passes, whatever the guard has learned.
fn sound(packet: &Packet) {
    assert_eq!(packet.source_mac, MAC);
    match packet.kind {
        Kind::Ip(datagram) => {
            assert!(!datagram.source.is_multicast() && !datagram.destination.is_unspecified());
            assert!(datagram.header_bytes <= packet.frame_bytes);
            if let Transport::Tcp {
                source,
                destination,
                ..
            }
            | Transport::Udp {
                source,
                destination,
            } = datagram.transport
            {
                assert!(source != 0 && destination != 0);
            }
        }
        Kind::Arp(arp) => assert_eq!(arp.sender_mac, MAC),
        Kind::Other(_) | Kind::Malformed(_) => panic!("{packet:?} has passed"),
    }
}
