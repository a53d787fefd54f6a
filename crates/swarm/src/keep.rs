//! What members are told so that they keep different pieces: their turns, and which of them holds
//! the last copy of a piece.
//!
//! The order in which a member evicts is its own affair and must not wait for a word from here:
//! peers in step evict within the same millisecond. So it is dealt out beforehand, as a [`Turn`];
//! only what a turn cannot say is said piece by piece, and that concerns one member of many.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use pantala_core::{
    PeerId, PieceIndex, PieceSet, Time, Turn,
    control::{Copies, ToPeer},
};

use crate::{
    Output,
    task::{Out, Task},
};

/// Whose turn it is, and who was told that it holds the last copy.
#[derive(Debug, Default)]
pub(crate) struct Keepers {
    /// The members by their turns: those that read, and those that have finished since the last
    /// one came.
    order: Vec<PeerId>,
    places: BTreeMap<PeerId, u32>,
    finished: BTreeSet<PeerId>,
    /// Of how many the members were told to be.
    of: u32,
    /// Who was told to be the only one that holds the piece.
    told: BTreeMap<PieceIndex, PeerId>,
    /// Pieces that have come down to one copy, or whose keeper has let go of them.
    changed: BTreeSet<PieceIndex>,
    /// Pieces that nobody held and somebody does now.
    fresh: Vec<PieceIndex>,
    /// The same, once it is known when that was.
    risen: VecDeque<(Time, PieceIndex)>,
    /// Who now holds what another was told to keep.
    joined: BTreeMap<PeerId, PieceSet>,
}

/// Up to so many members are told at once when their number changes; more when it has changed by
/// a quarter: a swarm that grows tells each member a handful of times.
const FEW: u32 = 16;
/// A new piece that has one copy for so long is not on its way to others.
const ALONE: Duration = Duration::from_millis(250);
/// New pieces that are kept account of; about others it is said that they have one copy only when
/// they had more.
const NEW: usize = 1 << 16;

impl Keepers {
    fn take_out(&mut self, peer: PeerId) -> Option<u32> {
        self.finished.remove(&peer);
        let place = self.places.remove(&peer)?;
        self.order.swap_remove(place as usize);
        if let Some(&moved) = self.order.get(place as usize) {
            self.places.insert(moved, place);
        }
        Some(place)
    }

    /// The number of members changed: of how many to say they are, if that is to be said anew.
    fn recount(&mut self) -> bool {
        let count = self.order.len() as u32;
        let near = |of: u32| count > FEW && of > FEW && count * 4 >= of * 3 && count * 4 <= of * 5;
        let anew = count != self.of && !near(self.of);
        if anew {
            self.of = count;
        }
        anew
    }
}

impl Task {
    /// A member begins to read: it takes part in keeping what it gets.
    pub(crate) fn deal_in(&mut self, peer: PeerId, out: Out<'_>) {
        self.keepers.finished.remove(&peer);
        // Who has finished gets no new pieces and keeps to the turn it had.
        for finished in std::mem::take(&mut self.keepers.finished) {
            self.keepers.take_out(finished);
        }
        if !self.keepers.places.contains_key(&peer) {
            let place = self.keepers.order.len() as u32;
            self.keepers.order.push(peer);
            self.keepers.places.insert(peer, place);
        }
        let places = match self.keepers.recount() {
            true => 0..self.keepers.order.len() as u32,
            false => match self.keepers.places.get(&peer) {
                Some(&place) => place..place + 1,
                None => 0..0,
            },
        };
        self.tell_turns(places, out);
    }

    /// A member has gone.
    pub(crate) fn deal_out(&mut self, peer: PeerId, out: Out<'_>) {
        self.keepers.joined.remove(&peer);
        let Some(place) = self.keepers.take_out(peer) else {
            return;
        };
        let count = self.keepers.order.len() as u32;
        let places = match self.keepers.recount() {
            true => 0..count,
            false => place.min(count)..(place + 1).min(count),
        };
        self.tell_turns(places, out);
    }

    /// A member's reader is at the end, or gone. Those in step with it go on as before.
    pub(crate) fn has_read(&mut self, peer: PeerId) {
        if self.keepers.places.contains_key(&peer) {
            self.keepers.finished.insert(peer);
        }
    }

    fn tell_turns(&self, places: std::ops::Range<u32>, out: Out<'_>) {
        for at in places {
            let turn = Turn::new(at, self.keepers.of);
            out.push(Output {
                to: self.keepers.order[at as usize],
                message: ToPeer::Turn {
                    task: self.id,
                    turn,
                },
            });
        }
    }

    /// The number of copies of a piece changed to `copies`.
    pub(crate) fn counted(&mut self, piece: PieceIndex, copies: u32, more: bool) {
        let keepers = &mut self.keepers;
        match copies {
            0 => drop(keepers.told.remove(&piece)),
            1 if more && keepers.fresh.len() < NEW => keepers.fresh.push(piece),
            1 if !more => drop(keepers.changed.insert(piece)),
            _ => {}
        }
    }

    /// A member let go of a piece: if it was told to keep that, another is to.
    pub(crate) fn lost(&mut self, peer: PeerId, piece: PieceIndex) {
        let keepers = &mut self.keepers;
        if keepers.told.get(&piece) == Some(&peer) {
            keepers.told.remove(&piece);
            keepers.changed.insert(piece);
        }
    }

    /// A member got a piece: somebody else may have been told to keep that.
    pub(crate) fn gained(&mut self, peer: PeerId, piece: PieceIndex) {
        let keepers = &mut self.keepers;
        if keepers.told.get(&piece).is_some_and(|&told| told != peer) {
            keepers.joined.entry(peer).or_default().insert(piece);
        }
    }

    /// Tells who holds a last copy, and who does not any more, as far as that has changed.
    pub(crate) fn tell_copies(&mut self, now: Time, out: Out<'_>) {
        let keepers = &mut self.keepers;
        let fresh = keepers.fresh.drain(..).map(|piece| (now, piece));
        keepers.risen.extend(fresh);
        let over = keepers.risen.len().saturating_sub(NEW);
        keepers.risen.drain(..over);
        while let Some(&(since, piece)) = keepers.risen.front()
            && now.since(since) >= ALONE
        {
            keepers.risen.pop_front();
            if self.copies.get(piece.get() as usize) == Some(&1) {
                keepers.changed.insert(piece);
            }
        }
        if keepers.changed.is_empty() && keepers.joined.is_empty() {
            return;
        }
        let mut words: BTreeMap<(PeerId, u8), PieceSet> = BTreeMap::new();
        let mut say = |peer, copies: Copies, piece| {
            let of_peer = words.entry((peer, copies as u8)).or_default();
            of_peer.insert(piece);
        };
        for piece in std::mem::take(&mut self.keepers.changed) {
            let told = self.keepers.told.get(&piece);
            let kept = told.and_then(|told| self.members.get(told));
            if kept.is_some_and(|member| member.held.contains(piece)) {
                continue;
            }
            let mut members = self.members.iter();
            if let Some((&holder, _)) = members.find(|(_, member)| member.held.contains(piece)) {
                self.keepers.told.insert(piece, holder);
                say(holder, Copies::Sole, piece);
            }
        }
        for (peer, pieces) in std::mem::take(&mut self.keepers.joined) {
            let kept = |piece: &PieceIndex| {
                let told = self.keepers.told.get(piece);
                told.is_some_and(|&told| told != peer)
            };
            pieces
                .iter()
                .filter(kept)
                .for_each(|piece| say(peer, Copies::Kept, piece));
        }
        for ((to, copies), pieces) in words {
            let copies = [Copies::Several, Copies::Sole, Copies::Kept][usize::from(copies)];
            out.push(Output {
                to,
                message: ToPeer::Copies {
                    task: self.id,
                    pieces: pieces.runs(),
                    copies,
                },
            });
        }
    }

    /// Whether turns are dealt to members only, each its own, and last copies are told to members.
    pub(crate) fn turns_are_dealt(&self) -> bool {
        let keepers = &self.keepers;
        let dealt = (0..)
            .zip(&keepers.order)
            .all(|(at, peer)| keepers.places.get(peer) == Some(&at));
        dealt
            && keepers.order.len() == keepers.places.len()
            && keepers
                .places
                .keys()
                .all(|peer| self.members.contains_key(peer))
            && keepers
                .finished
                .iter()
                .all(|peer| keepers.places.contains_key(peer))
    }
}
