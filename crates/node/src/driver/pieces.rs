//! Pieces that have come, and the verdict on them.

use std::{collections::HashMap, sync::Arc};

use pantala_core::{
    PieceDigest, PieceIndex,
    control::{FromPeer, Trouble},
};
use pantala_store::{PieceBuffer, PieceWriter, Slot};
use pantala_window::{AttemptId, Event, Failure};

use super::Driver;
use crate::error;

impl Driver {
    pub(super) fn vouch(&mut self, digests: Vec<(PieceIndex, PieceDigest)>) {
        for (piece, digest) in digests {
            if !self.vouch_for(piece, digest) {
                return;
            }
        }
    }

    /// Somebody who is believed says what the digest of a piece is. `false` when the task is over for that.
    fn vouch_for(&mut self, piece: PieceIndex, digest: PieceDigest) -> bool {
        if self.contradicts(piece, &digest) {
            // What was handed over of it may belong to another version than the rest.
            self.over = Some(error::two_versions(&self.url(), piece));
            return false;
        }
        self.digests.insert(piece, digest);
        self.feed(Event::Vouched {
            first: piece,
            count: 1,
        });
        true
    }

    /// Whether a piece is known here by another digest, and its bytes were taken for right: evidence
    /// that there are two versions of the content, or that somebody lies.
    fn contradicts(&self, piece: PieceIndex, digest: &PieceDigest) -> bool {
        let other = self
            .digests
            .get(&piece)
            .is_some_and(|known| known != digest);
        let coming = || {
            let slot = self.handle.pieces.slot(piece);
            matches!(slot, Slot::Held(_) | Slot::Filling { trusted: true, .. })
        };
        other && coming()
    }

    /// A transfer from the origin has brought a piece.
    pub(super) fn came_from_origin(
        &mut self,
        piece: PieceIndex,
        buffer: Arc<PieceBuffer>,
        digest: PieceDigest,
    ) {
        if !self.vouch_for(piece, digest) {
            return;
        }
        self.say(FromPeer::Sealed {
            task: self.handle.id,
            piece,
            digest,
        });
        self.seal(piece, buffer);
        if self.is_single() {
            self.handle.transfer_is_at(piece.next());
        }
    }

    pub(super) fn fetched(&mut self, attempt: AttemptId, buffer: &PieceBuffer) {
        if self.requests.fetched(attempt) {
            let bytes = buffer.len() as u64;
            self.feed(Event::Fetched { attempt, bytes });
        }
    }

    /// The request that is to be judged next.
    pub(super) fn next_to_judge(&self) -> Option<AttemptId> {
        let known = |piece| self.digests.contains_key(&piece);
        self.requests.next_to_judge(known)
    }

    /// Holds a complete piece against the digest the supernode vouched for.
    pub(super) fn judge(&mut self, attempt: Option<AttemptId>) {
        let Some((piece, buffer, parent)) =
            attempt.and_then(|attempt| self.requests.judged(attempt))
        else {
            return;
        };
        let geometry = self.handle.pieces.geometry();
        let whole = geometry.length().is_none() || buffer.len() as u64 == geometry.size(piece);
        let known = self.digests.get(&piece);
        if whole && known == Some(&PieceDigest::of(buffer.filled())) {
            self.ports.metrics.verified(1);
            self.seal(piece, buffer);
            return;
        }
        self.ports.metrics.corrupt(1);
        self.handle.pieces.abandon(piece);
        let parent = parent.and_then(|parent| self.parents.peer(parent));
        tracing::warn!(task = ?self.handle.id, %piece, ?parent, "a peer sent wrong bytes");
        if let Some(peer) = parent {
            let trouble = Trouble::Corrupt { piece };
            self.say(FromPeer::Trouble {
                task: self.handle.id,
                peer,
                trouble,
            });
        }
        if let Some(attempt) = attempt {
            self.feed(Event::Corrupt { attempt });
        }
    }

    fn seal(&mut self, piece: PieceIndex, buffer: Arc<PieceBuffer>) {
        self.origin.sealed(piece);
        self.requests.sealed(piece);
        self.handle.pieces.seal(piece, buffer);
        self.feed(Event::Sealed { piece });
    }

    pub(super) fn fetch_failed(
        &mut self,
        attempt: AttemptId,
        failure: Failure,
        writer: Option<PieceWriter>,
    ) {
        match failure {
            // The brain is told at the next tick: it may be the only parent, and would be asked at once.
            Failure::Busy => self.requests.turned_away(attempt),
            _ => {
                self.requests.failed(attempt, failure, writer);
                self.feed(Event::Failed { attempt, failure });
            }
        }
    }

    /// Tells the brain of requests that were refused because their parents have too much to do.
    pub(super) fn end_turned_away(&mut self) {
        let failure = Failure::Busy;
        for attempt in self.requests.end_turned_away() {
            self.feed(Event::Failed { attempt, failure });
        }
    }
}

/// The digests that somebody who is believed has said. There is at most one for each piece of the content.
pub(super) type Digests = HashMap<PieceIndex, PieceDigest>;
