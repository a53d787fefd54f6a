//! Reading on for others. Content that all comes from one transfer ends for everybody when the peer
//! that makes the transfer stops it. Where no reader of that peer reads to the end, a window without a
//! reader moves on instead, as children take the pieces: what none of them has had stays in memory, and
//! the transfer waits when there is no room for more. Others may have been sent here and not have come yet,
//! which the supernode alone knows: so the lease is offered to it, and the transfer goes on until it says
//! that nobody needs more.
//!
//! Nothing here reads or sends a byte, and nothing here is done for other content.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use pantala_core::{PieceIndex, PieceSet, control::FromPeer};
use pantala_window::{Event, ReaderId};
use tokio::time::Instant;

use super::{Driver, parents::UNREAD};
use crate::{readers::Reader, stream::Counted, task::TaskHandle};

/// A window that no reader has, kept open for children.
pub(super) struct Steward {
    /// The first piece that must stay for a child.
    next: PieceIndex,
    /// Since when no child has followed the task.
    unfollowed: Option<Instant>,
    /// From which piece on the supernode was told that no reader here needs more.
    offered: Option<PieceIndex>,
    /// Its share of the memory: that of the last reader.
    _counted: Arc<Counted>,
}

/// The window's number in the picker. No reader gets this number.
const STEWARD: ReaderId = ReaderId(u64::MAX);

impl Driver {
    /// These are the readers that there are now. If none of them reads to the end, and others may need
    /// what only the transfer here can bring, a window without a reader is opened for them.
    pub(super) fn read_on_for_others(&mut self, now: &BTreeMap<u64, Arc<Reader>>) {
        if self.origin.has_no_runs() || self.steward.is_some() || !self.is_single() {
            return;
        }
        let Some(last) = self.readers.iter().next() else {
            return;
        };
        let followed = self.handle.followers.load(Ordering::Relaxed) > 0;
        let listed = self.ports.control.is_up()
            && (self.report.is_registered() || self.origin.confirmed_by().is_some());
        let Some(need) = own_need(&self.handle, now.values().map(|reader| &**reader)) else {
            return;
        };
        // Until then the readers here keep the transfer going.
        let windows = self.picker.snapshot().windows;
        let edges = windows.iter().map(|window| window.1.get() + window.2);
        let ends_soon = now.is_empty() || edges.max().is_none_or(|edge| edge >= need.get());
        if self.handle.is_broken() || !(followed || listed && ends_soon) {
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
            offered: None,
            _counted: counted,
        });
        self.feed(Event::ReaderOpened {
            reader: STEWARD,
            first: next,
            end: None,
        });
    }

    /// Tells the supernode that the transfer goes on for others alone, once all has come that readers here
    /// need of it.
    fn offer_transfer(&mut self) {
        let need = own_need(&self.handle, self.readers.iter());
        let front = PieceIndex::new(self.handle.front.load(Ordering::Relaxed));
        let Some(steward) = &mut self.steward else {
            return;
        };
        if self.report.is_registered()
            && steward.offered.is_none()
            && need.is_some_and(|need| front >= need)
        {
            steward.offered = Some(front);
            self.say(FromPeer::OfferLease {
                task: self.handle.id,
                first: front,
                end: None,
            });
        }
    }

    /// The supernode may have forgotten what it was offered.
    pub(super) fn offer_anew(&mut self) {
        if let Some(steward) = &mut self.steward {
            steward.offered = None;
        }
    }

    /// The supernode says that nobody needs more of the transfer. A reader that came here meanwhile may: for
    /// that one it goes on, and nobody else is sent to it.
    pub(super) fn nobody_needs_more(&mut self) {
        let offered = self.steward.as_ref().and_then(|steward| steward.offered);
        let need = own_need(&self.handle, self.readers.iter());
        if need.is_some_and(|need| offered.is_none_or(|offered| need <= offered)) {
            self.steward = None;
            self.feed(Event::ReaderClosed { reader: STEWARD });
            if !self.origin.has_no_runs() {
                self.give_transfer_up();
            }
        }
    }

    /// Whether the supernode was told that the transfer goes on for others alone.
    pub(super) fn has_offered(&self) -> bool {
        let steward = self.steward.as_ref();
        steward.is_some_and(|steward| steward.offered.is_some())
    }

    /// Moves the window on as children take what is there; ends it with the transfer, or when no child
    /// has followed the task for as long as children keep links that they do not use.
    pub(super) fn follow_others(&mut self) {
        self.offer_transfer();
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

/// The piece after the last that these readers need; `None` where one of them reads to the end.
fn own_need<'a>(
    task: &TaskHandle,
    readers: impl Iterator<Item = &'a Reader>,
) -> Option<PieceIndex> {
    let geometry = task.pieces.geometry();
    let mut need = PieceIndex::new(0);
    for reader in readers {
        need = need.max(reader.end.filter(|&end| geometry.has(end))?);
    }
    Some(need)
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
