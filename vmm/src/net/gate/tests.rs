use super::*;
use crate::control::proto::{FlowEnd, Opened};

const SECOND: u64 = 1_000_000_000;

fn gate(fields: &str) -> Gate {
    let spec = format!(
        r#"{{"version":1,"name":"a","slice":"a_b","owner":"o","contact":"c","image":"/i"{fields},
            "nets":[{{"mac":"02:00:00:00:00:07","ipv4":"10.0.2.15/24","gateway4":"10.0.2.2"}}]}}"#
    );
    let spec = SliverSpec::parse(spec.as_bytes()).unwrap();
    Gate::new(&spec, 5, Nanos(0), Nanos(1000 * SECOND))
}

/// A datagram of UDP that fills a frame of `bytes` bytes.
fn frame(destination: [u8; 4], bytes: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 8, 0, 0x45, 0];
    frame.extend((bytes as u16 - 14).to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15]);
    frame.extend(destination);
    frame.extend([0x13, 0x88, 0, 53, 0, 8, 0, 0]);
    frame.resize(bytes, 0);
    frame
}

/// The same on its way back.
fn answer(source: [u8; 4], bytes: usize) -> Vec<u8> {
    let mut frame = frame(source, bytes);
    frame[26..34].rotate_left(4);
    frame[34..38].rotate_left(2);
    frame
}

fn send(gate: &mut Gate, frame: &mut [u8], now: u64) -> Result<bool, Held> {
    let (now, bytes) = (Nanos(now), frame.len());
    match gate.judge(0, frame, bytes, Segments::default(), now) {
        Judged::Drop => Ok(false),
        Judged::Pass(admitted) => {
            gate.admit(&admitted, now)?;
            gate.sent(&admitted, frame, now);
            Ok(true)
        }
    }
}

#[test]
fn what_passes_is_written_down() {
    let mut gate = gate("");
    assert_eq!(
        send(&mut gate, &mut frame([8, 8, 8, 8], 100), SECOND),
        Ok(true)
    );
    let mut back = answer([8, 8, 8, 8], 200);
    assert!(gate.received(0, &mut back, 200, Segments::default(), Nanos(2 * SECOND)));
    assert_eq!(gate.status().flows, 1);
    gate.stop_flows();
    let batch = gate.take_flows(0, 10, Nanos(3 * SECOND));
    let record = batch.records[0];
    assert_eq!((record.first_ms, record.last_ms), (1_001_000, 1_002_000));
    assert_eq!((record.tx_bytes, record.rx_bytes), (100, 200));
    assert_eq!((record.inside_port, record.remote_port), (5000, 53));
    assert_eq!((record.opened, record.end), (Opened::Out, FlowEnd::Stopped));
    assert_eq!(gate.take_flows(1, 10, Nanos(3 * SECOND)).records, []);
    assert_eq!((gate.status().tx_bytes, gate.status().rx_bytes), (100, 200));
}

#[test]
fn what_is_dropped_is_told_to_the_guest_and_in_events() {
    let mut gate = gate("");
    for _ in 0..3 {
        assert_eq!(
            send(&mut gate, &mut frame([192, 168, 1, 1], 100), SECOND),
            Ok(false)
        );
    }
    let events = gate.events_after(0, Nanos::NEVER).events;
    let told: Vec<_> = { events.iter() }
        .map(|event| (event.kind.as_str(), event.detail.as_str(), event.count))
        .collect();
    assert_eq!(told, [("drop", "bogon", 3)]);
    assert_eq!(gate.status().dropped["bogon"], 3);
    assert!(gate.has_reply(0) && !gate.has_reply(1));
    assert_eq!(gate.take_reply(0).unwrap()[34..36], [3, 13]);
    assert_eq!(gate.status().tx_bytes, 0);
}

#[test]
fn a_rate_holds_frames_back_and_counts_only_what_went() {
    let mut gate = gate(r#","net_max_rate":1000,"net_burst":2"#);
    let mut now = SECOND;
    let mut sent = 0;
    while now < 11 * SECOND {
        match send(&mut gate, &mut frame([8, 8, 8, 8], 1000), now) {
            Ok(passed) => sent += u64::from(passed),
            Err(Held::Until(until)) => now = until.0,
            Err(Held::Dropped) => unreachable!("nothing else waits"),
        }
    }
    assert!((1250..=1253).contains(&sent), "{sent}");
    assert_eq!(gate.status().tx_bytes, sent * 1000);
}

#[test]
fn with_a_strict_audit_nothing_passes_that_nobody_takes_down() {
    let mut gate = gate(
        r#","guard":{"strict_audit":true,"destinations_per_hour":100000,
        "flows_per_second":1000000}"#,
    );
    let mut passed = 0;
    for number in 0..30_000u32 {
        let [_, _, b, c] = number.to_be_bytes();
        passed += u32::from(send(&mut gate, &mut frame([8, 8, b, c], 100), SECOND) == Ok(true));
    }
    assert!((8_000..=4 * 4096).contains(&passed), "{passed}");
    assert_eq!(gate.status().lost.flows, 0);
    let events = gate.events_after(0, Nanos::NEVER).events;
    assert!(events.iter().any(|event| event.kind == "not_audited"));
    // Somebody does.
    loop {
        let batch = gate.take_flows(0, 1000, Nanos(SECOND));
        if batch.records.is_empty() {
            break;
        }
        let next = batch.first + batch.records.len() as u64;
        gate.take_flows(next, 0, Nanos(SECOND));
    }
    assert_eq!(
        send(&mut gate, &mut frame([8, 8, 8, 8], 100), SECOND),
        Ok(true)
    );
}

#[test]
fn a_capture_has_what_passed_and_nothing_else() {
    let mut gate = gate("");
    assert_eq!(gate.take_captured(), None);
    gate.begin_capture(64);
    send(&mut gate, &mut frame([8, 8, 8, 8], 100), SECOND).unwrap();
    send(&mut gate, &mut frame([192, 168, 1, 1], 100), SECOND).unwrap();
    let captured = gate.take_captured().unwrap();
    assert_eq!(captured.hex.len(), 2 * (16 + 64));
    gate.end_capture();
    assert_eq!(gate.take_captured(), None);
}

#[test]
fn a_checksum_goes_nowhere_but_where_it_belongs() {
    let mut gate = gate("");
    let mut judged = |checksum| {
        let segments = Segments { size: 0, checksum };
        gate.judge(
            0,
            &mut frame([8, 8, 8, 8], 100),
            100,
            segments,
            Nanos(SECOND),
        )
    };
    assert!(matches!(judged(Some((34, 40))), Judged::Pass(_)));
    // Over the source port, over the address, from elsewhere.
    for wrong in [(34, 34), (14, 26), (35, 41), (34, 50)] {
        assert_eq!(judged(Some(wrong)), Judged::Drop, "{wrong:?}");
    }
}

#[test]
fn ports_outside_are_of_the_slivers_range_and_in_its_records() {
    let mut gate = gate(r#","public":{"ports":"20000-20099"}"#);
    let mut out = frame([8, 8, 8, 8], 100);
    assert_eq!(send(&mut gate, &mut out, SECOND), Ok(true));
    let outside = u16::from_be_bytes([out[34], out[35]]);
    assert!((20_000..=20_099).contains(&outside), "{outside}");
    let mut back = answer([8, 8, 8, 8], 100);
    back[36..38].copy_from_slice(&outside.to_be_bytes());
    assert!(gate.received(0, &mut back, 100, Segments::default(), Nanos(SECOND)));
    assert_eq!(back[36..38], 5000_u16.to_be_bytes());
    gate.stop_flows();
    let record = gate.take_flows(0, 10, Nanos(SECOND)).records[0];
    assert_eq!(
        (record.inside_port, record.outside_port),
        (5000, Some(outside))
    );
    assert_eq!((record.tx_packets, record.rx_packets), (1, 1));
}

/// Why frames were dropped.
fn dropped(gate: &Gate) -> Vec<(String, u64)> {
    gate.status().dropped.into_iter().collect()
}

/// A frame that nobody can read: with a tag of a network without a number, which its receiver takes
/// away, or with a length that contradicts the frame's.
fn unreadable(destination: [u8; 4]) -> [Vec<u8>; 2] {
    let mut tagged = frame(destination, 100);
    tagged.splice(12..12, [0x81, 0, 0, 0]);
    let mut flawed = frame(destination, 100);
    flawed[38..40].copy_from_slice(&5000_u16.to_be_bytes());
    [tagged, flawed]
}

#[test]
fn who_must_read_frames_drops_what_cannot_be_read_in_any_mode() {
    for mode in ["report", "off"] {
        for guard in [
            r#""blocked":["8.8.8.8"]"#.to_owned(),
            r#""strict_audit":true"#.to_owned(),
        ] {
            let mut gate = gate(&format!(r#","guard":{{"mode":"{mode}",{guard}}}"#));
            for mut frame in unreadable([8, 8, 8, 8]) {
                assert_eq!(send(&mut gate, &mut frame, SECOND), Ok(false), "{mode}");
            }
        }
        // Whoever only looks on lets them pass.
        let mut gate = gate(&format!(r#","guard":{{"mode":"{mode}"}}"#));
        for mut frame in unreadable([8, 8, 8, 8]) {
            assert_eq!(send(&mut gate, &mut frame, SECOND), Ok(true), "{mode}");
        }
        gate.set_blocks(&["8.8.8.8".parse().unwrap()]);
        for mut frame in unreadable([8, 8, 8, 8]) {
            assert_eq!(send(&mut gate, &mut frame, SECOND), Ok(false), "{mode}");
        }
        assert_eq!(
            dropped(&gate).iter().map(|(_, count)| count).sum::<u64>(),
            2
        );
    }
}

#[test]
fn only_tcp_is_cut_into_segments() {
    let mut gate = gate(r#","guard":{"mode":"off"}"#);
    let segments = Segments {
        size: 100,
        ..Segments::default()
    };
    let mut datagram = frame([8, 8, 8, 8], 1000);
    let judged = gate.judge(0, &mut datagram, 1000, segments, Nanos(SECOND));
    assert_eq!(judged, Judged::Drop);
    assert_eq!(dropped(&gate), [("segments".to_owned(), 1)]);
}

#[test]
fn a_frame_that_waited_does_not_go_where_was_blocked_meanwhile() {
    let mut gate = gate(r#","net_max_rate":8,"net_burst":2"#);
    let mut frame = frame([8, 8, 8, 8], 1000);
    for _ in 0..2 {
        assert_eq!(send(&mut gate, &mut frame, SECOND), Ok(true));
    }
    let bytes = frame.len();
    let judged = gate.judge(0, &mut frame, bytes, Segments::default(), Nanos(SECOND));
    let Judged::Pass(admitted) = judged else {
        panic!("it may go");
    };
    assert!(matches!(
        gate.admit(&admitted, Nanos(SECOND)),
        Err(Held::Until(_))
    ));
    gate.set_blocks(&["8.8.8.0/24".parse().unwrap()]);
    let later = Nanos(10 * SECOND);
    assert_eq!(gate.admit(&admitted, later), Err(Held::Dropped));
    assert_eq!(gate.status().tx_bytes, 2000);
}

#[test]
fn what_has_no_room_in_the_day_is_not_in_the_way_of_exempt_traffic_or_of_the_link() {
    let mut gate = gate(
        r#","net_max_kbyte":1,"net_thresh_kbyte":1,"net_exempt":["9.9.9.0/24"],
        "guard":{"mode":"off"}"#,
    );
    assert_eq!(
        send(&mut gate, &mut frame([8, 8, 8, 8], 1000), SECOND),
        Ok(true)
    );
    assert_eq!(
        send(&mut gate, &mut frame([8, 8, 8, 8], 1000), SECOND),
        Err(Held::Dropped)
    );
    assert_eq!(
        send(&mut gate, &mut frame([9, 9, 9, 9], 1000), SECOND),
        Ok(true)
    );
    let mut arp = vec![255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6];
    arp.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 10, 0, 2, 15]);
    arp.extend([0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    arp.resize(60, 0);
    assert_eq!(send(&mut gate, &mut arp, SECOND), Ok(true));
    assert_eq!(gate.status().used_today, 1000);
    assert_eq!(dropped(&gate), [("allowance".to_owned(), 1)]);
    let events = gate.events_after(0, Nanos::NEVER).events;
    assert!(events.iter().any(|event| event.kind == "cap"), "{events:?}");
}

#[test]
fn who_has_no_exempt_destinations_waits_for_the_next_day() {
    let mut gate = gate(r#","net_max_kbyte":1,"net_thresh_kbyte":1"#);
    assert_eq!(
        send(&mut gate, &mut frame([8, 8, 8, 8], 1000), SECOND),
        Ok(true)
    );
    let held = send(&mut gate, &mut frame([8, 8, 8, 8], 1000), SECOND);
    assert!(matches!(held, Err(Held::Until(_))), "{held:?}");
    // A card that is reset waits for nothing.
    assert!(gate.sending().waits_now);
    gate.stop_waiting();
    assert!(!gate.sending().waits_now);
}

#[test]
fn where_ports_are_translated_nothing_leaves_whose_ports_are_not() {
    let mut gate = gate(r#","public":{"ports":"20000-20015"},"guard":{"mode":"off"}"#);
    let mut sctp = frame([8, 8, 8, 8], 100);
    sctp[23] = 132;
    assert_eq!(send(&mut gate, &mut sctp, SECOND), Ok(false));
    assert_eq!(dropped(&gate), [("untranslated".to_owned(), 1)]);
}
