//! What the supernode says, and what it is told.

use super::*;

impl Driver {
    pub(super) fn control(&mut self, message: ToPeer) {
        if !matches!(message, ToPeer::Digests { .. }) {
            tracing::debug!(task = ?self.handle.id, ?message, "the supernode says");
        }
        match message {
            ToPeer::Parents { parents, .. } => self.set_parents(parents),
            ToPeer::Digests { digests, .. } => self.vouch(digests),
            ToPeer::Lease { first, end, .. } => {
                self.feed(Event::LeaseGranted { first, end });
                if let Some(assumed) = self.assumed.take() {
                    // The real lease is what was said; what was assumed beyond it is over.
                    if assumed.first < first {
                        self.feed(Event::LeaseEnded {
                            first: assumed.first,
                            end: Some(first),
                        });
                    }
                    if let Some(end) = end {
                        self.feed(Event::LeaseEnded {
                            first: end,
                            end: None,
                        });
                    }
                }
            }
            ToPeer::LeaseEnded { first, end, .. } => self.feed(Event::LeaseEnded { first, end }),
            ToPeer::Ended { length, .. } => self.ended(length),
            ToPeer::Poisoned { .. } => self.poisoned = true,
            ToPeer::Unknown { .. } => self.resume(),
            ToPeer::Turn { turn, .. } => self.ports.store.turn(&self.handle.id, turn),
            ToPeer::Copies { pieces, copies, .. } => self.copies(pieces, copies),
            ToPeer::Known { .. }
            | ToPeer::Learn { .. }
            | ToPeer::Direct { .. }
            | ToPeer::Changed { .. }
            | ToPeer::Measure { .. }
            | ToPeer::Refused { .. } => {}
        }
    }

    /// Who else has pieces that are held here, for the order in which they leave.
    pub(super) fn copies(&self, pieces: Vec<PieceRun>, copies: Copies) {
        let end = self.pieces_max();
        for (first, count) in pieces {
            let last = first.get().saturating_add(count).min(end);
            for piece in (first.get()..last).map(PieceIndex::new) {
                self.ports.store.copies(&self.handle.id, piece, copies);
            }
        }
    }

    /// The piece after the last that there can be: what somebody claims must not make us count to
    /// four billion.
    pub(super) fn pieces_max(&self) -> u32 {
        let pieces = self.handle.pieces.geometry().pieces();
        pieces.unwrap_or(PIECES_MAX).min(PIECES_MAX)
    }

    pub(super) fn known(&mut self, known: Known) {
        if !std::mem::replace(&mut self.registered, true) {
            self.catch_up();
        }
        if let Some(length) = known.meta.length {
            self.ended(length);
        }
        self.vouch(known.digests);
        self.set_parents(known.parents);
    }

    /// Says what came from the origin before the supernode knew the task.
    pub(super) fn catch_up(&mut self) {
        let task = self.handle.id;
        for (&piece, &digest) in &self.digests {
            self.say(FromPeer::Sealed {
                task,
                piece,
                digest,
            });
        }
        let (held, _, _) = self.handle.pieces.follow();
        if !held.is_empty() {
            self.say(FromPeer::Have {
                task,
                gained: held.runs(),
                lost: Vec::new(),
                position: self.announcer.position(),
                in_flight: 0,
                reader_bound: false,
            });
        }
        self.announcer.forget();
    }

    /// Tells a supernode that does not know us what we have.
    pub(super) fn resume(&mut self) {
        let (held, _, _) = self.handle.pieces.follow();
        let resume = Resume {
            key: self.handle.key,
            task: self.handle.id,
            meta: self.meta(),
            resources: self.resources(),
            held: held.runs(),
            digests: self
                .digests
                .iter()
                .map(|(&piece, &digest)| (piece, digest))
                .collect(),
            position: self.announcer.position(),
            shown: self.handle.shown.clone(),
        };
        self.announcer.forget();
        self.ports.control.send(FromPeer::Resume(resume));
        self.registered = true;
    }

    /// What the content still stands behind, and what is said there of it. A version that something
    /// younger took the place of stands behind nothing.
    fn resources(&self) -> Vec<KnownResource> {
        let now = std::time::Instant::now();
        let standing = |key: ResourceKey| {
            let standing = self.ports.shelf.of_task(&key, self.handle.id)?;
            let meta = standing.meta(now);
            Some(KnownResource { key, meta })
        };
        let keys = self.handle.resources.lock().clone();
        keys.into_iter().filter_map(standing).collect()
    }

    pub(super) fn meta(&self) -> ContentMeta {
        self.handle.meta.read().clone()
    }

    pub(super) fn ended(&mut self, length: u64) {
        if self.handle.pieces.geometry().length().is_none() {
            self.handle.meta.write().length = Some(length);
            self.handle.pieces.ended(length);
            if let Some(pieces) = self.handle.pieces.geometry().pieces() {
                self.feed(Event::Ended { pieces });
            }
        }
    }
}
