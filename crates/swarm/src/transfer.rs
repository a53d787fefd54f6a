//! Content that all comes from one transfer: its origin gives nothing by which another answer could be
//! told to be of the same representation.
//!
//! Such content has one lease, for who learned it, and that never moves. When its holder is gone, what
//! is not here yet never comes: who asks for it is told so, and whoever comes then learns the resource
//! anew, which makes another task. A holder whose readers need no more of it offers the lease, goes on,
//! and stops when it is told that no other member needs more. Nothing here decides anything for other content.

use pantala_core::{Generation, PeerId, PieceIndex, control::ToPeer};

use crate::{
    Config, Output,
    task::{Out, Task},
};

/// How often a member asks in vain until it is told that nobody will have the piece: once more than
/// it takes until all have said what they hold.
const IN_VAIN: u32 = 2;

/// What is known of the one transfer.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    /// Where it began.
    first: Option<PieceIndex>,
    /// It is over, and has not brought all.
    broken: bool,
    /// Pieces that at least one member holds.
    distinct: u32,
    /// From which piece on its holder goes on with it for other members alone.
    unneeded: Option<PieceIndex>,
    /// The member that was last found to need it.
    needs: Option<PeerId>,
}

impl Transfer {
    /// Its holder came back with it, to a supernode that does not know where it began.
    pub fn came_back(&mut self) {
        self.first = self.first.and(Some(PieceIndex::new(0)));
    }

    /// The copies of one piece were so many, and are so many.
    pub fn counted(&mut self, before: u32, now: u32) {
        match (before, now) {
            (0, 1..) => self.distinct += 1,
            (1.., 0) => self.distinct = self.distinct.saturating_sub(1),
            _ => {}
        }
    }
}

impl Task {
    /// Whether all of the content must come from the transfer that began it.
    pub(crate) fn is_single(&self) -> bool {
        self.meta.generation == Generation::Transfer
    }

    /// Whether a lease may be granted that begins here. The first one of a single transfer is the last.
    pub(crate) fn may_lease(&mut self, first: PieceIndex) -> bool {
        if !self.is_single() {
            return true;
        }
        let fresh = self.transfer.first.is_none();
        self.transfer.first.get_or_insert(first);
        fresh
    }

    /// Leases were taken from a member. Without one the rest of a single transfer never comes.
    pub(crate) fn transfer_may_be_over(&mut self) {
        let over = self.leases.is_empty() && self.transfer.first.is_some();
        if self.is_single() && over && !self.has_come() {
            self.transfer.broken = true;
        }
    }

    /// The holder of a single transfer needs no more of it from this piece on itself, and goes on with it
    /// until it hears that nobody does.
    pub(crate) fn is_unneeded_by_holder(&mut self, holder: PeerId, first: PieceIndex) {
        if self.leases.any_of(holder) {
            self.transfer.unneeded = Some(first);
        }
    }

    /// Ends a single transfer that no member needs, not even its holder. Nobody is sent to it from then on:
    /// only here is it known who was and does not follow its holder yet.
    pub(crate) fn end_if_unneeded(&mut self, out: Out<'_>) {
        let Some(first) = self.transfer.unneeded else {
            return;
        };
        let Some(holder) = self.leases.iter().next().map(|lease| lease.holder) else {
            self.transfer.unneeded = None;
            return;
        };
        let needs = |peer: &PeerId| {
            let member = self.members.get(peer).filter(|_| *peer != holder);
            member.is_some_and(|member| self.geometry.has(member.position))
        };
        // Whoever was found last most often still does: not all are looked at each time.
        let last = self.transfer.needs.filter(needs);
        let found = last.or_else(|| self.reading.iter().copied().find(needs));
        self.transfer.needs = found;
        if found.is_some() {
            return;
        }
        self.transfer.unneeded = None;
        self.end_lease(holder, first, None, out);
        self.leases.give_back(holder, first, None);
        self.transfer.broken |= !self.has_come();
    }

    /// Whether the transfer has brought all there is, and the members hold it.
    fn has_come(&self) -> bool {
        let first = self.transfer.first.map_or(0, PieceIndex::get);
        let pieces = self.geometry.pieces();
        pieces.is_some_and(|pieces| self.transfer.distinct >= pieces.saturating_sub(first))
    }

    /// Whether a newcomer can have the content from this piece on. Of a single transfer nothing may
    /// have been lost, and what has not come yet comes only while the transfer goes on. A supernode
    /// that lost its memory hears of a transfer from the member that makes it; until then it knows
    /// of none.
    pub(crate) fn can_begin(&self, piece: PieceIndex) -> bool {
        if !self.is_single() {
            return true;
        }
        let first = self.transfer.first.unwrap_or(PieceIndex::new(0));
        let front = self.leases.iter().map(|lease| lease.first).min();
        let came = match front {
            Some(front) => self.transfer.distinct >= front.get().saturating_sub(first.get()),
            None => self.has_come(),
        };
        !self.transfer.broken && came && first <= piece
    }

    /// A member lacks a source for a piece of a single transfer.
    pub(crate) fn ask_single(
        &mut self,
        peer: PeerId,
        piece: PieceIndex,
        times: u32,
        config: &Config,
        out: Out<'_>,
    ) {
        if let Some(lease) = self.leases.holder(piece) {
            let holder = lease.holder;
            self.introduce(peer, &[holder], config, out);
        } else if times >= IN_VAIN {
            self.is_unobtainable(peer, piece, out);
        }
    }

    /// Tells a member that it gets no such piece.
    pub(crate) fn is_unobtainable(&self, peer: PeerId, piece: PieceIndex, out: Out<'_>) {
        let task = self.id;
        out.push(Output {
            to: peer,
            message: ToPeer::Unobtainable { task, piece },
        });
    }
}
