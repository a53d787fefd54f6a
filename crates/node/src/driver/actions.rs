//! Carrying out what the brain decides.

use pantala_core::{
    PieceIndex,
    control::{FromPeer, Trouble},
};
use pantala_store::{PieceBuffer, PieceWriter, Slot};
use pantala_window::{Action, AttemptId, Failure, ParentId};

use super::{Driver, request::Asked};
use crate::{
    download::{NotTaken, Want},
    error,
    task::Command,
};

impl Driver {
    pub(super) fn act(&mut self, action: Action) {
        if !matches!(
            action,
            Action::Pin { .. } | Action::Unpin { .. } | Action::ExtendRun { .. }
        ) {
            tracing::debug!(task = ?self.handle.id, ?action, "decided");
        }
        match action {
            Action::Fetch {
                attempt,
                piece,
                parent,
                urgency,
                hedge,
            } => {
                if hedge {
                    self.ports.metrics.hedged(1);
                }
                self.fetch(attempt, piece, parent, urgency, hedge);
            }
            Action::Cancel { attempt, .. } => self.cancel(attempt),
            Action::OpenRun {
                run,
                first,
                until,
                goal,
            } => self.open_run(run, first, until, goal),
            Action::ExtendRun { run, until } => self.origin.extend(run, until),
            Action::StopRun { run } => self.stop_run(run),
            Action::AskLease { piece, late } => {
                let allowed = self.source().is_some_and(|source| source.allowed);
                if !allowed && !late {
                    self.without_source(piece);
                }
                if allowed || late {
                    self.say(FromPeer::AskLease {
                        task: self.handle.id,
                        piece,
                        late,
                    });
                }
            }
            // Nobody else may have it, and the transfer would be taken for unneeded here.
            Action::OfferLease { .. } if self.is_single() => {}
            Action::OfferLease { first, end } => self.say(FromPeer::OfferLease {
                task: self.handle.id,
                first,
                end,
            }),
            Action::ReturnLease { first, end } => {
                self.say(FromPeer::ReturnLease {
                    task: self.handle.id,
                    first,
                    end,
                });
            }
            Action::BlameOrigin { first, end } => {
                let task = self.handle.id;
                self.say(match self.origin.last_error() {
                    Some(error) => FromPeer::OriginFailed {
                        task,
                        first,
                        end,
                        error,
                    },
                    None => FromPeer::ReturnLease { task, first, end },
                });
            }
            Action::Pin { piece } => self.handle.pieces.set_pins(piece, 1),
            Action::Unpin { piece } => self.handle.pieces.set_pins(piece, 0),
            Action::ReportSlow { parent } => {
                if let Some(peer) = self.parents.peer(parent) {
                    let trouble = Trouble::Slow;
                    self.say(FromPeer::Trouble {
                        task: self.handle.id,
                        peer,
                        trouble,
                    });
                }
            }
            Action::GiveUp => {
                let error = self.origin.last_error();
                let error = error.unwrap_or_else(error::nobody_has_it);
                self.handle.readers.fail(&error);
            }
        }
    }

    fn fetch(
        &mut self,
        attempt: AttemptId,
        piece: PieceIndex,
        parent: ParentId,
        urgency: u32,
        hedge: bool,
    ) {
        let left = self
            .requests
            .decided(attempt, piece, parent, urgency, hedge);
        if let Some(writer) = left {
            self.request(attempt, writer);
            return;
        }
        let size = self.handle.pieces.geometry().size(piece);
        if let Some(charge) = self.ports.store.budget().try_charge(size) {
            self.request(attempt, PieceBuffer::charged(charge).1);
            return;
        }
        let budget = self.ports.store.budget().clone();
        let commands = self.handle.commands.clone();
        let waiting = self.ports.tracker.spawn(async move {
            let charge = budget.charge(size).await;
            let _ = commands.send(Command::Room { attempt, charge }).await;
        });
        self.requests.waits(attempt, waiting.abort_handle());
    }

    /// Sends a request for which there is room.
    pub(super) fn request(&mut self, attempt: AttemptId, mut writer: PieceWriter) {
        let Some(request) = self.requests.get(attempt) else {
            return;
        };
        let (piece, urgency) = (request.piece, self.class.urgency(request));
        let Some(link) = self.parents.link(request.parent).cloned() else {
            self.fetch_failed(attempt, Failure::Gone, Some(writer));
            return;
        };
        if request.hedge && writer.position() == 0 {
            // Go on from what the late one has brought so far.
            if let Slot::Filling { buffer, .. } = self.handle.pieces.slot(piece) {
                writer.append(buffer.filled());
            }
        }
        let asked = Asked::new(&self.handle.pieces, &writer);
        let want = Want {
            attempt,
            task: self.handle.id,
            piece,
            urgency,
            writer,
            arrival: asked.arrival(),
            limits: self.handle.rates.download.clone(),
            commands: self.handle.commands.clone(),
        };
        self.requests.asked(attempt, asked);
        match link.want(want) {
            Ok(()) => {}
            Err(NotTaken { want, ended: true }) => {
                self.fetch_failed(attempt, Failure::Gone, Some(want.writer));
                // Its last words are still on their way here; until they come nobody is to be
                // asked there again.
                self.link_down(link.peer, &error::link_ended());
            }
            Err(NotTaken { ended: false, .. }) => self.requests.turned_away(attempt),
        }
    }

    fn cancel(&mut self, attempt: AttemptId) {
        let asked = self.requests.cancelled(attempt);
        if let Some(link) = asked.and_then(|parent| self.parents.link(parent)) {
            link.cancel(self.handle.id, attempt);
        }
    }
}
