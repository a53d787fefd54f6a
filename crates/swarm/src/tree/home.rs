//! Peers that turn out to be elsewhere than they were thought to be when they came.

use pantala_core::PeerId;

use super::{ADRIFT, Fit, Trees, choose::LOOKS};
use crate::place::{Group, Place};

/// How many of a group that are fed from afar are looked at at once.
const ASTRAY: usize = 16;

impl Trees {
    /// A peer is elsewhere than it was thought to be. Who feeds whom stays as it is.
    pub fn relocate(&mut self, peer: PeerId, place: Place) {
        let Some(node) = self.nodes.get(&peer) else {
            return;
        };
        let (before, inner) = (node.place.clone(), node.inner);
        if before == place {
            return;
        }
        let (ups, downs) = (node.up.clone(), node.down.clone());
        let edges: Vec<_> = (0..)
            .zip(ups.into_iter().zip(downs))
            .flat_map(|(stripe, (up, down))| {
                let up = up.map(|parent| (peer, parent, stripe));
                let down = down.into_iter().map(move |child| (child, peer, stripe));
                up.into_iter().chain(down)
            })
            .collect();
        for &(child, parent, stripe) in &edges {
            self.bridge(child, Some(parent), stripe, false);
        }
        (0..self.stripes).for_each(|stripe| self.close(peer, stripe));
        if let Some(inner) = inner {
            self.count_inner(&before, inner, false);
            self.count_inner(&place, inner, true);
        }
        self.ungroup(peer, &before);
        for group in place.named() {
            self.groups.entry(group).or_default().insert(peer);
        }
        if let Some(node) = self.nodes.get_mut(&peer) {
            node.place = place;
        }
        for &(child, parent, stripe) in &edges {
            self.bridge(child, Some(parent), stripe, true);
        }
        (0..self.stripes).for_each(|stripe| self.reopen(peer, stripe));
    }

    /// How far from the root a peer is, in the stripe where it is nearest.
    pub fn depth_of(&self, peer: PeerId) -> u32 {
        let depths = self.nodes.get(&peer).map(|node| node.depth.iter().min());
        depths.flatten().copied().unwrap_or(ADRIFT)
    }

    /// Those of a group that are astray in a stripe, a few at most.
    pub fn all_astray(&self, group: Group, stripe: u32) -> Vec<PeerId> {
        let fed = self.astray[stripe as usize].of(group).take(ASTRAY);
        let fed = fed.map(|(_, _, id)| id);
        fed.filter(|&id| self.is_astray(id, stripe)).collect()
    }

    /// Whether a peer is fed from afar though somebody of its group could bring it what it gets: the
    /// root, or another that is fed from afar and came before it.
    pub fn is_astray(&self, peer: PeerId, stripe: u32) -> bool {
        let place = self.nodes.get(&peer).map(|node| &node.place);
        let mut groups = place.into_iter().flat_map(|place| place.named());
        let Some(parent) = self.parent(peer, stripe) else {
            return false;
        };
        groups.any(|group| {
            let mut astray = self.astray[stripe as usize].of(group);
            let first = astray.next().map(|(_, _, id)| id);
            let root = self.root.is_some_and(|root| self.is_in(root, group));
            !self.is_in(parent, group) && (root || first != Some(peer))
        })
    }

    /// Puts a peer that is astray below somebody of its group who would feed it well, if there is one.
    /// Those it feeds that are of another group stay where they are: its parent feeds them in its
    /// stead. Says who of them shares an uplink with too many then.
    pub fn bring_home(
        &mut self,
        peer: PeerId,
        stripe: u32,
        fit: impl Fn(PeerId, PeerId) -> Fit,
    ) -> Vec<PeerId> {
        let s = stripe as usize;
        let Some(old) = self.parent(peer, stripe) else {
            return Vec::new();
        };
        let Some(node) = self.nodes.get(&peer) else {
            return Vec::new();
        };
        let (place, mut left) = (node.place.clone(), node.down[s].clone());
        left.retain(|child| {
            let child = self.nodes.get(child);
            child.is_some_and(|child| child.place.distance(&place) > 0 || child.place.is_nowhere())
        });
        for &child in &left {
            self.detach(child, stripe);
            self.link(child, old, stripe);
        }
        self.detach(peer, stripe);
        let mut groups = place.named();
        if groups.any(|group| self.attach_in(peer, stripe, group, &fit).is_some()) {
            self.gather(peer, stripe, &fit);
            left.retain(|_| self.is_crowded(old, stripe));
            return left;
        }
        self.link(peer, old, stripe);
        for child in left {
            self.detach(child, stripe);
            self.link(child, peer, stripe);
        }
        self.exchange(peer, stripe, &fit);
        Vec::new()
    }

    /// Somebody of another group, who has nothing to look for there, is fed by the peer's own group, and
    /// the peer from afar: they change places.
    fn exchange(
        &mut self,
        peer: PeerId,
        stripe: u32,
        fit: &impl Fn(PeerId, PeerId) -> Fit,
    ) -> bool {
        let Some(old) = self.parent(peer, stripe) else {
            return false;
        };
        let s = stripe as usize;
        let place = self.nodes.get(&peer).map(|node| &node.place);
        let fits = |above, below| above != below && fit(above, below) == Fit::Well;
        let found = place
            .into_iter()
            .flat_map(|place| place.named())
            .find_map(|group| {
                let mut strangers = self.bridges[s].of(group).take(LOOKS);
                strangers.find_map(|(_, _, other)| {
                    let above = self.parent(other, stripe)?;
                    let nowhere = self.nodes.get(&other)?.place.is_nowhere();
                    let may = (nowhere || self.is_astray(other, stripe))
                        && fits(above, peer)
                        && fits(old, other)
                        && !self.below(above, peer, stripe)
                        && !self.below(old, other, stripe);
                    may.then_some((other, above))
                })
            });
        let Some((other, above)) = found else {
            return false;
        };
        self.detach(peer, stripe);
        self.detach(other, stripe);
        self.link(peer, above, stripe);
        self.link(other, old, stripe);
        true
    }
}
