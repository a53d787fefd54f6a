//! Requests under way: finding them, ending them.

use pantala_core::{PieceIndex, Time};

use crate::{
    Action, AttemptId, ParentId, RunId,
    attempts::{Attempt, Attempts},
    parents::Parents,
    picker::{Picker, Supernode},
    wanted::Wanted,
};

/// What is under way for one piece.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub attempts: Attempts,
    /// A run receives it.
    pub run: Option<RunId>,
}

impl Work {
    pub fn is_busy(&self) -> bool {
        !self.attempts.is_empty() || self.run.is_some()
    }
}

/// One request that the brain has decided on and that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub attempt: AttemptId,
    /// The piece that was asked for.
    pub piece: PieceIndex,
    /// The parent that was asked.
    pub parent: ParentId,
    /// Whether all its bytes are there; the verdict on them is not.
    pub complete: bool,
}

impl Picker {
    /// The requests that are under way, so that whoever carries them out can check that it knows of the same.
    pub fn requests(&self) -> impl Iterator<Item = Request> {
        self.work.iter().flat_map(|(piece, work)| {
            work.attempts.iter().map(move |attempt| Request {
                attempt: attempt.id,
                piece,
                parent: attempt.parent,
                complete: attempt.complete,
            })
        })
    }

    /// The request and its piece, if it is still under way.
    pub(crate) fn attempt(&mut self, attempt: AttemptId) -> Option<(PieceIndex, &mut Attempt)> {
        let piece = *self.attempts.get(attempt)?;
        let mut attempts = self.work.get_mut(piece)?.attempts.iter_mut();
        Some((piece, attempts.find(|found| found.id == attempt)?))
    }

    /// Requests to a parent that has gone; what is complete still waits for its verdict.
    pub(crate) fn drop_requests_to(&mut self, parent: ParentId) {
        for work in self.work.values_mut() {
            work.attempts.retain(|attempt| {
                let keep = attempt.parent != parent || attempt.complete;
                if !keep {
                    self.attempts.remove(attempt.id);
                }
                keep
            });
        }
        self.drop_idle_work();
    }

    /// Ends all requests for a piece.
    pub(crate) fn drop_work(&mut self, piece: PieceIndex) {
        if let Some(mut work) = self.work.remove(piece) {
            for attempt in work.attempts.take() {
                self.cancel(piece, &attempt);
            }
        }
    }

    /// Where this peer may ask the origin, who was asked and brings nothing, or brought all and
    /// nobody vouches for it, does not stand in the way.
    pub(crate) fn release_stalled(&mut self) {
        if self.leases.is_empty() && self.supernode == Supernode::Up {
            return;
        }
        let (now, patience) = (self.now, self.config.patience);
        let mut stalled = Vec::new();
        let mut next = Time::NEVER;
        for (piece, work) in self.work.iter() {
            if work.attempts.is_empty() || !self.may_ask_origin(piece) {
                continue;
            }
            for attempt in work.attempts.iter() {
                let at = attempt.progressed + patience;
                if at <= now {
                    stalled.push(attempt.id);
                } else {
                    next = next.min(at);
                }
            }
        }
        for attempt in stalled {
            if let Some((piece, _)) = self.end_attempt(attempt) {
                self.actions.push_back(Action::Cancel { attempt, piece });
            }
        }
        self.wake_at(next);
    }

    /// Ends requests for pieces that no window lacks.
    pub(crate) fn cancel_unwanted(&mut self, wanted: &Wanted) {
        let unwanted: Vec<PieceIndex> = self
            .work
            .keys()
            .filter(|&piece| !wanted.contains_key(&piece))
            .collect();
        for piece in unwanted {
            let Some(work) = self.work.get_mut(piece) else {
                continue;
            };
            for attempt in work.attempts.take() {
                self.cancel(piece, &attempt);
            }
        }
        self.drop_idle_work();
    }

    /// Cancels requests without a byte for which `leave` says so.
    pub(crate) fn release_waiting(
        &mut self,
        leave: impl Fn(&Parents, PieceIndex, &Attempt) -> bool,
    ) {
        self.release(|parents, piece, attempt| {
            attempt.bytes == 0 && leave(parents, piece, attempt)
        });
    }

    /// Cancels requests that are not complete and for which `leave` says so.
    pub(crate) fn release(&mut self, leave: impl Fn(&Parents, PieceIndex, &Attempt) -> bool) {
        let mut released = Vec::new();
        for (piece, work) in self.work.iter() {
            let attempts = work.attempts.iter();
            let going = attempts
                .filter(|attempt| !attempt.complete && leave(&self.parents, piece, attempt));
            released.extend(going.map(|attempt| attempt.id));
        }
        for attempt in released {
            if let Some((piece, _)) = self.end_attempt(attempt) {
                self.actions.push_back(Action::Cancel { attempt, piece });
            }
        }
    }

    /// A request is over. Returns its piece and whom it was made to.
    pub(crate) fn end_attempt(&mut self, attempt: AttemptId) -> Option<(PieceIndex, ParentId)> {
        let piece = self.attempts.remove(attempt)?;
        let work = self.work.get_mut(piece)?;
        let ended = work.attempts.remove(attempt)?;
        if !work.is_busy() {
            self.work.remove(piece);
        }
        if let Some(parent) = self.parents.known.get_mut(ended.parent) {
            parent.ended(&ended, self.piece_size);
        }
        Some((piece, ended.parent))
    }

    fn cancel(&mut self, piece: PieceIndex, attempt: &Attempt) {
        self.attempts.remove(attempt.id);
        if let Some(parent) = self.parents.known.get_mut(attempt.parent) {
            parent.ended(attempt, self.piece_size);
        }
        if !attempt.complete || !self.held.contains(piece) {
            self.actions.push_back(Action::Cancel {
                attempt: attempt.id,
                piece,
            });
        }
    }

    pub(crate) fn drop_idle_work(&mut self) {
        self.work.retain(|_, work| work.is_busy());
    }
}
