//! Clients of the control socket that send anything, whole or in pieces, read late or never, and go
//! when they like, before a machine that only says what it would do: each whole request of a client
//! that stays gets one answer with its number, and nobody who does not read is asked on.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use vmm::control::proto::{
    Answer, MAX_FRAME, MAX_MEMORY_ACCESS, Op, Reply, Request, State, StopReason, encode_frame,
    read_frame,
};
use vmm::control::sessions::{Event, MAX_CLIENTS, Response, Sessions, Standing, Steered};
use vmm::nanos::Nanos;
use vmm::net::gate::Gate;
use vmm::net::prefix::Prefix;
use vmm::spec::{Bounds, Limits, LimitsChange, SliverSpec};
use vmm_fuzz::{Unstructured, ignore_closed_pipes, shown_in_one_line, spec};

/// Deeds in one input.
const DEEDS: usize = 128;
/// An answer of so many bytes is a large one; few find room in a socket and what may wait.
const LARGE: usize = 64 << 10;
const MOST_LARGE_UNREAD: usize = 12;
/// Bytes that a client keeps to be sent later.
const MOST_LEFT: usize = 256 << 10;
/// Rounds in which all must be answered, in the end.
const ROUNDS: usize = 2000;

static SPEC: LazyLock<SliverSpec> = LazyLock::new(|| {
    spec(&json!({
        "vcpus": 2, "nets": [{}], "disks": [{ "path": "/d" }],
        "uplink": { "interface": "eth0", "rate": 10_000 },
    }))
});

fuzz_target!(|data: &[u8]| {
    ignore_closed_pipes();
    let mut world = World {
        sessions: Sessions::default(),
        machine: Machine {
            state: State::Running,
            stop: None,
            gate: Gate::new(&SPEC, 1, Nanos(0), Nanos(0)),
            limits: Limits {
                cpu: *SPEC.cpu(),
                net: Some(SPEC.net_limits().clone()),
                disk: Some(*SPEC.disk_limits()),
            },
            debugged: false,
            large: 0,
        },
        peers: Vec::new(),
        connected: 0,
    };
    let _ = world.live(&mut Unstructured::new(data));
    world.end();
});

/// What is steered: it keeps what it is told, and acts on none of it.
struct Machine {
    state: State,
    stop: Option<StopReason>,
    gate: Gate,
    limits: Limits,
    debugged: bool,
    /// Large answers since anybody has read any.
    large: usize,
}

impl Steered for Machine {
    fn answer(&mut self, op: Op, standing: &mut Standing) -> Response {
        Response::Now(Ok(match op {
            Op::Pause => return Response::When(Event::Paused),
            Op::WaitStop => return Response::When(Event::Stopped),
            Op::Step { .. } if self.debugged => return Response::When(Event::Stepped),
            Op::Resume => {
                (self.state, self.stop) = (State::Running, None);
                Answer::Done
            }
            Op::Debug => {
                (self.debugged, standing.debugs) = (true, true);
                Answer::Done
            }
            Op::ReadMemory { len, .. } => {
                let len = len.min(MAX_MEMORY_ACCESS);
                self.large += usize::from(2 * len >= LARGE);
                Answer::Memory("0".repeat(2 * len))
            }
            Op::SetLimits(change) => return Response::Now(self.set_limits(&change)),
            Op::TakeFlows { acknowledge, max } => {
                Answer::Flows(self.gate.take_flows(acknowledge, max, Nanos(1)))
            }
            Op::TakeEvents { after } => Answer::Events(self.gate.events_after(after, Nanos(1))),
            Op::SetBlocks { prefixes } => {
                let parsed: std::result::Result<Vec<Prefix>, _> =
                    prefixes.iter().map(|text| text.parse()).collect();
                match parsed {
                    Ok(blocks) => self.gate.set_blocks(&blocks),
                    Err(why) => return Response::Now(Err(why.to_string())),
                }
                Answer::Done
            }
            Op::Capture { snaplen } => {
                standing.captures = true;
                self.gate.begin_capture(snaplen);
                Answer::Done
            }
            Op::TakeCapture => match self.gate.take_captured() {
                Some(captured) => Answer::Captured(captured),
                None => return Response::Now(Err("nobody captures".to_owned())),
            },
            Op::Step { .. } => return Response::Now(Err("nobody debugs".to_owned())),
            _ => Answer::Done,
        }))
    }

    fn state(&self) -> State {
        self.state
    }

    fn stop_reason(&self) -> Option<StopReason> {
        self.stop.clone()
    }

    fn is_left(&mut self, gone: Standing) {
        assert_ne!(gone, Standing::default());
        if gone.debugs {
            assert!(std::mem::take(&mut self.debugged), "nobody debugged");
        }
        if gone.captures {
            self.gate.end_capture();
        }
    }
}

impl Machine {
    fn set_limits(&mut self, change: &LimitsChange) -> std::result::Result<Answer, String> {
        let bounds = Bounds {
            vcpus: SPEC.vcpus(),
            processors: Some(2),
            uplink: SPEC.uplink(),
        };
        match change.apply(&self.limits, &bounds) {
            Ok(limits) => {
                self.limits = limits.clone();
                Ok(Answer::Limits(Box::new(limits)))
            }
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                assert!(told.iter().all(|one| shown_in_one_line(one)), "{told:?}");
                Err(told.join("; "))
            }
        }
    }
}

/// A client.
struct Peer {
    stream: UnixStream,
    /// What is still to be sent of a frame.
    rest: Vec<u8>,
    /// Bytes sent that are no whole frame yet.
    sent: Vec<u8>,
    /// How many answers are due, by the number of the request.
    due: BTreeMap<u64, usize>,
    received: Vec<u8>,
    /// Nothing is due to who has sent what makes no sense, or does not send the rest.
    spoiled: bool,
    closed: bool,
}

struct World {
    sessions: Sessions,
    machine: Machine,
    peers: Vec<Peer>,
    connected: usize,
}

impl World {
    fn live(&mut self, input: &mut Unstructured) -> Result<()> {
        self.connect();
        for _ in 0..DEEDS {
            if input.is_empty() {
                break;
            }
            let (deed, who) = input.arbitrary::<(u8, u8)>()?;
            if self.peers.is_empty() {
                self.connect();
            }
            let who = usize::from(who) % self.peers.len();
            match deed % 16 {
                0 => self.connect(),
                1..=5 => {
                    let frame = request(input)?;
                    self.send(who, &frame);
                }
                6 => {
                    let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
                    let mut frame = (len as u32).to_le_bytes().to_vec();
                    frame.extend(input.bytes(len)?);
                    self.send(who, &frame);
                }
                7 => {
                    let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
                    self.send(who, input.bytes(len)?);
                }
                8 => {
                    let frame = request(input)?;
                    let (now, later) = frame.split_at(frame.len() / 2);
                    self.send(who, now);
                    self.peers[who].rest = later.to_vec();
                }
                9 => {
                    let frame = request(input)?;
                    for _ in 0..input.arbitrary::<u8>()? % 80 {
                        if !self.peers[who].rest.is_empty() {
                            break;
                        }
                        self.send(who, &frame);
                    }
                }
                10 => {
                    let len = MAX_FRAME as u32 + u32::from(input.arbitrary::<u8>()?);
                    self.send(who, &len.to_le_bytes());
                }
                11 => self.read(who),
                12 => drop(self.peers.swap_remove(who)),
                13 => {
                    // It sends no more, which is as good as gone.
                    let _ = self.peers[who].stream.shutdown(Shutdown::Write);
                    self.peers[who].spoiled = true;
                }
                14 => self.machine.stop = Some(StopReason::Breakpoint { vcpu: 0 }),
                _ => {
                    self.machine.state = State::Paused;
                    self.machine.stop = Some(StopReason::Paused);
                }
            }
            if deed & 0x30 != 0 {
                self.turn();
            }
        }
        Ok(())
    }

    fn connect(&mut self) {
        let (theirs, ours) = UnixStream::pair().expect("there are descriptors");
        for stream in [&theirs, &ours] {
            stream
                .set_nonblocking(true)
                .expect("a socket may not block");
        }
        self.sessions.add(ours, &mut self.machine);
        self.connected += 1;
        self.peers.push(Peer {
            stream: theirs,
            rest: Vec::new(),
            sent: Vec::new(),
            due: BTreeMap::new(),
            received: Vec::new(),
            spoiled: false,
            closed: false,
        });
        assert!(self.sessions.len() <= MAX_CLIENTS);
    }

    /// Sends as much as the socket takes, what was left of another frame first.
    fn send(&mut self, who: usize, bytes: &[u8]) {
        let peer = &mut self.peers[who];
        let mut all = std::mem::take(&mut peer.rest);
        all.extend(bytes);
        let sent = peer.stream.write(&all).unwrap_or(0);
        peer.sent.extend(&all[..sent]);
        peer.rest = all.split_off(sent);
        // Who has that much left does not send it any more.
        if peer.rest.len() > MOST_LEFT {
            peer.rest.clear();
            peer.spoiled = true;
        }
        peer.count();
    }

    /// What the control thread does when something is ready.
    fn turn(&mut self) {
        for index in 0..self.sessions.len() {
            self.sessions.receive(index);
        }
        self.sessions.serve(&mut self.machine);
        let most = MOST_LARGE_UNREAD * self.connected;
        assert!(self.machine.large <= most, "{} answers", self.machine.large);
    }

    fn read(&mut self, who: usize) {
        self.machine.large = 0;
        self.peers[who].read();
    }

    fn end(&mut self) {
        for _ in 0..ROUNDS {
            // Whatever somebody resumes meanwhile.
            self.machine.state = State::Ended;
            self.machine.stop = Some(StopReason::Ended { status: 0 });
            let mut waits = false;
            for who in 0..self.peers.len() {
                self.send(who, &[]);
                self.read(who);
                let peer = &self.peers[who];
                waits |= !peer.closed && !(peer.spoiled || peer.due.is_empty());
            }
            if !waits {
                break;
            }
            self.turn();
        }
        let closed = self
            .peers
            .iter()
            .filter(|peer| peer.closed && !peer.spoiled);
        let most = self.connected.saturating_sub(MAX_CLIENTS);
        assert!(closed.count() <= most, "somebody was dropped for nothing");
        for peer in &self.peers {
            assert!(
                peer.closed || peer.spoiled || peer.due.is_empty(),
                "{:?}",
                peer.due
            );
        }
    }
}

impl Peer {
    /// Counts the whole requests among what was sent.
    fn count(&mut self) {
        while let Some(head) = self.sent.first_chunk() {
            let len = u32::from_le_bytes(*head) as usize;
            if len > MAX_FRAME {
                self.spoiled = true;
                break;
            }
            let Some(body) = self.sent.get(4..4 + len) else {
                break;
            };
            let value = serde_json::from_slice::<Value>(body).ok();
            let id = value.and_then(|value| value.get("id")?.as_u64());
            *self.due.entry(id.unwrap_or(0)).or_default() += 1;
            self.sent.drain(..4 + len);
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(len) => {
                    self.received.extend(&buffer[..len]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.closed = true,
            }
            break;
        }
        let mut rest = &self.received[..];
        while let Some(head) = rest.first_chunk() {
            let whole = 4 + u32::from_le_bytes(*head) as usize;
            assert!(whole <= 4 + MAX_FRAME);
            let Some((frame, others)) = rest.split_at_checked(whole) else {
                break;
            };
            let reply: Reply = read_frame(frame)
                .expect("it is a reply")
                .expect("it is whole");
            assert_eq!(encode_frame(&reply).expect("it is written"), frame);
            let due = self.due.get_mut(&reply.id);
            *due.expect("nobody has asked that") -= 1;
            self.due.retain(|_, count| *count > 0);
            rest = others;
        }
        self.received = rest.to_vec();
    }
}

/// A request as clients send it, and now and then of another version.
fn request(input: &mut Unstructured) -> Result<Vec<u8>> {
    let op = match input.arbitrary::<u8>()? % 20 {
        0 => Op::Pause,
        1 => Op::Resume,
        2 => Op::WaitStop,
        3 => Op::Debug,
        4 => Op::Step {
            vcpu: input.arbitrary()?,
        },
        5 => Op::Capture {
            snaplen: input.arbitrary()?,
        },
        6 => Op::TakeCapture,
        7 => Op::TakeFlows {
            acknowledge: input.arbitrary()?,
            max: input.arbitrary()?,
        },
        8 => Op::TakeEvents {
            after: input.arbitrary()?,
        },
        9 => Op::SetBlocks {
            prefixes: vec![input.arbitrary::<&str>()?.to_owned()],
        },
        10 => Op::ReadMemory {
            address: input.arbitrary()?,
            len: usize::from(input.arbitrary::<u16>()?) * 2,
        },
        11 => Op::ReadMemory {
            address: input.arbitrary()?,
            len: input.arbitrary::<u8>()?.into(),
        },
        12 => Op::Stop {
            reason: input.arbitrary::<&str>()?.to_owned(),
        },
        13 => Op::SetBalloon {
            mib: input.arbitrary()?,
        },
        14..=16 => return limits(input),
        17 => Op::WriteMemory {
            address: input.arbitrary()?,
            hex: "ab".repeat(usize::from(input.arbitrary::<u16>()? % 2048)),
        },
        18 => Op::ReadRegisters {
            vcpu: input.arbitrary()?,
        },
        _ => Op::Status,
    };
    let request = Request {
        v: 1 + u32::from(input.arbitrary::<u8>()? == 7),
        id: input.arbitrary::<u8>()?.into(),
        op,
    };
    Ok(encode_frame(&request).expect("it is a frame"))
}

/// A change of limits with fields that are some of them right.
fn limits(input: &mut Unstructured) -> Result<Vec<u8>> {
    let id = input.arbitrary::<u8>()?;
    let mut request = json!({ "v": 1, "id": id, "op": "set_limits" });
    for _ in 0..input.arbitrary::<u8>()? % 5 {
        let (part, field) = *input.choose(&[
            ("cpu", "cpu_cap"),
            ("cpu", "cpu_pct"),
            ("cpu", "cpu_share"),
            ("cpu", "cpu_burst"),
            ("cpu", "cpu_period"),
            ("net", "net_min_rate"),
            ("net", "net_max_rate"),
            ("net", "net_share"),
            ("net", "net_burst"),
            ("net", "net_exempt"),
            ("net", "net_max_kbyte"),
            ("net", "net_thresh_kbyte"),
            ("net", "net_rx_max_rate"),
            ("disk", "disk_rate"),
            ("disk", "disk_iops"),
            ("disk", "net_share"),
        ])?;
        request[part][field] = match input.arbitrary::<u8>()? % 8 {
            0 => json!("none"),
            1 => json!(input.arbitrary::<i64>()?),
            2 => json!([input.arbitrary::<&str>()?]),
            3 => json!(["192.0.2.0/24"]),
            4 => json!(1u64 << (input.arbitrary::<u8>()? % 64)),
            _ => json!(input.arbitrary::<u8>()?),
        };
    }
    Ok(encode_frame(&request).expect("it is a frame"))
}
