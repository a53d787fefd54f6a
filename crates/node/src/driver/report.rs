//! What the supernode is told of this member of a task, and how often.

use std::time::Duration;

use pantala_core::{PieceIndex, TaskId, control::FromPeer};
use pantala_store::Change;
use pantala_window::{Class, Event};
use tokio::{sync::broadcast, time::Instant};

use super::{Driver, PIECES_MAX};
use crate::announce::Announcer;

/// Whether the supernode knows of this member, and what it is to hear next.
pub(super) struct Report {
    announcer: Announcer,
    /// The supernode speaks for this task and listens to this member.
    registered: bool,
    /// Since when the readers have been what is slow.
    bound_since: Option<Instant>,
    progress_at: Instant,
    pulse_at: Instant,
}

/// How often a request's progress is told to the brain, and how far pieces are to the supernode.
const PROGRESS: Duration = Duration::from_millis(50);
/// How often a lease holder says that it lives: one that has fallen silent is found out by that.
const PULSE: Duration = Duration::from_millis(100);
/// How long a reader must have been the slow one until the supernode hears of it.
const BOUND: Duration = Duration::from_millis(300);

impl Report {
    pub fn new(task: TaskId, now: Instant) -> Self {
        Self {
            announcer: Announcer::new(task),
            registered: false,
            bound_since: None,
            progress_at: now + PROGRESS,
            pulse_at: now + PULSE,
        }
    }

    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// The supernode knows of this member now; whether it did before.
    pub fn register(&mut self) -> bool {
        std::mem::replace(&mut self.registered, true)
    }

    /// The supernode keeps no account of the task.
    pub fn unlist(&mut self) {
        self.registered = false;
    }

    /// The supernode is being told of all pieces: there is no news besides.
    pub fn told_all(&mut self) {
        self.announcer.forget();
    }

    /// How far the readers are, as the supernode was told last.
    pub fn position(&self) -> PieceIndex {
        self.announcer.position()
    }

    /// When there is something to say.
    pub fn due(&self) -> Option<Instant> {
        self.announcer.due()
    }

    /// When it is time again to see how far what comes is.
    pub fn next_progress(&self) -> Instant {
        self.progress_at
    }

    pub fn next_pulse(&self) -> Instant {
        self.pulse_at
    }

    /// What the supernode hears of a change in memory.
    fn changed(&mut self, change: Change) {
        match change {
            Change::Receiving(_) => self.announcer.begins(),
            Change::Held(piece) => self.announcer.held(piece),
            Change::Evicted(piece) => self.announcer.lost(piece),
            // It was never held: the supernode knows only how many bytes are on their way.
            Change::Abandoned(_) | Change::Ended(_) | Change::Closed => {}
        }
    }

    /// The readers are at this piece, and whether they are what is slow.
    fn readers_are_at(&mut self, position: PieceIndex, slow: bool, now: Instant) {
        self.bound_since = slow.then(|| self.bound_since.unwrap_or(now));
        let bound = self.bound_since.is_some_and(|since| now - since >= BOUND);
        self.announcer.reader(position, bound);
    }
}

impl Driver {
    pub(super) fn say(&self, message: FromPeer) {
        if self.report.registered {
            self.ports.control.send(message);
        }
    }

    /// Says what there is to say of pieces and readers.
    pub(super) fn announce(&mut self) {
        let now = Instant::now();
        if self.report.due().is_some_and(|due| due <= now) {
            // What was just sealed is no longer on its way: it must not be missing in both.
            self.hear_news();
        }
        loop {
            let (requests, origin) = (&self.requests, &self.origin);
            let in_flight = || requests.in_flight(origin.receiving());
            let Some(have) = self.report.announcer.take(now, in_flight) else {
                return;
            };
            self.say(have);
        }
    }

    /// Takes what news of pieces there is.
    fn hear_news(&mut self) {
        loop {
            match self.news.try_recv() {
                Ok(change) => self.change(Ok(change)),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => {
                    self.change(Err(broadcast::error::RecvError::Lagged(missed)));
                }
                Err(_) => return,
            }
        }
    }

    pub(super) fn change(&mut self, change: Result<Change, broadcast::error::RecvError>) {
        match change {
            Ok(change) => {
                self.report.changed(change);
                // Of one that was abandoned the brain knows: it has cancelled its request, or heard that
                // that failed.
                if let Change::Evicted(piece) = change {
                    self.feed(Event::Evicted { piece });
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // Missed some: what is held now is what counts.
                let (held, _, news) = self.handle.pieces.follow();
                self.news = news;
                let end = self.handle.pieces.geometry().pieces().unwrap_or(PIECES_MAX);
                let known = self
                    .digests
                    .keys()
                    .copied()
                    .filter(|piece| piece.get() < end);
                let gone: Vec<PieceIndex> = known.filter(|&piece| !held.contains(piece)).collect();
                for piece in gone {
                    self.feed(Event::Evicted { piece });
                    self.report.announcer.lost(piece);
                }
                for piece in held.iter() {
                    self.report.announcer.held(piece);
                }
            }
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    /// Tells the brain how far its requests are, and counts what is on its way for the supernode.
    pub(super) fn progress(&mut self, now: Instant) {
        for (attempt, bytes) in self.requests.progress() {
            self.feed(Event::Progress { attempt, bytes });
        }
        if now >= self.report.progress_at {
            self.report.progress_at = now + PROGRESS;
            let bytes = self.requests.in_flight(self.origin.receiving());
            self.report.announcer.in_flight(bytes);
        }
    }

    /// Says that a lease holder lives, and how far the readers are.
    pub(super) fn pulse(&mut self, now: Instant) {
        if now < self.report.pulse_at {
            return;
        }
        self.report.pulse_at = now + PULSE;
        if !self.origin.has_no_runs() {
            let bytes = self.origin.take_received();
            let task = self.handle.id;
            tracing::trace!(?task, bytes, requests = self.requests.len(), "pulse");
            self.say(FromPeer::Pulse { task, bytes });
        }
        self.report_reader(now);
    }

    /// How far the readers are, and whether they are what is slow.
    fn report_reader(&mut self, now: Instant) {
        let windows = self.picker.snapshot().windows;
        let Some(position) = windows.iter().map(|window| window.1).min() else {
            // Nobody reads any more: this peer gets no more pieces.
            if self.readers.were_there()
                && let Some(end) = self.handle.pieces.geometry().pieces()
            {
                self.report.announcer.reader(PieceIndex::new(end), false);
            }
            return;
        };
        // Who reads on for others waits for them alone.
        let own = !self.readers.is_empty();
        let slow = own
            && windows
                .iter()
                .all(|&(_, _, size, held)| held >= 2 && 2 * held > size);
        let resting = own && self.readers.all_rest();
        // That nothing comes is no parent's fault.
        let slow = slow || resting || self.class.current() == Class::Paused;
        self.report.readers_are_at(position, slow, now);
    }
}
