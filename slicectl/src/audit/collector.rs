//! Takes what a sliver's monitor has written down, once a second, and stores it.
//!
//! A record is acknowledged to the monitor only when it is on the disk: what cannot be stored stays
//! with the monitor, which counts what it has no room for, or lets nothing pass, as it was told. Also
//! keeps the sliver's blocks what the audit says they are, and ends those whose time is over. A monitor
//! tells at its end what nobody has taken yet; one that was killed does not, which becomes an event.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmm::control::proto::{Answer, EventBatch, FlowBatch, LastTraffic, LostFlows, NetStatus, Op};
use vmm::net::prefix::Prefix;

use super::ipfix::Exporter;
use super::known::Known;
use crate::client::{Client, ClientError, nonsense};
use crate::network::processor_time;
use crate::problem::Problem;
use crate::report::say;
use crate::store::{Identity, Retention, Store, StoreError, Used, now_ms};

/// How often the monitor is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer: longer than that, and blocks would come late.
const PATIENCE: Duration = Duration::from_secs(2);

/// Records that are taken at once; a full batch is followed by another question.
const BATCH: usize = 1000;

/// Such batches in a second at most.
const MOST_BATCHES: usize = 64;

/// How often what is too old or too much is removed.
const ROTATE_EVERY: Duration = Duration::from_secs(60);

/// Somebody else may have told the monitor of older blocks after this did of newer ones: so many
/// looks later they are told again.
const PUSH_EVERY: u32 = 10;

/// How often the same trouble is told again.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What is collected, and where to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The sliver's control socket.
    pub control: PathBuf,
    /// Whose it is.
    pub who: Identity,
    /// The audit's file.
    pub audit: PathBuf,
    /// What is kept there.
    pub retention: Retention,
    /// Where records go besides, `HOST:PORT`.
    pub ipfix: Option<String>,
    /// What the monitor was told as the sliver began.
    pub known: Known,
    /// Whether nothing passes that is not recorded.
    pub strict: bool,
}

/// A collector at work. It ends when this is dropped.
#[derive(Debug)]
pub struct Collector {
    end: Option<Sender<Vec<LastTraffic>>>,
    thread: Option<JoinHandle<Duration>>,
}

impl Collector {
    /// Begins to collect.
    pub fn begin(settings: Settings) -> Self {
        let (end, ended) = channel::<Vec<LastTraffic>>();
        let work = move || {
            let mut work = Work::new(settings);
            loop {
                work.look();
                match ended.recv_timeout(INTERVAL) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(last) => {
                        work.finish(&last);
                        return processor_time();
                    }
                    Err(RecvTimeoutError::Disconnected) => return processor_time(),
                }
            }
        };
        let thread = std::thread::Builder::new().name("audit".to_owned());
        let thread = match thread.spawn(work) {
            Ok(thread) => Some(thread),
            Err(error) => {
                say(Problem::new("audit", format!("has no thread: {error}")));
                None
            }
        };
        Self {
            end: Some(end),
            thread,
        }
    }

    /// Stores what the monitor has told last, and ends; the processor time that all of it took.
    pub fn finish(mut self, last: Vec<LastTraffic>) -> Duration {
        if let Some(end) = self.end.take() {
            // A collector that has ended has said why.
            let _ = end.send(last);
        }
        let thread = self.thread.take();
        thread.map_or(Duration::ZERO, |thread| thread.join().unwrap_or_default())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Why a look was not completed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Monitor(#[from] ClientError),
}

struct Work {
    settings: Settings,
    store: Option<Store>,
    client: Option<Client>,
    acknowledged: u64,
    last_event: u64,
    lost: LostFlows,
    used: (u64, Used),
    blocks: Vec<Prefix>,
    exporter: Option<Exporter>,
    /// Looks since blocks were told.
    pushed_ago: u32,
    rotated_at: Option<Instant>,
    /// Whether the monitor will not tell, which was said.
    is_refused: bool,
    /// Since when nothing can be stored, and when that was told last.
    failing: Option<(u64, Instant)>,
}

impl Work {
    fn new(settings: Settings) -> Self {
        let name = &settings.who.name;
        let exporter = settings.ipfix.as_deref().and_then(|collector| {
            Exporter::to(collector, domain(name))
                .map_err(|error| {
                    let why = format!("flows of {name} are not exported: {error}");
                    say(Problem::new(format!("--ipfix {collector}"), why));
                })
                .ok()
        });
        Self {
            used: settings.known.used,
            blocks: settings.known.blocked.clone(),
            exporter,
            settings,
            store: None,
            client: None,
            acknowledged: 0,
            last_event: 0,
            lost: LostFlows::default(),
            pushed_ago: 0,
            rotated_at: None,
            is_refused: false,
            failing: None,
        }
    }

    /// Takes and stores what there is.
    fn look(&mut self) {
        match self.try_look() {
            Ok(()) => {}
            Err(Trouble::Store(error)) => {
                // The file may be another when it is opened again.
                self.store = None;
                self.tell_failure(error);
            }
            // It ends, or is held by a debugger; the end is watched by others.
            Err(Trouble::Monitor(
                ClientError::Io(_) | ClientError::Silent | ClientError::Closed,
            )) => self.client = None,
            Err(Trouble::Monitor(error)) => {
                self.client = None;
                if !std::mem::replace(&mut self.is_refused, true) {
                    let name = &self.settings.who.name;
                    let why = format!("flows of {name} are not recorded: {error}");
                    say(Problem::new("audit", why));
                }
            }
        }
    }

    fn try_look(&mut self) -> Result<(), Trouble> {
        // Blocks come first: they are what somebody waits for.
        self.push_blocks()?;
        for _ in 0..MOST_BATCHES {
            let op = Op::TakeFlows {
                acknowledge: self.acknowledged,
                max: BATCH,
            };
            let batch = match self.client()?.call(op)? {
                Answer::Flows(batch) => batch,
                other => return Err(nonsense(&other).into()),
            };
            let is_last = batch.records.len() < BATCH;
            self.store_flows(&batch)?;
            if is_last {
                break;
            }
        }
        let after = self.last_event;
        match self.client()?.call(Op::TakeEvents { after })? {
            Answer::Events(batch) => self.store_events(&batch)?,
            other => return Err(nonsense(&other).into()),
        }
        if let Some(net) = self.client()?.status()?.net {
            self.store_usage(&net)?;
        }
        self.rotate()
    }

    /// Stores what the monitor told at last.
    fn finish(&mut self, last: &[LastTraffic]) {
        let stored = match last {
            [] => self.note_silence(),
            pieces => pieces.iter().try_for_each(|piece| self.store_last(piece)),
        };
        if let Err(error) = stored {
            let records: usize = last.iter().map(|piece| piece.flows.records.len()).sum();
            let name = &self.settings.who.name;
            let why = format!("the last {records} records of {name} are lost: {error}");
            say(Problem::new("audit", why));
        }
    }

    fn store_last(&mut self, piece: &LastTraffic) -> Result<(), Trouble> {
        self.store_flows(&piece.flows)?;
        self.store_events(&piece.events)?;
        match &piece.net {
            Some(net) => self.store_usage(net),
            None => Ok(()),
        }
    }

    /// Nobody knows what flows a monitor had that told nothing at its end.
    fn note_silence(&mut self) -> Result<(), Trouble> {
        let name = &self.settings.who.name;
        let detail = format!("{name}: its monitor has ended without telling its last flows");
        self.store()?.note("flows_lost", &detail)?;
        Ok(())
    }

    fn store_flows(&mut self, batch: &FlowBatch) -> Result<(), Trouble> {
        // A batch may begin with records that are stored already.
        let known = self.acknowledged.saturating_sub(batch.first);
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let new = batch.records.get(known..).unwrap_or_default();
        let who = self.settings.who.clone();
        self.store()?.add_flows(&who, new)?;
        if let Some(exporter) = &mut self.exporter {
            // As with all of UDP: what is refused now is lost, and the audit has it.
            let _ = exporter.send(new, now_ms());
        }
        self.acknowledged = self
            .acknowledged
            .max(batch.first + batch.records.len() as u64);
        self.recovered()?;
        if batch.lost.flows > self.lost.flows {
            let flows = batch.lost.flows - self.lost.flows;
            let packets = batch.lost.packets.saturating_sub(self.lost.packets);
            let bytes = batch.lost.bytes.saturating_sub(self.lost.bytes);
            let name = &self.settings.who.name;
            let detail = format!(
                "{name}: {flows} records of flows are lost, with {packets} packets of {bytes} bytes"
            );
            say(Problem::new("audit", &detail));
            self.store()?.note("flows_lost", &detail)?;
            self.lost = batch.lost;
        }
        Ok(())
    }

    fn store_events(&mut self, batch: &EventBatch) -> Result<(), Trouble> {
        let who = self.settings.who.clone();
        let mut events = batch.events.clone();
        events.retain(|event| event.seq > self.last_event);
        self.store()?.add_events(&who, &events)?;
        if let Some(last) = events.last() {
            self.last_event = last.seq;
        }
        Ok(())
    }

    fn store_usage(&mut self, net: &NetStatus) -> Result<(), Trouble> {
        let now = Used {
            bytes: net.used_today,
            exempt_bytes: net.exempt_used_today,
        };
        let (day, before) = self.used;
        // A new day begins at nothing; a clock that was set back does not take away what was used.
        let more = match net.day > day {
            true => now,
            false => now.since(before),
        };
        let slice = self.settings.who.slice.clone();
        self.store()?.add_usage(&slice, net.day, more)?;
        self.used = (net.day, now);
        Ok(())
    }

    fn push_blocks(&mut self) -> Result<(), Trouble> {
        let slice = self.settings.who.slice.clone();
        let blocked = self.store()?.blocked(&slice, now_ms())?;
        let is_due = self.pushed_ago >= PUSH_EVERY && !blocked.is_empty();
        self.pushed_ago = self.pushed_ago.saturating_add(1);
        if blocked != self.blocks || is_due {
            let prefixes = blocked.iter().map(Prefix::to_string).collect();
            self.client()?.order(Op::SetBlocks { prefixes })?;
            self.pushed_ago = 0;
        }
        self.blocks = blocked;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), Trouble> {
        if self
            .rotated_at
            .is_some_and(|at| at.elapsed() < ROTATE_EVERY)
        {
            return Ok(());
        }
        let retention = self.settings.retention;
        if !self.store()?.rotate(&retention, now_ms())? {
            self.rotated_at = Some(Instant::now());
        }
        Ok(())
    }

    fn store(&mut self) -> Result<&mut Store, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => Store::create(&self.settings.audit)?,
        };
        Ok(self.store.insert(store))
    }

    fn client(&mut self) -> Result<&mut Client, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::connect_with_patience(&self.settings.control, PATIENCE)?,
        };
        Ok(self.client.insert(client))
    }

    fn tell_failure(&mut self, error: StoreError) {
        if let Some((_, told)) = self.failing
            && told.elapsed() < TELL_EVERY
        {
            return;
        }
        let since = self.failing.map_or_else(now_ms, |(since, _)| since);
        self.failing = Some((since, Instant::now()));
        let name = &self.settings.who.name;
        say(format!("flows of {name} are not recorded!"));
        if self.settings.strict {
            say(format!(
                "--strict-audit: {name} is cut off as soon as its monitor has no room for records"
            ));
        }
        say(Problem::from(error));
    }

    /// What could not be stored while nothing could, is that nothing could.
    fn recovered(&mut self) -> Result<(), StoreError> {
        if let Some((since, _)) = self.failing {
            let seconds = now_ms().saturating_sub(since) / 1000;
            let name = &self.settings.who.name;
            let detail = format!("{name}: nothing could be stored for {seconds} s");
            self.store()?.note("audit_failed", &detail)?;
            say(Problem::new("audit", detail));
            self.failing = None;
        }
        Ok(())
    }
}

/// A number for a sliver's name, the same each time (FNV-1a).
fn domain(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
