use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::net::packet::protocol::{TCP, UDP};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

fn out(protocol: u8, port: u16) -> Tuple {
    Tuple {
        source: INSIDE.into(),
        destination: REMOTE.into(),
        protocol,
        source_port: port,
        destination_port: 53,
    }
}

fn answer(to: Tuple) -> Tuple {
    Tuple {
        source: to.destination,
        destination: to.source,
        protocol: to.protocol,
        source_port: to.destination_port,
        destination_port: to.source_port,
    }
}

fn passed(tcp_flags: u8, packets: u32, bytes: u64) -> Passed {
    Passed {
        outside_port: None,
        tcp_flags,
        packets,
        bytes,
    }
}

fn knows(table: &FlowTable, tuple: &Tuple, direction: Direction) -> bool {
    table.seek(tuple, direction).acquaintance() != Acquaintance::New
}

/// A table that is spoken through by hand.
struct Talk {
    table: FlowTable,
    now: Nanos,
}

impl Talk {
    fn new(capacity: usize) -> Self {
        Self {
            table: FlowTable::new(capacity, 7),
            now: seconds(1000),
        }
    }

    fn sends(&mut self, tuple: Tuple, flags: u8) {
        let passed = Passed {
            outside_port: Some(20_001),
            ..passed(flags, 1, 100)
        };
        let sought = self.table.seek(&tuple, Direction::Out);
        self.table.record(&sought, &passed, self.now);
    }

    fn hears(&mut self, tuple: Tuple, flags: u8) {
        let sought = self.table.seek(&answer(tuple), Direction::In);
        self.table.record(&sought, &passed(flags, 1, 60), self.now);
    }

    fn after(&mut self, span: u64) {
        self.now = self.now + seconds(span);
        self.table.sweep(self.now);
    }

    /// The records that wait, acknowledged.
    fn take(&mut self) -> Vec<Flow> {
        let (first, flows) = self.table.batch(usize::MAX);
        self.table.acknowledge(first + flows.len() as u64);
        flows
    }

    fn ends(&mut self) -> Vec<End> {
        self.take().iter().map(|flow| flow.end).collect()
    }
}

#[test]
fn both_directions_are_one_record_from_the_slivers_view() {
    let mut talk = Talk::new(8);
    talk.sends(out(UDP, 1), 0);
    talk.hears(out(UDP, 1), 0);
    assert!(knows(&talk.table, &out(UDP, 1), Direction::Out));
    assert!(knows(&talk.table, &answer(out(UDP, 1)), Direction::In));
    assert!(!knows(&talk.table, &out(UDP, 1), Direction::In));
    talk.table.stop();
    let expected = Flow {
        first: talk.now,
        last: talk.now,
        protocol: UDP,
        inside: INSIDE.into(),
        inside_port: 1,
        outside_port: Some(20_001),
        remote: REMOTE.into(),
        remote_port: 53,
        opened: Direction::Out,
        tx_packets: 1,
        tx_bytes: 100,
        rx_packets: 1,
        rx_bytes: 60,
        end: End::Stopped,
    };
    assert_eq!(talk.take(), [expected]);
    assert!(talk.table.is_empty());
}

#[test]
fn addresses_of_both_kinds_come_back_as_they_went_in() {
    let six: IpAddr = "2001:db8::7".parse().expect("an address");
    let mapped: IpAddr = "::ffff:192.0.2.7".parse().expect("an address");
    for remote in [six, mapped] {
        let mut table = FlowTable::new(8, 7);
        let tuple = Tuple {
            source: six,
            destination: remote,
            ..out(UDP, 1)
        };
        let sought = table.seek(&tuple, Direction::Out);
        table.record(&sought, &passed(0, 1, 1), Nanos::ZERO);
        table.stop();
        let (_, flows) = table.batch(1);
        assert_eq!((flows[0].inside, flows[0].remote), (six, remote));
    }
}

#[test]
fn an_echo_and_its_answer_are_one_flow() {
    let mut talk = Talk::new(8);
    let echo = Tuple {
        destination_port: 0,
        ..out(1, 77)
    };
    talk.sends(echo, 0);
    let reply = Tuple {
        source: echo.destination,
        destination: echo.source,
        ..echo
    };
    assert!(knows(&talk.table, &reply, Direction::In));
    assert!(knows(&talk.table, &answer(echo), Direction::In));
    talk.table.stop();
    let flows = talk.take();
    assert_eq!((flows[0].inside_port, flows[0].remote_port), (77, 0));
}

#[test]
fn a_flow_that_lasts_is_told_each_minute_and_stays_known() {
    let mut talk = Talk::new(8);
    for _ in 0..130 {
        talk.sends(out(UDP, 1), 0);
        talk.after(1);
    }
    let flows = talk.take();
    assert_eq!(flows.len(), 2);
    assert!(flows.iter().all(|flow| flow.end == End::Cut));
    assert!(flows.iter().all(|flow| flow.tx_packets == 60));
    assert_eq!(flows[1].first - flows[0].first, seconds(60));
    assert!(knows(&talk.table, &out(UDP, 1), Direction::Out));
}

#[test]
fn silence_ends_a_flow_when_its_protocol_allows_no_more() {
    let mut talk = Talk::new(8);
    talk.sends(out(UDP, 1), 0);
    talk.sends(out(UDP, 2), 0);
    talk.hears(out(UDP, 2), 0);
    talk.sends(out(TCP, 3), SYN);
    talk.hears(out(TCP, 3), SYN | ACK);
    talk.after(59);
    assert_eq!(talk.ends(), []);
    talk.after(1);
    assert_eq!(talk.ends(), [End::Idle, End::Cut, End::Cut]);
    talk.after(240);
    assert_eq!(talk.table.len(), 1, "the datagrams are over");
    assert_eq!(talk.ends(), [], "nothing new is to be told of them");
    assert!(knows(&talk.table, &out(TCP, 3), Direction::Out));
    talk.after(7200);
    assert!(talk.table.is_empty());
}

#[test]
fn a_connection_is_over_soon_after_both_have_closed_it() {
    let mut talk = Talk::new(8);
    talk.sends(out(TCP, 1), SYN);
    talk.hears(out(TCP, 1), SYN | ACK);
    talk.sends(out(TCP, 1), FIN | ACK);
    talk.after(30);
    assert_eq!(talk.ends(), []);
    talk.hears(out(TCP, 1), FIN | ACK);
    talk.sends(out(TCP, 1), ACK);
    talk.after(10);
    let flows = talk.take();
    assert_eq!(flows.len(), 1);
    assert_eq!((flows[0].end, flows[0].tx_packets), (End::Closed, 3));
}

#[test]
fn a_port_that_is_used_again_at_once_is_another_flow() {
    let mut talk = Talk::new(8);
    talk.sends(out(TCP, 1), SYN);
    talk.hears(out(TCP, 1), RST | ACK);
    talk.sends(out(TCP, 1), SYN);
    assert_eq!(talk.ends(), [End::Closed]);
    assert_eq!(talk.table.len(), 1);
}

#[test]
fn who_answers_has_not_begun_it() {
    let mut talk = Talk::new(8);
    talk.sends(out(TCP, 1), SYN | ACK);
    talk.hears(out(TCP, 2), SYN);
    talk.hears(out(TCP, 3), SYN | ACK);
    talk.table.stop();
    let opened: Vec<_> = talk.take().iter().map(|flow| flow.opened).collect();
    assert_eq!(opened, [Direction::In, Direction::In, Direction::Out]);
}

#[test]
fn a_full_table_gives_up_the_flow_that_was_silent_for_longest() {
    let mut talk = Talk::new(3);
    for port in [1, 2, 3] {
        talk.sends(out(UDP, port), 0);
        talk.after(1);
    }
    talk.hears(out(UDP, 1), 0);
    talk.after(1);
    talk.sends(out(UDP, 4), 0);
    let flows = talk.take();
    assert_eq!(flows.len(), 1);
    assert_eq!((flows[0].inside_port, flows[0].end), (2, End::Evicted));
    assert_eq!(talk.table.len(), 3);
}

#[test]
fn what_nobody_takes_is_counted_as_lost() {
    let mut talk = Talk::new(2);
    for port in 1..=10 {
        talk.sends(out(UDP, port), 0);
    }
    assert_eq!(talk.table.ended(), 4);
    let lost = LostFlows {
        flows: 4,
        packets: 4,
        bytes: 400,
    };
    assert_eq!(talk.table.lost(), lost);
    let (first, flows) = talk.table.batch(3);
    assert_eq!((first, flows.len()), (0, 3));
    talk.table.acknowledge(3);
    let (first, flows) = talk.table.batch(3);
    assert_eq!((first, flows[0].inside_port), (3, 4));
    talk.table.acknowledge(2);
    assert_eq!(
        talk.table.ended(),
        1,
        "what was known already changes nothing"
    );
    talk.table.acknowledge(u64::MAX);
    assert_eq!(talk.table.batch(1).0, 4);
}

#[derive(Debug, Clone)]
enum Step {
    Packet(bool, bool, (u8, u16), u8, u16),
    Pass(u64),
    Take(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let protocol = prop::sample::select(vec![1_u8, TCP, UDP, 47]);
    let flags = prop::sample::select(vec![0, SYN, SYN | ACK, ACK, FIN | ACK, RST]);
    let kind = (protocol, 0..12_u16);
    let packet = (any::<bool>(), any::<bool>(), kind, flags, 1..2000_u16)
        .prop_map(|(sent, late, kind, flags, bytes)| Step::Packet(sent, late, kind, flags, bytes));
    let step = prop_oneof![
        8 => packet,
        2 => (0..90_u64).prop_map(Step::Pass),
        1 => (0..8_usize).prop_map(Step::Take),
    ];
    prop::collection::vec(step, 0..300)
}

/// Plays the steps; with `strict` nothing passes while the table is full. Recorded, given out.
fn play(steps: Vec<Step>, capacity: usize, strict: bool) -> (FlowTable, [u64; 2], Vec<Flow>) {
    let mut talk = Talk::new(capacity);
    let (mut recorded, mut given, mut waiting) = ([0, 0], Vec::new(), None);
    for step in steps {
        match step {
            Step::Packet(sent, late, (protocol, port), flags, bytes) => {
                if strict && talk.table.is_full() {
                    continue;
                }
                let (direction, tuple) = match sent {
                    true => (Direction::Out, out(protocol, port)),
                    false => (Direction::In, answer(out(protocol, port))),
                };
                let bytes = u64::from(bytes);
                // It waits for its rate while others pass: what was looked up may be old.
                let sought = talk.table.seek(&tuple, direction);
                let (sought, tuple, direction) = match late {
                    true => waiting.replace((sought, tuple, direction)),
                    false => Some((sought, tuple, direction)),
                }
                .unwrap_or((sought, tuple, direction));
                let passed = passed(flags, 2, bytes);
                talk.table.record(&sought, &passed, talk.now);
                assert!(knows(&talk.table, &tuple, direction));
                recorded[0] += 2;
                recorded[1] += bytes;
            }
            Step::Pass(span) => talk.after(span),
            Step::Take(max) => {
                let (first, flows) = talk.table.batch(max);
                talk.table.acknowledge(first + flows.len() as u64);
                given.extend(flows);
            }
        }
        assert!(talk.table.len() <= capacity && talk.table.ended() <= 2 * capacity);
    }
    (talk.table, recorded, given)
}

fn sum(flows: &[Flow]) -> [u64; 2] {
    flows.iter().fold([0, 0], |[packets, bytes], flow| {
        [
            packets + flow.tx_packets + flow.rx_packets,
            bytes + flow.tx_bytes + flow.rx_bytes,
        ]
    })
}

fn in_table(table: &FlowTable) -> [u64; 2] {
    let there: Vec<Flow> = (0..table.entries.len() as u32)
        .filter(|place| !table.free.contains(place))
        .map(|place| { table.entries[place as usize] }.take(End::Cut))
        .collect();
    sum(&there)
}

proptest! {
    #[test]
    fn what_was_recorded_is_given_out_or_lost_or_still_there(
        steps in steps(),
        capacity in 1..8_usize,
    ) {
        let (table, recorded, mut given) = play(steps, capacity, false);
        given.extend(table.batch(usize::MAX).1);
        let (out, still, lost) = (sum(&given), in_table(&table), table.lost());
        prop_assert_eq!(recorded[0], out[0] + still[0] + lost.packets);
        prop_assert_eq!(recorded[1], out[1] + still[1] + lost.bytes);
        prop_assert!(given.iter().all(|flow| flow.first <= flow.last));
    }

    #[test]
    fn nothing_is_lost_if_nothing_passes_while_it_is_full(
        steps in steps(),
        capacity in 1..8_usize,
    ) {
        let (mut table, recorded, mut given) = play(steps, capacity, true);
        table.stop();
        given.extend(table.batch(usize::MAX).1);
        prop_assert_eq!(table.lost(), LostFlows::default());
        prop_assert_eq!(recorded, sum(&given));
    }
}

#[test]
fn many_flows_are_all_found_again() {
    let mut table = FlowTable::new(20_000, 99);
    for port in 0..20_000 {
        let sought = table.seek(&out(UDP, port), Direction::Out);
        table.record(&sought, &passed(0, 1, 1), Nanos(1));
    }
    assert!((0..20_000).all(|port| knows(&table, &out(UDP, port), Direction::Out)));
    table.sweep(seconds(100));
    table.sweep(seconds(100));
    assert_eq!(table.len(), 20_000 - 2 * MOST_AT_ONCE, "a sweep is bounded");
    let left = (0..20_000).filter(|port| knows(&table, &out(UDP, *port), Direction::Out));
    assert_eq!(left.count(), table.len());
}

#[test]
fn a_flow_that_is_gone_since_it_was_looked_up_is_found_or_begun_anew() {
    let mut talk = Talk::new(1);
    talk.sends(out(UDP, 1), 0);
    let sought = talk.table.seek(&out(UDP, 1), Direction::Out);
    // Its place is another's now.
    talk.sends(out(UDP, 2), 0);
    talk.table.record(&sought, &passed(0, 1, 7), talk.now);
    let mut flows = talk.take();
    talk.table.stop();
    flows.extend(talk.take());
    let told: Vec<_> = { flows.iter() }
        .map(|flow| (flow.inside_port, flow.tx_bytes))
        .collect();
    assert_eq!(told, [(1, 100), (2, 100), (1, 7)]);
    // And a place that is nobody's.
    talk.table.record(&sought, &passed(0, 1, 9), talk.now);
    assert_eq!(talk.table.len(), 1);
}

#[test]
fn a_flow_is_answered_when_the_other_side_has_spoken() {
    let mut talk = Talk::new(8);
    let acquaintance = |talk: &Talk| {
        [
            (out(UDP, 1), Direction::Out),
            (answer(out(UDP, 1)), Direction::In),
        ]
        .map(|(tuple, direction)| talk.table.seek(&tuple, direction).acquaintance())
    };
    assert_eq!(acquaintance(&talk), [Acquaintance::New; 2]);
    talk.sends(out(UDP, 1), 0);
    assert_eq!(
        acquaintance(&talk),
        [Acquaintance::Unanswered, Acquaintance::Answered]
    );
    talk.hears(out(UDP, 1), 0);
    assert_eq!(acquaintance(&talk), [Acquaintance::Answered; 2]);
}
