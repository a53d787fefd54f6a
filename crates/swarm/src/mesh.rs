//! Swarms without preferred parents, to compare trees with: a mesh, where each member knows some others
//! by lot and those know it; and trees for single pieces, made of who asks for them.

use std::collections::BTreeMap;

use pantala_core::{PeerId, PieceIndex, Time, control::ToPeer};

use crate::{
    Config, Output, Shape,
    task::{Out, Task},
};

/// How many wait for one member in the tree of a piece.
const FED: u32 = 2;
/// How far behind a piece that is asked for the next free one may lie that is leased instead.
const AHEAD: u32 = 32;

/// Who waits for a piece, and how many were told to wait for each of them.
pub(crate) type PieceTree = BTreeMap<PeerId, u32>;

impl Task {
    /// A member gets neighbours, and they get it. Says nothing to the member itself.
    pub(crate) fn meet(&mut self, peer: PeerId, config: &Config, out: Out<'_>) {
        let mut parents = self.parents_of(peer, config);
        // Who is asked first among equals must not be the same for all.
        for at in (1..parents.others.len()).rev() {
            let other = self.draw() % (at as u64 + 1);
            parents.others.swap(at, other as usize);
        }
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        let addr = member.addr;
        let honest = member.withheld.is_none();
        let drawn = parents.others.clone();
        let known = std::mem::replace(&mut member.told, parents);
        // Whoever it has links to already stays.
        let more = known.others.into_iter();
        let more = more.filter(|old| !drawn.contains(old));
        member.told.others.extend(more);
        member.told.others.truncate(neighbours(config));
        for neighbour in drawn.into_iter().filter(|_| honest) {
            let Some(other) = self.members.get_mut(&neighbour.id) else {
                continue;
            };
            let told = &mut other.told.others;
            if !told.contains(&addr) && told.len() < neighbours(config) {
                told.push(addr);
                self.tell_again(neighbour.id, out);
            }
        }
    }

    /// A member has gone: who has few neighbours left gets others.
    pub(crate) fn miss(&mut self, gone: PeerId, config: &Config, out: Out<'_>) {
        for tree in self.piece_trees.values_mut() {
            tree.remove(&gone);
        }
        if config.shape != Shape::Mesh {
            return;
        }
        let mut lonely = Vec::new();
        for member in self.members.values_mut() {
            let before = member.told.others.len();
            member.told.others.retain(|addr| addr.id != gone);
            let left = member.told.others.len();
            if left < before && left <= config.others / 2 {
                lonely.push(member.addr.id);
            }
        }
        for peer in lonely {
            self.meet(peer, config, out);
            self.tell_again(peer, out);
        }
    }

    fn tell_again(&self, to: PeerId, out: Out<'_>) {
        if let Some(member) = self.members.get(&to) {
            let (task, parents) = (self.id, member.told.clone());
            out.push(Output {
                to,
                message: ToPeer::Parents { task, parents },
            });
        }
    }

    /// The next number by lot.
    pub(crate) fn draw(&mut self) -> u64 {
        self.draws = self
            .draws
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        // The low bits of such a sequence have short periods.
        self.draws >> 33
    }

    /// Somebody else brings the piece that was asked for: the peer may bring what comes after it.
    pub(crate) fn lend_next(
        &mut self,
        peer: PeerId,
        piece: PieceIndex,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        if config.lease_pieces == 0 {
            return;
        }
        let next = piece.get().saturating_add(1);
        let next = next..next.saturating_add(AHEAD);
        if let Some(free) = next.map(PieceIndex::new).find(|&piece| self.is_free(piece)) {
            self.grant(peer, free, config, now, out);
        }
    }

    /// Somebody who holds a piece.
    pub(crate) fn holder_of(&self, piece: PieceIndex) -> Option<PeerId> {
        let mut members = self.members.iter();
        let found = members.find(|(_, member)| member.held.contains(piece));
        found.map(|(&id, _)| id)
    }

    /// Tells a peer whom to wait for in the tree of a piece: of those with room the one that others
    /// were told to wait for least, over all pieces. Who is in it already has been told.
    pub(crate) fn line_up(
        &mut self,
        peer: PeerId,
        piece: PieceIndex,
        root: PeerId,
        config: &Config,
        out: Out<'_>,
    ) {
        let tree = self.piece_trees.entry(piece).or_default();
        if tree.contains_key(&peer) {
            return;
        }
        tree.entry(root).or_default();
        let load = |id: PeerId| self.members.get(&id).map(|member| member.waited_for);
        let parent = tree
            .iter()
            .filter(|&(&id, &fed)| id != peer && fed < FED)
            .filter_map(|(&id, _)| Some((load(id)?, id)))
            .min();
        let Some((_, parent)) = parent else {
            return;
        };
        tree.entry(peer).or_default();
        if let Some(fed) = tree.get_mut(&parent) {
            *fed += 1;
        }
        if let Some(member) = self.members.get_mut(&parent) {
            member.waited_for += 1;
        }
        self.introduce(peer, &[parent], config, out);
    }
}

/// The most others that a member is told of.
pub(crate) fn neighbours(config: &Config) -> usize {
    match config.shape {
        Shape::Mesh => config.others.max(2) * 2,
        Shape::Trees | Shape::PerPiece => config.others.max(2),
    }
}
