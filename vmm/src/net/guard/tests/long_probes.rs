//! What is sent for days to somebody who has not agreed to it.

use super::*;

const DAY: u64 = 86_400;

/// Sends a frame every two seconds for so many days: how often it passed, and who was told of.
fn sent_for(days: u64, frame: &[u8], flow: Acquaintance) -> (u64, Vec<IpAddr>) {
    let guard = &mut usual("");
    let mut passed = 0;
    for second in (0..days * DAY).step_by(2) {
        let flow = if second == 0 { Acquaintance::New } else { flow };
        passed += u64::from(judged_of(guard, frame, flow, second * SECOND).is_none());
    }
    (passed, guard.take_probed())
}

#[test]
fn a_forgotten_ping_is_slowed_after_two_days_though_it_is_answered() {
    let echo = ip4(ME, PUBLIC, protocol::ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
    let (passed, told) = sent_for(14, &echo, Acquaintance::Answered);
    assert_eq!(told, [IpAddr::from(PUBLIC)]);
    let (two_days, slowed) = (2 * 43_200, 12 * 1440);
    assert!(
        (two_days..=two_days + slowed + 1).contains(&passed),
        "{passed}"
    );
}

#[test]
fn datagrams_that_nobody_answers_are_probes_though_they_are_one_flow() {
    let frame = datagram(PUBLIC);
    let (passed, told) = sent_for(3, &frame, Acquaintance::Unanswered);
    assert_eq!(told, [IpAddr::from(PUBLIC)]);
    let (two_days, slowed) = (2 * 43_200, 1440);
    assert!(
        (two_days..=two_days + slowed + 1).contains(&passed),
        "{passed}"
    );
}

#[test]
fn a_conversation_may_last_as_long_as_it_likes() {
    let mut later = datagram(PUBLIC);
    later[14 + 7] = 1;
    for (frame, flow) in [
        (datagram(PUBLIC), Acquaintance::Answered),
        // The rest of a datagram whose first fragment is of a flow that may have its answers.
        (later, Acquaintance::Unanswered),
    ] {
        assert_eq!(sent_for(3, &frame, flow), (3 * 43_200, vec![]));
    }
}
