//! Pieces that have come, and the verdict on them.

use super::*;

impl Driver {
    pub(super) fn vouch(&mut self, digests: Vec<(PieceIndex, PieceDigest)>) {
        for (piece, digest) in digests {
            if self.contradicts(piece, &digest) {
                // What was handed over of it may belong to another version than the rest.
                self.over = Some(error::two_versions(&self.url(), piece));
                return;
            }
            self.digests.insert(piece, digest);
            self.feed(Event::Vouched {
                first: piece,
                count: 1,
            });
        }
    }

    /// Whether a piece is known here by another digest, and its bytes were taken for right: evidence
    /// that there are two versions of the content, or that somebody lies.
    pub(super) fn contradicts(&self, piece: PieceIndex, digest: &PieceDigest) -> bool {
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

    pub(super) fn fetched(&mut self, attempt: AttemptId, buffer: Arc<PieceBuffer>) {
        let Some(state) = self.attempts.get_mut(&attempt) else {
            return;
        };
        state.fetched = true;
        let piece = state.piece;
        self.feed(Event::Fetched {
            attempt,
            bytes: buffer.len() as u64,
        });
        self.unjudged.push((attempt, piece, buffer));
    }

    /// Where in the list the piece is that is to be judged next: the first one in the content whose
    /// digest is known.
    pub(super) fn next_to_judge(&self) -> Option<usize> {
        let known =
            |&(_, (_, piece, _)): &(usize, &(_, PieceIndex, _))| self.digests.contains_key(piece);
        let pieces = self.unjudged.iter().enumerate().filter(known);
        pieces
            .min_by_key(|(_, (_, piece, _))| *piece)
            .map(|(at, _)| at)
    }

    /// Holds a complete piece against the digest the supernode vouched for.
    pub(super) fn judge(&mut self, at: Option<usize>) {
        let Some(at) = at else { return };
        let (attempt, piece, buffer) = self.unjudged.swap_remove(at);
        let Some(digest) = self.digests.get(&piece) else {
            return;
        };
        let geometry = self.handle.pieces.geometry();
        let whole = geometry.length().is_none() || buffer.len() as u64 == geometry.size(piece);
        if whole && PieceDigest::of(buffer.filled()) == *digest {
            self.ports.metrics.verified(1);
            self.seal(piece, buffer);
            return;
        }
        self.ports.metrics.corrupt(1);
        self.handle.pieces.abandon(piece);
        let parent = self
            .attempts
            .remove(&attempt)
            .filter(|attempt| !attempt.goes_on)
            .and_then(|attempt| self.parents.get(&attempt.parent).copied());
        tracing::warn!(task = ?self.handle.id, %piece, ?parent, "a peer sent wrong bytes");
        if let Some(peer) = parent {
            let trouble = Trouble::Corrupt { piece };
            self.say(FromPeer::Trouble {
                task: self.handle.id,
                peer,
                trouble,
            });
        }
        self.feed(Event::Corrupt { attempt });
    }

    pub(super) fn seal(&mut self, piece: PieceIndex, buffer: Arc<PieceBuffer>) {
        self.sourceless = self.sourceless.filter(|&(of, _)| of != piece);
        self.partial.remove(&piece);
        self.attempts.retain(|_, attempt| {
            if attempt.piece == piece
                && let Some(waiting) = &attempt.waiting_for_room
            {
                waiting.abort();
            }
            // Who is late is told so by the brain. Who is done must not hold on to the buffer: a
            // piece that somebody uses cannot be evicted.
            attempt.piece != piece || (attempt.buffer.is_some() && !attempt.fetched)
        });
        self.handle.pieces.seal(piece, buffer);
        self.feed(Event::Sealed { piece });
        self.unjudged.retain(|(_, of, _)| *of != piece);
    }

    pub(super) fn fetch_failed(
        &mut self,
        attempt: AttemptId,
        failure: Failure,
        writer: Option<PieceWriter>,
    ) {
        if let Some(state) = self.attempts.remove(&attempt) {
            let piece = state.piece;
            // Bytes of a refused transfer may be wrong; of a broken one they are as good as any.
            match writer.filter(|writer| writer.position() > 0) {
                Some(writer) if failure == Failure::Gone => {
                    self.partial.insert(piece, writer);
                }
                Some(_) => self.abandon_unless_fetched(piece),
                None => {}
            }
        }
        self.feed(Event::Failed { attempt, failure });
    }

    pub(super) fn abandon_unless_fetched(&mut self, piece: PieceIndex) {
        let fetched = self
            .attempts
            .values()
            .any(|attempt| attempt.piece == piece && attempt.buffer.is_some());
        if !fetched {
            self.partial.remove(&piece);
            self.handle.pieces.abandon(piece);
        }
    }

    /// A transfer from the origin has ended: what it left half done is no more.
    pub(super) fn abandon_trusted(&mut self, run: &RunHandle) {
        // A complete one is about to be sealed.
        if let Some(piece) = run.at
            && let pantala_store::Slot::Filling {
                trusted: true,
                buffer,
            } = self.handle.pieces.slot(piece)
            && buffer.len() < buffer.capacity()
        {
            self.handle.pieces.abandon(piece);
        }
    }
}
