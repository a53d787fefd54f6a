//! Whom a peer is to hang below.

use std::ops::Bound::{Excluded, Unbounded};

use pantala_core::PeerId;

use super::{ADRIFT, Fit, Node, Trees};
use crate::place::{ALL, Group};

/// Open slots that are looked at for one choice, from either end, before taste gives way to having a
/// parent at all.
pub(super) const LOOKS: usize = 64;

/// Members that are looked at for one choice where no shelf has anybody for it. Identifiers are random,
/// so that those are as good a sample as any.
const SCANNED: usize = 1024;

impl Trees {
    /// Gives a peer a parent in a stripe: near ones first, so that a group takes each piece in
    /// once. Among those equally near the shallowest open slot whose owner would feed it well, else
    /// soon; else the peer with the fewest children that would, else anybody. Never one of its own
    /// descendants. Who shares an uplink that is meant for fewer is slow for good, and all below it;
    /// who goes below somebody a little behind loses that little once.
    /// An inner node takes the place of a shallower leaf that it may feed: otherwise leaves would
    /// fill the slots near the root and the tree would be as deep as the swarm is large. It takes
    /// as well the place of who is fed from its group without being in it. `None` only when the
    /// peer is the root or there is nobody.
    pub fn attach(
        &mut self,
        peer: PeerId,
        stripe: u32,
        fit: impl Fn(PeerId, PeerId) -> Fit,
    ) -> Option<PeerId> {
        if self.root == Some(peer) {
            return None;
        }
        self.detach(peer, stripe);
        let place = self.nodes.get(&peer)?.place.clone();
        let parent = place
            .groups()
            .find_map(|group| self.attach_in(peer, stripe, group, &fit))?;
        self.gather(peer, stripe, &fit);
        Some(parent)
    }

    /// Who came when nobody of its group had room, and so is fed from afar, comes to who has.
    pub fn gather(&mut self, peer: PeerId, stripe: u32, fit: &impl Fn(PeerId, PeerId) -> Fit) {
        let place = self.nodes.get(&peer).map(|node| node.place.clone());
        for group in place.iter().flat_map(|place| place.named()) {
            self.gather_of(peer, stripe, group, fit);
        }
    }

    /// Gives it a parent of a group, if there is one for it.
    pub(super) fn attach_in(
        &mut self,
        peer: PeerId,
        stripe: u32,
        group: Group,
        fit: &impl Fn(PeerId, PeerId) -> Fit,
    ) -> Option<PeerId> {
        let below = self
            .stranger(peer, stripe, group, fit)
            .or_else(|| self.displaceable(peer, stripe, group, fit));
        if let Some((other, above)) = below {
            self.detach(other, stripe);
            self.link(peer, above, stripe);
            self.link(other, peer, stripe);
            return Some(above);
        }
        let parent = self.choose(peer, stripe, group, |other| fit(other, peer))?;
        self.link(peer, parent, stripe);
        Some(parent)
    }

    fn gather_of(
        &mut self,
        peer: PeerId,
        stripe: u32,
        group: Group,
        fit: &impl Fn(PeerId, PeerId) -> Fit,
    ) {
        let may = |parent, child| fit(parent, child) == Fit::Well;
        let s = stripe as usize;
        while self.has_room(peer, stripe) {
            let astray = self.astray[s].of(group).take(LOOKS).map(|(_, _, id)| id);
            let found = astray.into_iter().find(|&id| {
                id != peer && !self.barred(id) && may(peer, id) && !self.below(peer, id, stripe)
            });
            let Some(child) = found else {
                return;
            };
            self.detach(child, stripe);
            self.link(child, peer, stripe);
        }
    }

    fn has_room(&self, peer: PeerId, stripe: u32) -> bool {
        self.nodes
            .get(&peer)
            .is_some_and(|node| self.taken(node, stripe) < self.slots(peer, node, stripe))
    }

    /// A leaf of the group whose place an inner node should take, and the leaf's parent.
    fn displaceable(
        &self,
        peer: PeerId,
        stripe: u32,
        group: Group,
        fit: &impl Fn(PeerId, PeerId) -> Fit,
    ) -> Option<(PeerId, PeerId)> {
        let may = |parent, child| fit(parent, child) == Fit::Well;
        let s = stripe as usize;
        if !self.has_room(peer, stripe) {
            return None;
        }
        let mut open = self.open[s].ends(group, LOOKS);
        let open = open.find(|&(_, _, id)| id != peer && may(id, peer));
        let below_open = open.map_or(ADRIFT, |(depth, _, _)| depth + 1);
        self.leaves[s]
            .ends(group, LOOKS)
            .filter(|&(depth, _, _)| depth < below_open)
            .filter_map(|(_, _, leaf)| Some((leaf, self.parent(leaf, stripe)?)))
            .find(|&(leaf, above)| {
                leaf != peer
                    && !self.barred(above)
                    && may(peer, leaf)
                    && may(above, peer)
                    && !self.below(above, peer, stripe)
            })
    }

    /// Somebody who is not of the group but fed from it, and who feeds it: the peer goes between,
    /// if nobody of the group has an open slot.
    fn stranger(
        &self,
        peer: PeerId,
        stripe: u32,
        group: Group,
        fit: &impl Fn(PeerId, PeerId) -> Fit,
    ) -> Option<(PeerId, PeerId)> {
        let may = |parent, child| fit(parent, child) == Fit::Well;
        let s = stripe as usize;
        let sound = |id: PeerId| id != peer && may(id, peer) && !self.below(id, peer, stripe);
        if group == ALL
            || !self.has_room(peer, stripe)
            || self.open[s]
                .of(group)
                .take(LOOKS)
                .any(|(_, _, id)| sound(id))
        {
            return None;
        }
        self.bridges[s]
            .of(group)
            .take(LOOKS)
            .filter_map(|(_, _, child)| Some((child, self.parent(child, stripe)?)))
            .find(|&(child, above)| {
                child != peer && !self.barred(above) && sound(above) && may(peer, child)
            })
    }

    /// Who feeds fewest of those that may be chosen; of those, who fits well. The first that feeds nobody
    /// and does ends the search: in a large swarm that is soon.
    fn idlest(
        &self,
        peer: PeerId,
        may: impl Fn(PeerId) -> bool,
        fit: impl Fn(PeerId) -> Fit,
    ) -> Option<PeerId> {
        let mut best: Option<((usize, bool), PeerId)> = None;
        for (id, node) in self.sample(peer) {
            let load = self.load(id);
            let better = |key| best.is_none_or(|(least, _)| key < least);
            if node.barred || !better((load, false)) || !may(id) {
                continue;
            }
            let key = match fit(id) {
                Fit::Badly => continue,
                fit => (load, fit != Fit::Well),
            };
            if better(key) {
                best = Some((key, id));
            }
            if key == (0, false) {
                break;
            }
        }
        best.map(|(_, id)| id)
    }

    /// Members from one on, all of them where there are few.
    fn sample(&self, from: PeerId) -> impl Iterator<Item = (PeerId, &Node)> {
        let after = self.nodes.range((Excluded(from), Unbounded));
        let all = after.chain(self.nodes.range(..from)).take(SCANNED);
        all.map(|(&id, node)| {
            self.looked_at.set(self.looked_at.get() + 1);
            (id, node)
        })
    }

    fn choose(
        &self,
        peer: PeerId,
        stripe: u32,
        group: Group,
        fit: impl Fn(PeerId) -> Fit,
    ) -> Option<PeerId> {
        let may = |id: PeerId| fit(id) == Fit::Well;
        let sound = |&candidate: &PeerId| candidate != peer && !self.below(candidate, peer, stripe);
        let open = || {
            let keys = self.open[stripe as usize].ends(group, LOOKS);
            keys.map(|(_, _, id)| id)
        };
        if self.barred(peer) {
            // It takes no slot: where there is most of an uplink left, though it may have to wait there.
            let idle = self.idlest(peer, |id| sound(&id) && self.is_in(id, group), &fit);
            if idle.is_some() {
                return idle;
            }
        }
        let mut sound_open = open().filter(sound).filter(|&id| fit(id) != Fit::Badly);
        let first = sound_open.next();
        let well = first.into_iter().chain(sound_open).find(|&id| may(id));
        let found = well.or(first);
        if found.is_some() || group != ALL {
            return found;
        }
        let by_load = |may: &dyn Fn(PeerId) -> bool| {
            self.sample(peer)
                .filter(|(_, node)| node.depth[stripe as usize] < ADRIFT)
                .filter(|(id, _)| sound(id) && may(*id))
                .min_by_key(|(id, node)| (self.load(*id), node.depth[stripe as usize], node.seq))
                .map(|(id, _)| id)
        };
        by_load(&|id| !self.barred(id) && may(id))
            .or_else(|| open().find(sound))
            .or_else(|| by_load(&|id| !self.barred(id)))
            .or_else(|| by_load(&|_| true))
            // Nobody is above it.
            .or_else(|| self.root.filter(|&root| root != peer))
    }
}
