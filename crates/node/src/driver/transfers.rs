//! Transfers from the origin that end before they should.

use super::*;

/// How often the origin refuses this peer what it has a lease for until its readers are told.
const REFUSALS: u32 = 3;

impl Driver {
    /// A transfer from the origin failed, after the origin client's own attempts.
    pub(super) fn run_failed(&mut self, run: RunId, error: Error) {
        let Some(ended) = self.runs.remove(&run) else {
            return;
        };
        self.abandon_trusted(&ended);
        let fatal = error.who() == Who::Origin && !error.is_retryable();
        // That these credentials are refused says nothing of what other members bring, nor that there
        // is nothing where a content of unknown length may have ended before: the lease goes back. Who
        // gets it again and again, because there is nobody else, ends with this error all the same.
        let unknown = self.handle.pieces.geometry().length().is_none();
        let refused = match error.kind() {
            Kind::Denied => true,
            Kind::RangeNotSatisfiable => unknown,
            _ => false,
        };
        self.refusals += u32::from(refused);
        let refused = refused && self.refusals < REFUSALS && self.ports.control.is_up();
        self.last_origin_error = Some(error);
        if self.is_single() {
            self.give_transfer_up();
        }
        let fatal = (fatal && !refused) || self.is_single();
        self.feed(Event::RunFailed { run, fatal });
    }

    /// All of the content must come from one transfer, and this peer has none open.
    pub(super) fn has_no_transfer(&mut self, run: RunId, first: PieceIndex) {
        self.last_origin_error = Some(self.is_over_at(first));
        // A supernode that comes back may know who has it.
        let fatal = self.ports.control.is_up();
        if fatal {
            self.give_transfer_up();
        }
        self.feed(Event::RunFailed { run, fatal });
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
    fn give_transfer_up(&mut self) {
        self.handle.broken.store(true, Ordering::Relaxed);
        let (task, first, end) = (self.handle.id, PieceIndex::new(0), None);
        self.say(FromPeer::ReturnLease { task, first, end });
        self.feed(Event::LeaseEnded { first, end });
    }
}
