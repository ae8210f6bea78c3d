//! The clients of the control socket and what each of them waits for.
//!
//! It never waits for one client: everything is non-blocking, a client that does not read its
//! answers is asked nothing more until it does, one whose frames make no sense is dropped, and what
//! a client asked to wait for is answered when it happens. What is asked it does not do itself: that
//! is for whoever is [`Steered`].

#[cfg(test)]
mod tests;

use std::os::unix::net::UnixStream;

use rustix::event::PollFd;

use super::connection::{Client, parse};
use super::proto::{Answer, Op, Outcome, PROTOCOL_VERSION, Reply, Request, State, StopReason};

/// Clients served at the same time. One more takes the place of the one that has been silent for
/// the longest time and waits for nothing: silent clients must not lock out the operator.
pub const MAX_CLIENTS: usize = 16;
/// Requests of one client that wait for something to happen.
pub const MAX_WAITS: usize = 64;

/// What clients steer.
pub trait Steered {
    /// Does what a client asks. It may come to be one that debugs or captures by that.
    fn answer(&mut self, op: Op, standing: &mut Standing) -> Response;

    /// What it is doing.
    fn state(&self) -> State;

    /// Why it stands still for a debugger, or has ended.
    fn stop_reason(&self) -> Option<StopReason>;

    /// The last client is gone that debugged, or that captured.
    fn is_left(&mut self, gone: Standing);
}

/// What a client is beside one that asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is a debugger.
    pub debugs: bool,
    /// Whether it copies packets.
    pub captures: bool,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Response {
    /// It is answered at once.
    Now(Result<Answer, String>),
    /// It is answered when this happens.
    When(Event),
}

/// What a client can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All vCPUs stand still.
    Paused,
    /// It stops for a debugger, or has ended.
    Stopped,
    /// A single step is done.
    Stepped,
}

/// A request that is answered later.
#[derive(Debug)]
struct Wait {
    client: u64,
    id: u64,
    event: Event,
}

/// All clients.
#[derive(Debug, Default)]
pub struct Sessions {
    clients: Vec<Client>,
    waits: Vec<Wait>,
    next_client: u64,
}

impl Sessions {
    /// Takes in a client that has connected over a non-blocking stream.
    pub fn add(&mut self, stream: UnixStream, steered: &mut impl Steered) {
        if self.clients.len() >= MAX_CLIENTS {
            self.make_room(steered);
        }
        self.clients.push(Client::new(self.next_client, stream));
        self.next_client += 1;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// What to wait for on the connection of each, in their order.
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let clients = self.clients.iter();
        clients.map(|client| PollFd::new(&client.stream, client.interest()))
    }

    /// Takes in what a client has sent, by its place in that order.
    pub fn receive(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index) {
            client.receive();
        }
    }

    /// Answers all that was asked and lets go of who is gone.
    pub fn serve(&mut self, steered: &mut impl Steered) {
        // Sending answers makes room for more questions, which may have come already: nothing would
        // tell of them again.
        self.send_answers(steered);
        while self.clients.iter().any(Client::has_frame) {
            for index in 0..self.clients.len() {
                self.serve_client(index, steered);
            }
            self.send_answers(steered);
        }
        self.drop_gone(steered);
    }

    /// Sends what clients take of their answers, those among them that were waited for.
    pub fn send_answers(&mut self, steered: &impl Steered) {
        self.answer_waits(steered);
        for client in &mut self.clients {
            client.send();
        }
    }

    /// Drops the client that would miss it the least.
    fn make_room(&mut self, steered: &mut impl Steered) {
        let waits = &self.waits;
        let cost = |client: &Client| {
            let waiting = waits.iter().any(|wait| wait.client == client.number);
            (client.standing.debugs, waiting, client.last_heard)
        };
        if let Some(client) = self.clients.iter_mut().min_by_key(|client| cost(client)) {
            client.gone = true;
        }
        self.drop_gone(steered);
    }

    fn serve_client(&mut self, index: usize, steered: &mut impl Steered) {
        while let Some(frame) = self.clients[index].next_frame() {
            let (id, outcome) = match parse(&frame) {
                Ok(Request { id, op, .. }) => (id, self.answer(index, id, op, steered)),
                Err((id, problem)) => (id, Some(Outcome::Error(problem))),
            };
            if let Some(result) = outcome {
                self.clients[index].queue(&Reply {
                    v: PROTOCOL_VERSION,
                    id,
                    result,
                });
            }
        }
    }

    /// The answer to a request, or `None` if it comes later.
    fn answer(
        &mut self,
        index: usize,
        id: u64,
        op: Op,
        steered: &mut impl Steered,
    ) -> Option<Outcome> {
        let resumes = matches!(op, Op::Resume);
        let response = steered.answer(op, &mut self.clients[index].standing);
        if resumes {
            self.overtake_pauses();
        }
        match response {
            Response::Now(result) => Some(result.map_or_else(Outcome::Error, Outcome::Ok)),
            Response::When(event) => self.wait_for(index, id, event),
        }
    }

    fn wait_for(&mut self, index: usize, id: u64, event: Event) -> Option<Outcome> {
        let client = self.clients[index].number;
        if self
            .waits
            .iter()
            .filter(|wait| wait.client == client)
            .count()
            >= MAX_WAITS
        {
            let problem = format!("more than {MAX_WAITS} requests wait already");
            return Some(Outcome::Error(problem));
        }
        self.waits.push(Wait { client, id, event });
        None
    }

    /// A pause or step that was not complete when somebody resumed will never be.
    fn overtake_pauses(&mut self) {
        let clients = &mut self.clients;
        self.waits.retain(|wait| {
            if wait.event == Event::Stopped {
                return true;
            }
            let result = Outcome::Error("it was resumed before it stood still".to_owned());
            reply(clients, wait, result);
            false
        });
    }

    /// Answers every wait whose event has come.
    fn answer_waits(&mut self, steered: &impl Steered) {
        if self.waits.is_empty() {
            return;
        }
        let state = steered.state();
        let stop = steered.stop_reason();
        let clients = &mut self.clients;
        self.waits.retain(|wait| {
            let result = match (wait.event, state, &stop) {
                (Event::Stopped | Event::Stepped, _, Some(reason)) => {
                    Outcome::Ok(Answer::Stopped(reason.clone()))
                }
                (Event::Paused, State::Paused, _) => Outcome::Ok(Answer::Done),
                (Event::Paused, State::Ended, _) => {
                    Outcome::Error("the sliver has ended".to_owned())
                }
                _ => return true,
            };
            reply(clients, wait, result);
            false
        });
    }

    fn drop_gone(&mut self, steered: &mut impl Steered) {
        let before = self.standing();
        self.clients.retain(|client| !client.gone);
        let clients = &self.clients;
        self.waits
            .retain(|wait| clients.iter().any(|client| client.number == wait.client));
        let after = self.standing();
        let gone = Standing {
            debugs: before.debugs && !after.debugs,
            captures: before.captures && !after.captures,
        };
        if gone != Standing::default() {
            steered.is_left(gone);
        }
    }

    /// What all clients are together.
    fn standing(&self) -> Standing {
        Standing {
            debugs: self.clients.iter().any(|client| client.standing.debugs),
            captures: self.clients.iter().any(|client| client.standing.captures),
        }
    }
}

/// Queues a late answer, if its client is still there.
fn reply(clients: &mut [Client], wait: &Wait, result: Outcome) {
    if let Some(client) = clients
        .iter_mut()
        .find(|client| client.number == wait.client)
    {
        client.queue(&Reply {
            v: PROTOCOL_VERSION,
            id: wait.id,
            result,
        });
    }
}
