//! Members whose place is found after they have joined.

use std::collections::BTreeSet;

use pantala_core::{PeerId, Time};

use crate::{
    Config,
    parents::fit,
    place::{Group, Place},
    task::{Out, Task},
};

impl Task {
    /// A member is elsewhere than it was thought to be. Call [`Task::regroup`] when that was said of
    /// all: whoever is looked for below its own must find them.
    pub(crate) fn relocate(&mut self, peer: PeerId, place: &Place) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.place = place.clone();
            self.trees.relocate(peer, place.clone());
        }
    }

    /// Brings those whose place is new to their own: who is fed from afar though its group could feed it
    /// goes below somebody of that. Then they are told of others that are near.
    pub(crate) fn regroup(
        &mut self,
        peers: &BTreeSet<PeerId>,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        let places = peers.iter().filter_map(|peer| self.members.get(peer));
        let groups: BTreeSet<Group> = places.flat_map(|member| member.place.named()).collect();
        let mut peers: Vec<PeerId> = peers.iter().copied().collect();
        // Who is nearer the root takes others in.
        peers.sort_by_key(|&peer| (self.trees.depth_of(peer), peer));
        for stripe in 0..self.trees.stripes() {
            for &peer in &peers {
                self.bring_home(peer, stripe, now);
            }
        }
        for group in groups {
            let astray = |stripe| !self.trees.all_astray(group, stripe).is_empty();
            if (0..self.trees.stripes()).any(astray) {
                // A stripe may lack slots there.
                self.trees.balance(group);
                self.attach_adrift(now);
            }
            for stripe in 0..self.trees.stripes() {
                for peer in self.trees.all_astray(group, stripe) {
                    self.bring_home(peer, stripe, now);
                }
            }
        }
        let told = out.len();
        self.tell_parents(config, None, now, out);
        let told: BTreeSet<PeerId> = out[told..].iter().map(|output| output.to).collect();
        for peer in peers {
            if !told.contains(&peer) && self.has_neighbours(peer) {
                self.tell_anew(peer, config, out);
            }
        }
    }

    fn bring_home(&mut self, peer: PeerId, stripe: u32, now: Time) {
        let root = self.trees.root();
        let members = &self.members;
        let fit = |parent, child| fit(members, root, parent, child, now);
        if self.trees.is_astray(peer, stripe) {
            self.chosen += 1;
            let left = self.trees.bring_home(peer, stripe, fit);
            for other in left {
                self.attach(other, stripe, None, now);
            }
        }
    }
}
