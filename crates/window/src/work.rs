//! Requests under way: finding them, ending them.

use pantala_core::{PieceIndex, Time};

use crate::{Action, AttemptId, ParentId, RunId, parents::Parents, picker::Picker, wanted::Wanted};

/// Requests under way for one piece.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub attempts: Vec<Attempt>,
    /// A run receives it.
    pub run: Option<RunId>,
}

#[derive(Debug)]
pub(crate) struct Attempt {
    pub id: AttemptId,
    pub parent: ParentId,
    pub bytes: u64,
    /// When bytes last came, or it was asked.
    pub progressed: Time,
    /// Since when its parent has had the beginning of the piece: who waits for it itself is not late.
    pub able: Option<Time>,
    /// All bytes are there; the verdict on them is not.
    pub complete: bool,
    /// The piece was asked of somebody else before.
    pub hedge: bool,
}

impl Work {
    pub fn is_busy(&self) -> bool {
        !self.attempts.is_empty() || self.run.is_some()
    }
}

impl Picker {
    /// Where a request stands: its piece, and its place among that piece's requests.
    pub(crate) fn find(&self, attempt: AttemptId) -> Option<(PieceIndex, usize)> {
        let piece = *self.attempts.get(&attempt)?;
        let attempts = &self.work.get(&piece)?.attempts;
        let at = attempts.iter().position(|found| found.id == attempt)?;
        Some((piece, at))
    }

    /// The request, if it is still under way.
    pub(crate) fn attempt(&mut self, attempt: AttemptId) -> Option<&mut Attempt> {
        let (piece, at) = self.find(attempt)?;
        self.work.get_mut(&piece)?.attempts.get_mut(at)
    }

    /// Requests to a parent that has gone; what is complete still waits for its verdict.
    pub(crate) fn drop_requests_to(&mut self, parent: ParentId) {
        for work in self.work.values_mut() {
            work.attempts.retain(|attempt| {
                let keep = attempt.parent != parent || attempt.complete;
                if !keep {
                    self.attempts.remove(&attempt.id);
                }
                keep
            });
        }
        self.drop_idle_work();
    }

    /// Ends all requests for a piece.
    pub(crate) fn drop_work(&mut self, piece: PieceIndex) {
        if let Some(work) = self.work.remove(&piece) {
            for attempt in work.attempts {
                self.cancel(piece, &attempt);
            }
        }
    }

    /// Where this peer may ask the origin, who was asked and brings nothing, or brought all and
    /// nobody vouches for it, does not stand in the way.
    pub(crate) fn release_stalled(&mut self) {
        let (now, patience) = (self.now, self.config.patience);
        let mut stalled = Vec::new();
        let mut next = Time::NEVER;
        for (&piece, work) in &self.work {
            if work.attempts.is_empty() || !self.may_ask_origin(piece) {
                continue;
            }
            for attempt in &work.attempts {
                let at = attempt.progressed + patience;
                if at <= now {
                    stalled.push(attempt.id);
                } else {
                    next = next.min(at);
                }
            }
        }
        for attempt in stalled {
            if let Some((piece, at)) = self.find(attempt) {
                self.remove_attempt(piece, at);
                self.actions.push_back(Action::Cancel { attempt, piece });
            }
        }
        self.wake_at(next);
    }

    pub(crate) fn cancel_unwanted(&mut self, wanted: &Wanted) {
        let unwanted: Vec<PieceIndex> = self
            .work
            .keys()
            .copied()
            .filter(|piece| !wanted.contains_key(piece))
            .collect();
        for piece in unwanted {
            let Some(work) = self.work.get_mut(&piece) else {
                continue;
            };
            for attempt in std::mem::take(&mut work.attempts) {
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
        for (&piece, work) in &mut self.work {
            let parents = &self.parents;
            work.attempts.retain(|attempt| {
                let go = !attempt.complete && leave(parents, piece, attempt);
                if go {
                    released.push((piece, attempt.id, attempt.parent));
                }
                !go
            });
        }
        for (piece, attempt, parent) in released {
            if let Some(parent) = self.parents.known.get_mut(&parent) {
                parent.outstanding.remove(&attempt);
            }
            self.attempts.remove(&attempt);
            self.actions.push_back(Action::Cancel { attempt, piece });
        }
        self.drop_idle_work();
    }

    pub(crate) fn remove_attempt(&mut self, piece: PieceIndex, at: usize) -> ParentId {
        let work = self
            .work
            .get_mut(&piece)
            .expect("the attempt was found in it");
        let attempt = work.attempts.remove(at);
        self.attempts.remove(&attempt.id);
        if let Some(parent) = self.parents.known.get_mut(&attempt.parent) {
            parent.outstanding.remove(&attempt.id);
        }
        self.drop_idle_work();
        attempt.parent
    }

    pub(crate) fn cancel(&mut self, piece: PieceIndex, attempt: &Attempt) {
        self.attempts.remove(&attempt.id);
        if let Some(parent) = self.parents.known.get_mut(&attempt.parent) {
            parent.outstanding.remove(&attempt.id);
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
