//! Gets a sliver another place in its ledger when the file is gone or spoilt: the monitor sees no
//! names, so it asks here. One thread for each sliver, which sleeps but for that; its work goes to who
//! launches slivers, at most once in a second.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{io, thread};

use crate::control::proto::{read_frame, write_frame};
use crate::given::send_with;
use crate::net::uplink::{Kbit, Membership};
use crate::sched::governor::processors;
use crate::sched::ledger::{Ledger, LedgerError, LedgerEvent, Member, TakenSlot};
use crate::sched::seat::{Answer, Ask};

/// The least time from one answer to the next question.
const PAUSE: Duration = Duration::from_secs(1);

/// Room for a thread that calls no deep functions.
const STACK: usize = 256 << 10;

/// Keeps a place for `member` in the ledger at `path`. The end to ask at.
pub(super) fn start(path: &Path, member: &Member<'_>) -> io::Result<UnixStream> {
    let (near, far) = UnixStream::pair()?;
    let keeper = Keeper {
        path: path.to_owned(),
        pid: member.pid,
        name: member.name.to_owned(),
    };
    thread::Builder::new()
        .name("keeper".to_owned())
        .stack_size(STACK)
        .spawn(move || keeper.serve(&near))?;
    Ok(far)
}

struct Keeper {
    path: PathBuf,
    pid: u32,
    name: String,
}

impl Keeper {
    /// Until the monitor has ended, or says what cannot be understood.
    fn serve(&self, near: &UnixStream) {
        while let Ok(Some(ask)) = read_frame::<Ask>(near) {
            if self.answer(near, &ask).is_err() {
                return;
            }
            thread::sleep(PAUSE);
        }
    }

    fn answer(&self, near: &UnixStream, ask: &Ask) -> io::Result<()> {
        let mut answer = Answer::default();
        match self.take(ask, &mut answer) {
            Ok((taken, event)) => {
                answer.told.extend(event.map(|event| event.to_string()));
                answer.slot = Some(taken.slot);
                let files: [BorrowedFd<'_>; 2] = [taken.reader.as_fd(), taken.writer.as_fd()];
                send_with(near, &files)?;
            }
            Err(error) => {
                answer
                    .told
                    .push(format!("{error}; it runs without a ledger"));
                send_with(near, &[])?;
            }
        }
        write_frame(near, &answer)
    }

    /// A slot for what is claimed. What was guaranteed of the uplink may be another's by now.
    fn take(
        &self,
        ask: &Ask,
        answer: &mut Answer,
    ) -> Result<(TakenSlot, Option<LedgerEvent>), LedgerError> {
        answer.uplink = ask.uplink;
        match Ledger::take(
            &self.path,
            &self.member(ask, ask.uplink.as_ref()),
            processors(),
        ) {
            Err(error @ LedgerError::NetRefused(_)) => {
                answer.told.push(format!(
                    "{error}; nothing is guaranteed to it until its limits are set again"
                ));
                if let Some(Membership { claim, .. }) = &mut answer.uplink {
                    claim.min = Kbit(0);
                }
                Ledger::take(
                    &self.path,
                    &self.member(ask, answer.uplink.as_ref()),
                    processors(),
                )
            }
            taken => taken,
        }
    }

    fn member<'a>(&'a self, ask: &Ask, uplink: Option<&'a Membership>) -> Member<'a> {
        Member {
            pid: self.pid,
            name: &self.name,
            claim: ask.claim,
            uplink,
        }
    }
}
