//! Transfers from the origin that end before they should.

use super::*;

impl Driver {
    /// A transfer from the origin failed, after the origin client's own attempts. Where nobody is there
    /// who knows of other ways to the origin, an error that no retry can help ends the readers.
    pub(super) fn run_failed(&mut self, run: RunId, error: Error) {
        let Some(ended) = self.runs.remove(&run) else {
            return;
        };
        self.abandon_trusted(&ended);
        let single = self.is_single();
        let alone = !self.registered || !self.ports.control.is_up();
        let pause = error.pause();
        let refused = error.who() == Who::Origin && !error.is_retryable();
        let fatal = alone && (refused || pause.is_some_and(|pause| pause > PAUSE));
        // That there is nothing where a content of unknown length may have ended before says nothing of
        // the origin.
        let unknown = self.handle.pieces.geometry().length().is_none();
        let beyond = unknown && error.kind() == Kind::RangeNotSatisfiable && !alone && !single;
        self.last_origin_error = Some(error).filter(|_| !beyond);
        if single {
            self.give_transfer_up();
        }
        let (fatal, rest) = (fatal || single, pause.unwrap_or_default());
        self.feed(Event::RunFailed { run, fatal, rest });
    }

    /// All of the content must come from one transfer, and this peer has none open.
    pub(super) fn has_no_transfer(&mut self, run: RunId, first: PieceIndex) {
        self.last_origin_error = Some(self.is_over_at(first));
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
    pub(super) fn transfer_was_stopped(&mut self, run: &RunHandle) {
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
