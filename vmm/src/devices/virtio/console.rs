//! The console device (virtio 1.2, 5.3): what the guest prints goes to an [`Output`], what comes
//! from an [`Input`] goes to the guest.
//!
//! One port, no multiport. A batch never waits: output that does not go through, or is more than
//! the sliver may print in a second, stays in the guest's buffers and is never dropped; input stays
//! where it is until the guest gives buffers for it.

#[cfg(test)]
mod tests;

use slice_abi::device::device_id;

use super::backend::{
    Backend, Counter, Fault, Identity, Interest, Order, Port, Progress, Queues, Source,
};
use super::chain::Chain;
use super::queue::QueueError;
use super::transfer::{read_at, total, write_at};
use crate::devices::input::Input;
use crate::devices::output::{Output, PIECE};
use crate::devices::rated::{RatedOutput, Wrote};
use crate::nanos::Nanos;
use crate::spec::ConsoleSpec;

/// Index of the receive queue.
const RECEIVE: usize = 0;
/// Index of the transmit queue.
const TRANSMIT: usize = 1;
/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 64;
/// Pieces of output, whole chains or parts of one, in a batch; and as many of input.
const PIECES: usize = 64;
/// The configuration says how large the window is (`VIRTIO_CONSOLE_F_SIZE`).
const F_SIZE: u64 = 1 << 0;
/// Index of the output among the sources.
const OUTPUT_SOURCE: usize = 0;

/// A console.
#[derive(Debug)]
pub struct Console {
    printer: Printer,
    input: Option<Input>,
    /// Input may be there.
    input_ready: bool,
    received: Chain,
    input_bytes: u64,
    /// Columns and rows, each in two bytes.
    config: [u8; 4],
}

impl Console {
    /// A console that prints to `output` and reads from `input`.
    pub fn new(output: Output, input: Option<Input>, spec: &ConsoleSpec) -> Self {
        let (columns, rows) = output.window_size();
        Self {
            printer: Printer::new(output, spec.rate_kib_s() << 10),
            input,
            input_ready: true,
            received: Chain::default(),
            input_bytes: 0,
            config: config(columns, rows),
        }
    }

    /// Hands input to the guest.
    fn receive(&mut self, queues: &mut Queues<'_>) -> Result<Progress, Fault> {
        let (Some(input), Some(mut port)) = (&mut self.input, queues.get(RECEIVE)) else {
            return Ok(Progress::Done);
        };
        for _ in 0..PIECES {
            if input.has_ended() {
                return Ok(Progress::Done);
            }
            if !self.input_ready {
                return Ok(Progress::Waiting);
            }
            if !port.pop(&mut self.received)? {
                if port.listen()? {
                    continue;
                }
                return Ok(Progress::Waiting);
            }
            if !self.received.readable.is_empty() {
                return Err(port.fault(QueueError::Direction));
            }
            let mut piece = [0; PIECE];
            let room = total(&self.received.writable).min(PIECE as u64) as usize;
            let len = input.read(&mut piece[..room]);
            if len == 0 {
                port.unpop(1);
                self.input_ready = false;
                continue;
            }
            write_at(&self.received, 0, port.ram(), &piece[..len])
                .map_err(|error| port.fault(error))?;
            port.push(self.received.head, len as u32)?;
            self.input_bytes += len as u64;
        }
        Ok(Progress::More)
    }
}

fn config(columns: u16, rows: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (columns.to_le_bytes(), rows.to_le_bytes());
    [a, b, c, d]
}

impl Backend for Console {
    fn identity(&self) -> Identity {
        Identity {
            id: device_id::CONSOLE,
            tag: "console".to_owned(),
            features: F_SIZE,
            queue_sizes: vec![QUEUE_SIZE, QUEUE_SIZE],
        }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, _features: u64) {}

    fn serve(&mut self, queues: &mut Queues<'_>, now: Nanos) -> Result<Progress, Fault> {
        let printing = match queues.get(TRANSMIT) {
            Some(mut port) => self.printer.serve(&mut port, now)?,
            None => Progress::Done,
        };
        let receiving = self.receive(queues)?;
        Ok(match (printing, receiving) {
            (Progress::More, _) | (_, Progress::More) => Progress::More,
            // A moment to wait for includes the sources.
            (Progress::Done, other) | (other, _) => other,
        })
    }

    fn stop(&mut self) -> bool {
        self.printer.printing = false;
        true
    }

    fn sources(&self) -> Vec<Source<'_>> {
        let output = Source {
            fd: self.printer.output.fd(),
            interest: Interest::Write,
        };
        let input = self.input.as_ref().map(|input| Source {
            fd: input.fd(),
            interest: Interest::Read,
        });
        std::iter::once(output).chain(input).collect()
    }

    fn ready(&mut self, source: usize) {
        self.input_ready |= source != OUTPUT_SOURCE;
    }

    fn order(&mut self, order: Order) -> bool {
        let Order::ConsoleSize { columns, rows } = order else {
            return false;
        };
        self.config = config(columns, rows);
        true
    }

    fn counters(&self) -> Vec<Counter> {
        vec![
            ("printed_bytes", self.printer.output.written_bytes()),
            ("rate_waits", self.printer.rate_waits),
            ("input_bytes", self.input_bytes),
        ]
    }
}

/// The side that prints.
#[derive(Debug)]
struct Printer {
    output: RatedOutput,
    /// Nothing is printed before this moment.
    wait_until: Nanos,
    /// The chain being printed, if `printing`, and the bytes of it that have been.
    chain: Chain,
    done: u64,
    printing: bool,
    rate_waits: u64,
}

/// How far a piece came.
enum Step {
    Done,
    Full,
    Wait(Nanos),
}

impl Printer {
    fn new(output: Output, bytes_per_second: u64) -> Self {
        Self {
            output: RatedOutput::new(output, bytes_per_second),
            wait_until: Nanos(0),
            chain: Chain::default(),
            done: 0,
            printing: false,
            rate_waits: 0,
        }
    }

    /// Prints one batch.
    fn serve(&mut self, port: &mut Port<'_>, now: Nanos) -> Result<Progress, Fault> {
        for _ in 0..PIECES {
            if !self.printing {
                if !port.pop(&mut self.chain)? {
                    if port.listen()? {
                        continue;
                    }
                    return Ok(Progress::Done);
                }
                if !self.chain.writable.is_empty() {
                    return Err(port.fault(QueueError::Direction));
                }
                (self.printing, self.done) = (true, 0);
            }
            match self.print(port, now)? {
                Step::Done => {}
                Step::Full => return Ok(Progress::Waiting),
                Step::Wait(moment) => return Ok(Progress::At(moment)),
            }
        }
        Ok(Progress::More)
    }

    /// Prints one piece of the present chain, or gives it back if it is done.
    fn print(&mut self, port: &mut Port<'_>, now: Nanos) -> Result<Step, Fault> {
        let mut piece = [0; PIECE];
        let len = read_at(&self.chain, self.done, port.ram(), &mut piece)
            .map_err(|error| port.fault(error))?;
        if len == 0 {
            self.printing = false;
            port.push(self.chain.head, 0)?;
            return Ok(Step::Done);
        }
        if now < self.wait_until {
            return Ok(Step::Wait(self.wait_until));
        }
        Ok(match self.output.write(&piece[..len], now) {
            Wrote::Some(written) => {
                self.done += written as u64;
                Step::Done
            }
            Wrote::Full => Step::Full,
            Wrote::Wait(moment) => {
                self.rate_waits += 1;
                self.wait_until = moment;
                Step::Wait(moment)
            }
        })
    }
}
