//! Transfers from the origin: opening them, what becomes of them, and what the origin said.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pantala_core::{Error, Kind, PieceIndex, Who, control::FromPeer};
use pantala_origin::OriginBody;
use pantala_store::{Arrival, Slot};
use pantala_window::{Event, RunId};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Driver;
use crate::{
    error,
    run::{OriginRun, RunSource},
};

/// The transfers that this member makes from the origin for one task.
///
/// Invariant: a transfer is in the table exactly as long as the brain has it as a run. Its task of its own
/// may go on a moment longer, but shows nothing more.
#[derive(Default)]
pub(super) struct Origin {
    runs: HashMap<RunId, Transfer>,
    /// The transfer that brought the metadata, until it is gone on with.
    learned: Option<Learned>,
    /// The lease that this peer took for granted when it learned the content itself, until the
    /// supernode says what it really has.
    assumed: Option<Assumed>,
    last_error: Option<Error>,
    /// A piece that has no source though the origin may not be asked, and since when.
    sourceless: Option<(PieceIndex, Instant)>,
    /// Bytes that came since the supernode was told last.
    received: Arc<AtomicU64>,
}

/// A transfer that is under way.
pub(super) struct Transfer {
    until: watch::Sender<PieceIndex>,
    stop: CancellationToken,
    arrival: Arc<Arrival>,
    /// The piece it is receiving.
    at: Option<PieceIndex>,
}

struct Learned {
    start: u64,
    body: OriginBody,
}

pub(super) struct Assumed {
    pub first: PieceIndex,
    until: Instant,
}

/// How long after learning the supernode may take to confirm the lease.
const CONFIRM: Duration = Duration::from_secs(2);
/// How long a reader who may not ask the origin waits for a peer that has the next piece.
const NOBODY: Duration = Duration::from_secs(5);
/// The longest pause that an origin can ask for in the middle of a content and have its readers wait.
const PAUSE: Duration = Duration::from_secs(10);

impl Origin {
    pub fn has_no_runs(&self) -> bool {
        self.runs.is_empty()
    }

    /// The pieces that transfers are receiving.
    pub fn receiving(&self) -> impl Iterator<Item = PieceIndex> {
        self.runs.values().filter_map(|run| run.at)
    }

    /// This peer learned the content from the origin itself, and takes it for granted that it may go on.
    /// Where the transfer ends with a part (`end`) nobody is told of it, and there is nothing to be confirmed.
    pub fn learned(
        &mut self,
        first: PieceIndex,
        end: Option<PieceIndex>,
        start: u64,
        body: OriginBody,
    ) {
        self.learned = Some(Learned { start, body });
        let until = Instant::now() + CONFIRM;
        self.assumed = end.is_none().then_some(Assumed { first, until });
    }

    /// The lease that was taken for granted: the supernode has said what is true.
    pub fn take_assumed(&mut self) -> Option<Assumed> {
        self.assumed.take()
    }

    /// The same, when the supernode has had the time to say so.
    pub fn take_unconfirmed(&mut self, now: Instant) -> Option<Assumed> {
        self.assumed.take_if(|assumed| now >= assumed.until)
    }

    /// When an assumed lease will not be confirmed any more.
    pub fn confirmed_by(&self) -> Option<Instant> {
        self.assumed.as_ref().map(|assumed| assumed.until)
    }

    /// The body that brought the metadata, if a transfer from `start` on can go on with it. It can be asked
    /// for once.
    fn take_learned(&mut self, start: u64) -> Option<OriginBody> {
        let Learned { start: from, body } = self.learned.take()?;
        (from <= start && body.position() == from).then_some(body)
    }

    pub fn failed(&mut self, error: Option<Error>) {
        self.last_error = error;
    }

    pub fn last_error(&self) -> Option<Error> {
        self.last_error.clone()
    }

    /// Bytes that came since this was asked last.
    pub fn take_received(&self) -> u64 {
        self.received.swap(0, Ordering::Relaxed)
    }

    /// How far a transfer has got; `false` when that is over.
    fn is_at(&mut self, run: RunId, piece: PieceIndex) -> bool {
        let found = self.runs.get_mut(&run);
        found.map(|run| run.at = Some(piece)).is_some()
    }

    pub fn extend(&self, run: RunId, until: PieceIndex) {
        if let Some(run) = self.runs.get(&run) {
            run.until.send_replace(until);
        }
    }

    /// A piece is here: it had a source.
    pub fn sealed(&mut self, piece: PieceIndex) {
        self.sourceless.take_if(|&mut (of, _)| of == piece);
    }

    /// Nobody is known to have a piece. Whether that has been so for too long.
    fn is_sourceless_for_long(&mut self, piece: PieceIndex, now: Instant) -> bool {
        match self.sourceless {
            Some((of, since)) if of == piece => now.duration_since(since) >= NOBODY,
            _ => {
                self.sourceless = Some((piece, now));
                false
            }
        }
    }

    pub fn stop_all(&self) {
        self.runs.values().for_each(|run| run.stop.cancel());
    }
}

impl Driver {
    pub(super) fn open_run(
        &mut self,
        run: RunId,
        first: PieceIndex,
        until: PieceIndex,
        goal: Option<PieceIndex>,
    ) {
        let reader = self.source().cloned();
        let start = self.handle.pieces.geometry().start(first);
        let source = match (self.origin.take_learned(start), reader) {
            (Some(body), _) => RunSource::Open(body),
            _ if self.is_single() => {
                self.has_no_transfer(run, first);
                return;
            }
            (_, Some(source)) if source.allowed => RunSource::Request {
                origin: self.ports.origin.clone(),
                source,
                meta: Box::new(self.meta()),
                goal,
            },
            _ => {
                self.origin.failed(Some(error::nobody_has_it()));
                self.feed(Event::RunFailed {
                    run,
                    fatal: false,
                    rest: Duration::ZERO,
                });
                return;
            }
        };
        let (until_tx, until) = watch::channel(until);
        let stop = self.ports.cancel.child_token();
        let arrival = self.handle.pieces.arrival(true);
        let transfer = OriginRun {
            run,
            pieces: self.handle.pieces.clone(),
            arrival: arrival.clone(),
            budget: self.ports.store.budget().clone(),
            limits: self.handle.rates.download.clone(),
            commands: self.handle.commands.clone(),
            received: self.origin.received.clone(),
            until,
            stop: stop.clone(),
        };
        let opened = Transfer {
            until: until_tx,
            stop,
            arrival,
            at: None,
        };
        self.origin.runs.insert(run, opened);
        self.ports.tracker.spawn(transfer.drive(first, source));
    }

    /// A transfer has come to a piece. Where it was stopped before this was heard, what it has shown of the
    /// piece goes now.
    pub(super) fn run_at(&mut self, run: RunId, piece: PieceIndex) {
        if !self.origin.is_at(run, piece) && self.origin.receiving().all(|other| other != piece) {
            self.abandon_half(piece);
        }
        self.feed(Event::RunAt { run, piece });
    }

    /// The brain does not need a transfer any more.
    pub(super) fn stop_run(&mut self, run: RunId) {
        if let Some(run) = self.origin.runs.remove(&run) {
            run.stop.cancel();
            self.abandon_trusted(&run);
            self.transfer_was_stopped(&run);
        }
    }

    /// A transfer from the origin failed, after the origin client's own attempts. Where nobody is there
    /// who knows of other ways to the origin, an error that no retry can help ends the readers.
    pub(super) fn run_failed(&mut self, run: RunId, error: Error) {
        let Some(ended) = self.origin.runs.remove(&run) else {
            return;
        };
        self.abandon_trusted(&ended);
        let single = self.is_single();
        let alone = !self.report.is_registered() || !self.ports.control.is_up();
        let pause = error.pause();
        let refused = error.who() == Who::Origin && !error.is_retryable();
        let fatal = alone && (refused || pause.is_some_and(|pause| pause > PAUSE));
        // That there is nothing where a content of unknown length may have ended before says nothing of
        // the origin.
        let unknown = self.handle.pieces.geometry().length().is_none();
        let beyond = unknown && error.kind() == Kind::RangeNotSatisfiable && !alone && !single;
        self.origin.failed(Some(error).filter(|_| !beyond));
        if single {
            self.give_transfer_up();
        }
        let (fatal, rest) = (fatal || single, pause.unwrap_or_default());
        self.feed(Event::RunFailed { run, fatal, rest });
    }

    /// Others have met an origin that does not serve, or that asks for a pause. A short one is waited
    /// for.
    pub(super) fn origin_failed(&mut self, error: Error) {
        let waits = error.pause().is_some_and(|pause| pause <= PAUSE);
        self.origin.failed(Some(error));
        if !waits {
            self.feed(Event::OriginFailed);
        }
    }

    /// Nobody has the piece or will, and the origin may not be asked: readers wait for a peer that
    /// may come, but not for ever.
    pub(super) fn without_source(&mut self, piece: PieceIndex) {
        if self.origin.is_sourceless_for_long(piece, Instant::now()) {
            self.handle.readers.fail(&error::nobody_has_it());
        }
    }

    /// What is assumed of a lease has not been confirmed: it is over.
    pub(super) fn end_unconfirmed(&mut self, now: Instant) {
        if let Some(assumed) = self.origin.take_unconfirmed(now)
            && self.ports.control.is_up()
        {
            self.feed(Event::LeaseEnded {
                first: assumed.first,
                end: None,
            });
        }
    }

    /// A transfer from the origin has ended: what it left half done is no more.
    fn abandon_trusted(&mut self, run: &Transfer) {
        run.arrival.end();
        if let Some(piece) = run.at {
            self.abandon_half(piece);
        }
    }

    /// What the origin sent of a piece is of no use. A complete one is about to be sealed.
    fn abandon_half(&mut self, piece: PieceIndex) {
        if let Slot::Filling {
            trusted: true,
            buffer,
        } = self.handle.pieces.slot(piece)
            && buffer.len() < buffer.capacity()
        {
            self.handle.pieces.abandon(piece);
        }
    }

    /// All of the content must come from one transfer, and this peer has none open.
    fn has_no_transfer(&mut self, run: RunId, first: PieceIndex) {
        let error = self.is_over_at(first);
        self.origin.failed(Some(error));
        // A supernode that comes back may know who has it.
        let fatal = self.ports.control.is_up();
        if fatal {
            self.give_transfer_up();
        }
        let rest = Duration::ZERO;
        self.feed(Event::RunFailed { run, fatal, rest });
    }

    /// Nobody here needs a transfer any more. If all of the content must come from it, and it has not
    /// brought all, then others must know.
    fn transfer_was_stopped(&mut self, run: &Transfer) {
        let pieces = self.handle.pieces.geometry().pieces();
        let next = run.at.map_or(0, |at| match self.handle.pieces.slot(at) {
            Slot::Held(_) => at.next().get(),
            Slot::Filling { .. } | Slot::Missing => at.get(),
        });
        if self.is_single() && pieces.is_none_or(|pieces| next < pieces) {
            self.give_transfer_up();
        }
    }

    /// The transfer that all of the content must come from is over before its end.
    pub(super) fn give_transfer_up(&mut self) {
        self.handle.broken.store(true, Ordering::Relaxed);
        let (task, first, end) = (self.handle.id, PieceIndex::new(0), None);
        self.say(FromPeer::ReturnLease { task, first, end });
        self.feed(Event::LeaseEnded { first, end });
    }
}
