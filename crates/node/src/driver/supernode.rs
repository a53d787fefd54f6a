//! What the supernode says, and what it is told.

use std::sync::atomic::Ordering;

use pantala_core::{
    ContentMeta, Error, Generation, PieceIndex, PieceSet, ResourceKey,
    control::{
        Copies, FromPeer, Known, KnownResource, PIECES_PER_MESSAGE, PieceRun, Resume, ToPeer,
    },
    display_url,
};
use pantala_store::Slot;
use pantala_window::Event;

use super::{Driver, PIECES_MAX};
use crate::error;

impl Driver {
    pub(super) fn control(&mut self, message: ToPeer) {
        if !matches!(message, ToPeer::Digests { .. }) {
            tracing::debug!(task = ?self.handle.id, ?message, "the supernode says");
        }
        match message {
            ToPeer::Parents { parents, .. } => self.set_parents(parents),
            ToPeer::Digests { digests, .. } => self.vouch(digests),
            // It was given up before the supernode knew whose it was, so that nobody has heard of that.
            ToPeer::Lease { .. } if self.is_single() && self.handle.is_broken() => {
                self.origin.take_assumed();
                self.give_transfer_up();
            }
            ToPeer::Lease { first, end, .. } => {
                self.feed(Event::LeaseGranted { first, end });
                if let Some(assumed) = self.origin.take_assumed() {
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
            ToPeer::LeaseEnded { .. } if self.has_offered() => self.nobody_needs_more(),
            ToPeer::LeaseEnded { first, end, .. } => self.feed(Event::LeaseEnded { first, end }),
            ToPeer::Ended { length, .. } => self.ended(length),
            ToPeer::Unobtainable { piece, .. } => self.unobtainable(piece),
            ToPeer::Unlisted { .. } => {
                // Nobody speaks for this task: it goes on as without a supernode.
                self.report.unlist();
                self.feed(Event::SupernodeDown);
            }
            ToPeer::OriginFailed { error, .. } => self.origin_failed(error),
            ToPeer::Poisoned { .. } => self.poisoned(),
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

    /// Somebody found that the whole has not the digest it is named by. Who has found that it has knows
    /// better, and says again what it holds.
    fn poisoned(&mut self) {
        if self.handle.proven.load(Ordering::Relaxed) {
            tracing::warn!(task = ?self.handle.id, "said to be wrong, and was found to be right here");
            self.resume();
        } else {
            self.over = Some(error::poisoned());
        }
    }

    /// Of a content that comes from a single transfer nobody has a piece, and nobody will.
    fn unobtainable(&mut self, piece: PieceIndex) {
        self.handle.broken.store(true, Ordering::Relaxed);
        let error = self.is_over_at(piece);
        for reader in self.readers.iter() {
            if reader.next() <= piece && reader.end.is_none_or(|end| piece < end) {
                reader.fail(error.clone());
            }
        }
    }

    /// The transfer that all of the content must come from is over, and did not bring this piece.
    pub(super) fn is_over_at(&self, piece: PieceIndex) -> Error {
        let position = self.handle.pieces.geometry().start(piece);
        error::transfer_is_over(&self.url(), position)
    }

    /// The content's URL as it may be shown.
    pub(super) fn url(&self) -> String {
        let url = self.source().map(|source| display_url(source.url.as_str()));
        url.unwrap_or_else(|| self.handle.shown.clone())
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
        if !self.report.register() {
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
        self.say_held(held);
        self.report.told_all();
    }

    /// Says what is held, in as many messages as it takes.
    fn say_held(&self, mut held: PieceSet) {
        while !held.is_empty() {
            self.say(FromPeer::Have {
                task: self.handle.id,
                gained: held.take_runs(PIECES_PER_MESSAGE),
                lost: Vec::new(),
                position: self.report.position(),
                in_flight: 0,
                reader_bound: false,
            });
        }
    }

    /// Tells a supernode that does not know us what we have.
    pub(super) fn resume(&mut self) {
        let (mut held, _, _) = self.handle.pieces.follow();
        let resume = Resume {
            key: self.handle.key,
            task: self.handle.id,
            meta: self.meta(),
            resources: self.resources(),
            held: held.take_runs(PIECES_PER_MESSAGE),
            digests: self
                .digests
                .iter()
                .map(|(&piece, &digest)| (piece, digest))
                .collect(),
            position: self.report.position(),
            leases: self.picker.claims(),
            shown: self.handle.shown.clone(),
        };
        self.report.told_all();
        self.offer_anew();
        self.ports.control.send(FromPeer::Resume(resume));
        self.report.register();
        self.say_held(held);
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

    /// Whether all of the content must come from the transfer that began it.
    pub(super) fn is_single(&self) -> bool {
        self.handle.meta.read().generation == Generation::Transfer
    }

    /// The content's length is known. Where it is said to end before bytes that are here, or elsewhere
    /// than it was said before, two contents were taken for one.
    pub(super) fn ended(&mut self, length: u64) {
        let geometry = self.handle.pieces.geometry();
        let after = geometry.piece_after(length);
        let beyond = |piece: PieceIndex| {
            let end = match self.handle.pieces.slot(piece) {
                Slot::Held(buffer) => geometry.start(piece) + buffer.len() as u64,
                _ => 0,
            };
            end > length
        };
        let (held, _, _) = self.handle.pieces.follow();
        let longer = held
            .iter()
            .last()
            .is_some_and(|last| last >= after || beyond(last));
        let other = geometry.length().is_some_and(|known| known != length);
        if longer || other {
            self.over = Some(error::ends_elsewhere(&self.url(), length));
            return;
        }
        if geometry.length().is_none() {
            self.handle.meta.write().length = Some(length);
            self.handle.pieces.ended(length);
            if let Some(pieces) = self.handle.pieces.geometry().pieces() {
                self.feed(Event::Ended { pieces });
            }
        }
    }
}
