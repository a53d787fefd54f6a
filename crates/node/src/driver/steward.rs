//! Reading on for others. Content that all comes from one transfer ends for everybody when the peer
//! that makes the transfer stops it. Where that peer has no reader of its own left and children still
//! follow the task, a window without a reader moves on instead, as the children take the pieces: what
//! none of them has had stays in memory, and the transfer waits when there is no room for more.
//!
//! Nothing here reads or sends a byte, and nothing here is done for other content.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use pantala_core::{PieceIndex, PieceSet};
use pantala_window::{Event, ReaderId};
use tokio::time::Instant;

use super::{Driver, parents::UNREAD};
use crate::{readers::Reader, stream::Counted};

/// A window that no reader has, kept open for children.
pub(super) struct Steward {
    /// The first piece that must stay for a child.
    next: PieceIndex,
    /// Since when no child has followed the task.
    unfollowed: Option<Instant>,
    /// Its share of the memory: that of the last reader.
    _counted: Arc<Counted>,
}

/// The window's number in the picker. No reader gets this number.
const STEWARD: ReaderId = ReaderId(u64::MAX);

impl Driver {
    /// These are the readers that there are now. If none of them reads to the end, and children follow
    /// what only the transfer here can bring, a window without a reader is opened for them.
    pub(super) fn read_on_for_others(&mut self, now: &BTreeMap<u64, Arc<Reader>>) {
        if self.origin.has_no_runs() || self.steward.is_some() || !self.is_single() {
            return;
        }
        let geometry = self.handle.pieces.geometry();
        let to_the_end = |reader: &Arc<Reader>| reader.end.is_none_or(|end| !geometry.has(end));
        let followed = self.handle.followers.load(Ordering::Relaxed) > 0;
        let Some(last) = self.readers.iter().next() else {
            return;
        };
        if !followed || now.values().any(to_the_end) {
            return;
        }
        let counted = last.place();
        counted.count(true);
        let front = PieceIndex::new(self.handle.front.load(Ordering::Relaxed));
        let (held, _, _) = self.handle.pieces.follow();
        let next = first_unserved(front, &held, &self.handle.served.lock());
        tracing::debug!(task = ?self.handle.id, %next, "reading on for others");
        self.steward = Some(Steward {
            next,
            unfollowed: None,
            _counted: counted,
        });
        self.feed(Event::ReaderOpened {
            reader: STEWARD,
            first: next,
            end: None,
        });
    }

    /// Moves the window on as children take what is there; ends it with the transfer, or when no child
    /// has followed the task for as long as children keep links that they do not use.
    pub(super) fn follow_others(&mut self) {
        let Some(steward) = &mut self.steward else {
            return;
        };
        let followed = self.handle.followers.load(Ordering::Relaxed) > 0;
        let now = Instant::now();
        steward.unfollowed = (!followed).then(|| steward.unfollowed.unwrap_or(now));
        let unneeded = steward
            .unfollowed
            .is_some_and(|since| now.duration_since(since) >= UNREAD);
        // What has come stays for children that have not had it, though the transfer is over.
        let geometry = self.handle.pieces.geometry();
        let had = || !geometry.has(self.handle.served.lock().first_gap(steward.next));
        let over = self.origin.has_no_runs() && (self.handle.is_broken() || had());
        if over || unneeded {
            self.steward = None;
            self.feed(Event::ReaderClosed { reader: STEWARD });
            return;
        }
        let before = steward.next;
        let windows = self.picker.snapshot().windows;
        let own = windows.iter().find(|window| window.0 == STEWARD);
        let edge = own.map_or(before, |window| PieceIndex::new(window.1.get() + window.2));
        let awaited = self.handle.awaited.lock().keys().next().copied();
        let front = PieceIndex::new(self.handle.front.load(Ordering::Relaxed));
        let next = next_for_others(before..edge, front, &self.handle.served.lock(), awaited);
        if next > before {
            if let Some(steward) = &mut self.steward {
                steward.next = next;
            }
            self.feed(Event::ReaderTook {
                reader: STEWARD,
                next,
            });
        }
    }
}

/// The first of the pieces before `front` from which on all are held and none was sent to a child.
fn first_unserved(front: PieceIndex, held: &PieceSet, served: &PieceSet) -> PieceIndex {
    let before = (0..front.get()).rev().map(PieceIndex::new);
    let unserved = before.take_while(|&piece| held.contains(piece) && !served.contains(piece));
    unserved.last().unwrap_or(front)
}

/// Where the window goes on that spans these pieces: after what children have had. A child that waits for a
/// piece beyond the window while none takes the window's first one shows that none wants that: the window
/// then moves up to the piece, but never beyond `front`, up to which the transfer has come, because the
/// transfer would be stopped there as unneeded.
fn next_for_others(
    window: Range<PieceIndex>,
    front: PieceIndex,
    served: &PieceSet,
    awaited: Option<PieceIndex>,
) -> PieceIndex {
    let next = served.first_gap(window.start);
    match awaited {
        Some(piece) if next == window.start && piece >= window.end => piece.min(front).max(next),
        _ => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(piece: u32) -> PieceIndex {
        PieceIndex::new(piece)
    }

    fn set(pieces: impl IntoIterator<Item = u32>) -> PieceSet {
        let mut set = PieceSet::new();
        for piece in pieces {
            set.insert(p(piece));
        }
        set
    }

    #[test]
    fn what_no_child_has_had_stays() {
        assert_eq!(first_unserved(p(6), &set(2..6), &set(0..4)), p(4));
        assert_eq!(first_unserved(p(6), &set(2..6), &set([])), p(2));
        assert_eq!(first_unserved(p(6), &set(2..6), &set(0..6)), p(6));
        assert_eq!(first_unserved(p(0), &set([]), &set([])), p(0));
    }

    #[test]
    fn a_window_follows_what_children_take_and_passes_what_none_wants() {
        let served = set([0, 1, 3]);
        let next = |window: Range<u32>, front, awaited: Option<u32>| {
            let window = p(window.start)..p(window.end);
            next_for_others(window, p(front), &served, awaited.map(p)).get()
        };
        assert_eq!(next(0..4, 4, None), 2);
        assert_eq!(next(2..6, 6, Some(5)), 2);
        assert_eq!(next(2..6, 6, Some(6)), 6);
        // It moves first, and may come to the piece that way.
        assert_eq!(next(0..4, 4, Some(6)), 2);
    }

    #[test]
    fn a_window_never_overtakes_the_transfer() {
        let served = set([0, 1]);
        let next =
            |front, awaited| next_for_others(p(2)..p(6), p(front), &served, Some(p(awaited)));
        assert_eq!(next(4, 20), p(4));
        assert_eq!(next(6, 20), p(6));
        // Nothing has come of the window itself yet.
        assert_eq!(next(2, 20), p(2));
        assert_eq!(next(1, 20), p(2));
    }
}
