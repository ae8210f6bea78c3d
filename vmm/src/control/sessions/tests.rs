use std::io::{ErrorKind, Read, Write};

use super::*;
use crate::control::proto::{MAX_FRAME, encode_frame, read_frame};

/// A machine that counts what it was asked.
#[derive(Default)]
struct Counting {
    asked: usize,
    paused: bool,
    left: Vec<Standing>,
}

impl Steered for Counting {
    fn answer(&mut self, op: Op, standing: &mut Standing) -> Response {
        self.asked += 1;
        Response::Now(Ok(match op {
            Op::Pause => return Response::When(Event::Paused),
            Op::Debug => {
                standing.debugs = true;
                Answer::Done
            }
            Op::ReadMemory { len, .. } => Answer::Memory("0".repeat(2 * len)),
            _ => Answer::Done,
        }))
    }

    fn state(&self) -> State {
        match self.paused {
            true => State::Paused,
            false => State::Running,
        }
    }

    fn stop_reason(&self) -> Option<StopReason> {
        None
    }

    fn is_left(&mut self, gone: Standing) {
        self.left.push(gone);
    }
}

fn connect(sessions: &mut Sessions, machine: &mut Counting) -> UnixStream {
    let (theirs, ours) = UnixStream::pair().expect("a pair");
    for stream in [&theirs, &ours] {
        stream.set_nonblocking(true).expect("set");
    }
    sessions.add(ours, machine);
    theirs
}

fn turn(sessions: &mut Sessions, machine: &mut Counting) {
    for index in 0..sessions.len() {
        sessions.receive(index);
    }
    sessions.serve(machine);
}

fn ask(mut client: &UnixStream, id: u64, op: Op) {
    let request = Request {
        v: PROTOCOL_VERSION,
        id,
        op,
    };
    let frame = encode_frame(&request).expect("a frame");
    client.write_all(&frame).expect("it has room");
}

fn answers(client: &UnixStream) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Ok(Some(reply)) = read_frame(client) {
        replies.push(reply);
    }
    replies
}

fn is_closed(mut client: &UnixStream) -> bool {
    match client.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn a_pause_is_answered_when_all_stand_still_and_a_resume_overtakes_it() {
    let (mut sessions, mut machine) = (Sessions::default(), Counting::default());
    let client = connect(&mut sessions, &mut machine);
    ask(&client, 1, Op::Pause);
    turn(&mut sessions, &mut machine);
    assert_eq!(answers(&client), []);
    ask(&client, 2, Op::Resume);
    turn(&mut sessions, &mut machine);
    let ids: Vec<u64> = answers(&client).iter().map(|reply| reply.id).collect();
    assert_eq!(ids, [1, 2]);
    ask(&client, 3, Op::Pause);
    machine.paused = true;
    turn(&mut sessions, &mut machine);
    let told = answers(&client);
    assert_eq!(told[0].result, Outcome::Ok(Answer::Done));
}

#[test]
fn who_does_not_read_is_not_asked_on() {
    const LEN: usize = 32 << 10;
    let (mut sessions, mut machine) = (Sessions::default(), Counting::default());
    let client = connect(&mut sessions, &mut machine);
    for id in 0..100 {
        ask(
            &client,
            id,
            Op::ReadMemory {
                address: 0,
                len: LEN,
            },
        );
    }
    for _ in 0..10 {
        turn(&mut sessions, &mut machine);
    }
    // What a socket and the buffer before it hold.
    assert!(machine.asked < 20, "{}", machine.asked);
    let mut read = Vec::<u8>::new();
    let mut buffer = [0; 64 << 10];
    while read.len() < 100 * 2 * LEN {
        match (&client).read(&mut buffer) {
            Ok(len) => read.extend(&buffer[..len]),
            Err(_) => turn(&mut sessions, &mut machine),
        }
    }
    turn(&mut sessions, &mut machine);
    assert_eq!(machine.asked, 100, "and goes on where it was");
}

#[test]
fn a_frame_too_long_ends_the_connection_of_its_sender_only() {
    let (mut sessions, mut machine) = (Sessions::default(), Counting::default());
    let hostile = connect(&mut sessions, &mut machine);
    let other = connect(&mut sessions, &mut machine);
    let head = (MAX_FRAME as u32 + 1).to_le_bytes();
    (&hostile).write_all(&head).expect("sent");
    ask(&other, 7, Op::Status);
    turn(&mut sessions, &mut machine);
    assert!(is_closed(&hostile));
    assert_eq!(answers(&other).len(), 1);
}

#[test]
fn the_most_silent_client_makes_room_but_neither_who_waits_nor_a_debugger() {
    let (mut sessions, mut machine) = (Sessions::default(), Counting::default());
    let debugger = connect(&mut sessions, &mut machine);
    ask(&debugger, 1, Op::Debug);
    let waiting = connect(&mut sessions, &mut machine);
    ask(&waiting, 1, Op::Pause);
    turn(&mut sessions, &mut machine);
    let silent: Vec<UnixStream> = (0..MAX_CLIENTS)
        .map(|_| connect(&mut sessions, &mut machine))
        .collect();
    assert_eq!(sessions.len(), MAX_CLIENTS);
    answers(&debugger);
    assert!(!is_closed(&debugger) && !is_closed(&waiting));
    assert!(is_closed(&silent[0]) && is_closed(&silent[1]));
    assert!(!is_closed(&silent[2]));
    drop(debugger);
    turn(&mut sessions, &mut machine);
    let debugs = Standing {
        debugs: true,
        captures: false,
    };
    assert_eq!(machine.left, [debugs]);
}

#[test]
fn a_client_can_wait_for_so_many_things_only() {
    let (mut sessions, mut machine) = (Sessions::default(), Counting::default());
    let client = connect(&mut sessions, &mut machine);
    for id in 0..MAX_WAITS as u64 + 3 {
        ask(&client, id, Op::Pause);
    }
    turn(&mut sessions, &mut machine);
    let refused = answers(&client);
    assert_eq!(refused.len(), 3);
    assert!(matches!(refused[0].result, Outcome::Error(_)));
}
