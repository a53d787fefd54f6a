use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use pantala_core::PeerId;

use crate::{
    peer_map::PeerMap,
    place::{ALL, Group, Place},
};
use choose::LOOKS;
use shelf::Shelf;

mod choose;
mod home;
mod shelf;

/// The distribution trees of one task, one a stripe.
///
/// Every peer has as many upload slots as there are stripes, all of them in the stripe it is inner
/// in (the root has one in each): so each passes on about as much as it receives, and a tree over
/// `n` peers is about log_stripes(n) deep (SplitStream's idea). With one stripe this is a chain.
///
/// A chain brings the first piece soonest (nobody shares a sender), and who joins later finds its
/// end free. So a peer becomes a link of a chain (one slot in each stripe) until `chain` peers
/// in step, which all wait for the same piece, hang one below the other; those after them are
/// spread over trees below the chain's end.
#[derive(Debug)]
pub(crate) struct Trees {
    stripes: u32,
    /// How many peers in step may be in a chain.
    chain: u32,
    nodes: PeerMap<Node>,
    /// Per stripe: peers with a free slot, the shallowest and oldest first.
    open: Vec<Shelf>,
    /// Per stripe: attached peers that feed nobody in it, the shallowest and oldest first.
    leaves: Vec<Shelf>,
    /// Per stripe: peers that are fed from a group they are not in, by that group.
    bridges: Vec<Shelf>,
    /// Per stripe: peers that are fed by somebody who is not in their group, by that group.
    astray: Vec<Shelf>,
    /// Per group: how many are inner nodes in each stripe.
    inner: BTreeMap<Group, Vec<usize>>,
    /// Who is in a group; not kept for the group of all.
    groups: BTreeMap<Group, BTreeSet<PeerId>>,
    root: Option<PeerId>,
    /// Who has no parent in a stripe, the root among them.
    loose: BTreeSet<(PeerId, u32)>,
    /// Whose parents are others than when last asked.
    changed: BTreeSet<PeerId>,
    counter: u64,
    /// Members that were looked at to find somebody a parent.
    looked_at: Cell<u64>,
}

#[derive(Debug)]
struct Node {
    /// When it came, to break ties by age.
    seq: u64,
    place: Place,
    /// The stripe it is an inner node in; `None` for a link of a chain, which is one in each.
    inner: Option<u32>,
    /// It is to feed nobody, and takes no slot of who feeds it: too slow for that to matter.
    barred: bool,
    up: Vec<Option<PeerId>>,
    down: Vec<Vec<PeerId>>,
    depth: Vec<u32>,
}

/// How well somebody would feed a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It has what the peer needs next, or waits for the same.
    Well,
    /// It is a little behind: the peer would wait for it once.
    Soon,
    /// Not at all.
    Badly,
}

/// The depth of who has no way to the root yet: deeper than anybody.
const ADRIFT: u32 = 1 << 20;

impl Trees {
    pub fn new(stripes: u32, chain: u32) -> Self {
        Self {
            stripes,
            chain,
            nodes: PeerMap::new(),
            open: vec![Shelf::default(); stripes as usize],
            leaves: vec![Shelf::default(); stripes as usize],
            bridges: vec![Shelf::default(); stripes as usize],
            astray: vec![Shelf::default(); stripes as usize],
            inner: BTreeMap::new(),
            groups: BTreeMap::new(),
            root: None,
            loose: BTreeSet::new(),
            changed: BTreeSet::new(),
            counter: 0,
            looked_at: Cell::new(0),
        }
    }

    pub fn stripes(&self) -> u32 {
        self.stripes
    }

    pub fn root(&self) -> Option<PeerId> {
        self.root
    }

    /// A peer comes, without parents yet: a link of a chain, or inner in the stripe that has the
    /// fewest inner nodes.
    pub fn add(&mut self, peer: PeerId, place: Place, in_step: impl Fn(PeerId) -> bool) {
        if self.nodes.contains_key(&peer) {
            return;
        }
        let inner = (!self.chains(in_step)).then(|| self.scarce(&place));
        if let Some(inner) = inner {
            self.count_inner(&place, inner, true);
        }
        for group in place.named() {
            self.groups.entry(group).or_default().insert(peer);
        }
        self.counter += 1;
        let stripes = self.stripes as usize;
        self.nodes.insert(
            peer,
            Node {
                seq: self.counter,
                place,
                inner,
                barred: false,
                up: vec![None; stripes],
                down: vec![Vec::new(); stripes],
                depth: vec![ADRIFT; stripes],
            },
        );
        for stripe in 0..self.stripes {
            self.loose.insert((peer, stripe));
            self.reopen(peer, stripe);
        }
        self.changed.insert(peer);
    }

    fn ungroup(&mut self, peer: PeerId, place: &Place) {
        for group in place.named() {
            if let Some(members) = self.groups.get_mut(&group) {
                members.remove(&peer);
                if members.is_empty() {
                    self.groups.remove(&group);
                }
            }
        }
    }

    /// The stripe with the fewest inner nodes near a place.
    fn scarce(&self, place: &Place) -> u32 {
        let count = |stripe: u32| -> Vec<usize> {
            let counts = place.groups().map(|group| self.inner.get(&group));
            counts
                .map(|inner| inner.map_or(0, |inner| inner[stripe as usize]))
                .collect()
        };
        (0..self.stripes).min_by_key(|&s| count(s)).unwrap_or(0)
    }

    fn count_inner(&mut self, place: &Place, stripe: u32, more: bool) {
        let stripes = self.stripes as usize;
        for group in place.groups() {
            let inner = self.inner.entry(group).or_insert_with(|| vec![0; stripes]);
            let count = &mut inner[stripe as usize];
            *count = if more { *count + 1 } else { *count - 1 };
            if inner.iter().all(|&count| count == 0) {
                self.inner.remove(&group);
            }
        }
    }

    /// Makes a peer a leaf everywhere, or lets it feed others again. Its children stay until they
    /// are attached elsewhere.
    pub fn bar(&mut self, peer: PeerId, barred: bool) {
        let Some(node) = self.nodes.get_mut(&peer) else {
            return;
        };
        node.barred = barred;
        for stripe in 0..self.stripes {
            self.reopen(peer, stripe);
            if let Some(parent) = self.parent(peer, stripe) {
                self.reopen(parent, stripe);
            }
        }
    }

    /// How many members were looked at so far to find others a parent.
    pub fn looked_at(&self) -> u64 {
        self.looked_at.get()
    }

    pub fn barred(&self, peer: PeerId) -> bool {
        self.nodes.get(&peer).is_some_and(|node| node.barred)
    }

    /// What part of what it is meant to get in a stripe a child of a peer does, where that feeds more
    /// than it has slots for.
    pub fn part(&self, peer: PeerId, stripe: u32) -> f64 {
        self.nodes.get(&peer).map_or(1.0, |node| {
            let slots = self.slots(peer, node, stripe).max(1);
            let fed = node.down[stripe as usize].len().max(slots);
            slots as f64 / fed as f64
        })
    }

    /// Whether it feeds more than it has slots for, those that take none not counted.
    pub fn is_crowded(&self, peer: PeerId, stripe: u32) -> bool {
        let crowded =
            |node: &Node| self.taken(node, stripe) > self.slots(peer, node, stripe).max(1);
        self.nodes.get(&peer).is_some_and(crowded)
    }

    /// Whether a slot is open in a stripe, or could be made: an inner node of another stripe that has
    /// one to spare there becomes a link of a chain, which has one in each.
    pub fn spare(&mut self, stripe: u32) -> bool {
        let attached = |shelf: &Shelf| shelf.of(ALL).next().is_some_and(|key| key.0 < ADRIFT);
        if attached(&self.open[stripe as usize]) {
            return true;
        }
        let others = (0..self.stripes).filter(|&other| other != stripe);
        let found = others.clone().find_map(|other| {
            let mut open = self.open[other as usize].of(ALL).take(LOOKS);
            open.find_map(|(depth, _, id)| {
                let node = self.nodes.get(&id)?;
                let may = node.inner == Some(other)
                    && node.down[other as usize].len() < self.stripes as usize
                    && depth < ADRIFT
                    && self.root != Some(id);
                (may && self.stripes == 2).then_some(id)
            })
        });
        let Some(peer) = found else {
            return false;
        };
        let Some(node) = self.nodes.get_mut(&peer) else {
            return false;
        };
        if let Some(inner) = node.inner.take() {
            let place = node.place.clone();
            self.count_inner(&place, inner, false);
        }
        for stripe in 0..self.stripes {
            self.reopen(peer, stripe);
        }
        true
    }

    /// Whether a newcomer should be a link of a chain: above the first open slot there are not too
    /// many that are in step with it already.
    fn chains(&self, in_step: impl Fn(PeerId) -> bool) -> bool {
        if self.chain == 0 {
            return false;
        }
        let mut at = self.open[0].of(ALL).next().map(|(_, _, id)| id);
        for _ in 0..self.chain {
            let Some(id) = at.filter(|&id| in_step(id)) else {
                return true;
            };
            if self.nodes.get(&id).is_some_and(|node| node.inner.is_some()) {
                return false;
            }
            at = self.parent(id, 0);
        }
        false
    }

    /// A peer goes; who loses its parent with it.
    pub fn remove(&mut self, peer: PeerId) -> Vec<(PeerId, u32)> {
        let mut orphans = Vec::new();
        for stripe in 0..self.stripes {
            self.detach(peer, stripe);
            self.close(peer, stripe);
            let children = self
                .nodes
                .get_mut(&peer)
                .map(|node| std::mem::take(&mut node.down[stripe as usize]))
                .unwrap_or_default();
            for child in children {
                self.set_up(child, stripe, None);
                self.settle(child, stripe);
                orphans.push((child, stripe));
            }
        }
        for stripe in 0..self.stripes {
            self.loose.remove(&(peer, stripe));
        }
        self.changed.remove(&peer);
        if let Some(node) = self.nodes.remove(&peer) {
            if let Some(inner) = node.inner {
                self.count_inner(&node.place, inner, false);
            }
            self.ungroup(peer, &node.place);
        }
        if self.root == Some(peer) {
            self.root = None;
        }
        orphans
    }

    /// Makes a peer the root of all trees; who was it before is adrift until attached.
    pub fn set_root(&mut self, peer: PeerId) {
        if self.root == Some(peer) || !self.nodes.contains_key(&peer) {
            return;
        }
        let old = self.root.replace(peer);
        for stripe in 0..self.stripes {
            self.detach(peer, stripe);
            self.settle(peer, stripe);
            if let Some(old) = old {
                self.settle(old, stripe);
            }
        }
    }

    pub fn parent(&self, peer: PeerId, stripe: u32) -> Option<PeerId> {
        self.nodes.get(&peer)?.up[stripe as usize]
    }

    /// Its parents, by stripe.
    pub fn parents(&self, peer: PeerId) -> &[Option<PeerId>] {
        self.nodes.get(&peer).map_or(&[], |node| &node.up)
    }

    /// Whose parents have changed since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.changed)
    }

    fn set_up(&mut self, peer: PeerId, stripe: u32, parent: Option<PeerId>) -> Option<PeerId> {
        let node = self.nodes.get_mut(&peer)?;
        let before = std::mem::replace(&mut node.up[stripe as usize], parent);
        if before != parent {
            self.changed.insert(peer);
            self.bridge(peer, before, stripe, false);
            self.bridge(peer, parent, stripe, true);
        }
        match parent {
            Some(_) => self.loose.remove(&(peer, stripe)),
            None => self.loose.insert((peer, stripe)),
        };
        before
    }

    /// Keeps account of who is fed from groups it is not in.
    fn bridge(&mut self, peer: PeerId, parent: Option<PeerId>, stripe: u32, there: bool) {
        let Some(above) = parent.and_then(|parent| self.nodes.get(&parent)) else {
            return;
        };
        let Some(node) = self.nodes.get(&peer) else {
            return;
        };
        let left = above.place.without(&node.place);
        let entered = node.place.without(&above.place);
        // No depth: it would have to follow that of the peer.
        let key = (0, node.seq, peer);
        let s = stripe as usize;
        for (shelf, groups) in [
            (&mut self.bridges[s], &left),
            (&mut self.astray[s], &entered),
        ] {
            match there {
                true => shelf.insert(groups.named(), key),
                false => shelf.remove(groups.named(), &key),
            }
        }
    }

    /// Who is in a group; `None` for the group of all, and where nobody is.
    pub fn group(&self, group: Group) -> Option<&BTreeSet<PeerId>> {
        self.groups.get(&group)
    }

    /// Who of a group is fed by somebody outside of it; once a stripe.
    pub fn entries(&self, group: Group) -> impl Iterator<Item = PeerId> + '_ {
        let stripes = self.astray.iter();
        stripes.flat_map(move |shelf| shelf.of(group).map(|(_, _, id)| id))
    }

    /// Whether a peer is in a group.
    pub fn is_in(&self, peer: PeerId, group: Group) -> bool {
        self.nodes
            .get(&peer)
            .is_some_and(|node| node.place.is_in(group))
    }

    /// Whom it feeds, and in which stripe.
    pub fn children(&self, peer: PeerId) -> Vec<(PeerId, u32)> {
        let Some(node) = self.nodes.get(&peer) else {
            return Vec::new();
        };
        let stripes = node.down.iter().zip(0..);
        stripes
            .flat_map(|(children, stripe)| children.iter().map(move |&child| (child, stripe)))
            .collect()
    }

    /// How many children it feeds, over all stripes.
    pub fn load(&self, peer: PeerId) -> usize {
        self.nodes
            .get(&peer)
            .map_or(0, |node| node.down.iter().map(Vec::len).sum())
    }

    pub fn detach(&mut self, peer: PeerId, stripe: u32) {
        let s = stripe as usize;
        let Some(parent) = self.set_up(peer, stripe, None) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(&parent) {
            node.down[s].retain(|&child| child != peer);
        }
        self.reopen(parent, stripe);
        self.settle(peer, stripe);
    }

    fn link(&mut self, child: PeerId, parent: PeerId, stripe: u32) {
        let s = stripe as usize;
        if let Some(node) = self.nodes.get_mut(&parent) {
            node.down[s].push(child);
        }
        self.set_up(child, stripe, Some(parent));
        self.reopen(parent, stripe);
        self.settle(child, stripe);
    }

    /// The orphans in the order in which they are best attached: those first below whom a slot is
    /// open, for the others can go there then.
    pub fn orphans(&self) -> Vec<(PeerId, u32)> {
        let mut orphans = self.adrift();
        if orphans.len() > 1 {
            let mut with_slots = BTreeSet::new();
            for stripe in 0..self.stripes {
                let deepest = self.open[stripe as usize].of(ALL).rev();
                let adrift = deepest.take_while(|&(depth, _, _)| depth >= ADRIFT);
                for (_, _, id) in adrift.take(LOOKS) {
                    let mut top = id;
                    while let Some(above) = self.parent(top, stripe) {
                        top = above;
                    }
                    with_slots.insert((top, stripe));
                }
            }
            orphans.sort_by_key(|orphan| !with_slots.contains(orphan));
        }
        orphans
    }

    /// Sees to it that in a group no stripe has far fewer inner nodes than another: then it would lack slots. Who
    /// feeds the fewest in the one becomes inner in the other; its children there are adrift.
    pub fn balance(&mut self, group: Group) {
        loop {
            let stripes = || 0..self.stripes;
            let count = |stripe: u32| {
                let all = self.inner.get(&group);
                all.map_or(0, |inner| inner[stripe as usize])
            };
            let few = stripes().min_by_key(|&stripe| count(stripe));
            let many = stripes().max_by_key(|&stripe| count(stripe));
            let (Some(few), Some(many)) = (few, many) else {
                return;
            };
            if count(few) + 1 >= count(many) {
                return;
            }
            let feeds = |node: &Node| node.down[many as usize].len();
            let found = self
                .nodes
                .iter()
                .filter(|(id, node)| {
                    node.inner == Some(many) && self.root != Some(**id) && node.place.is_in(group)
                })
                .min_by_key(|(_, node)| (feeds(node), std::cmp::Reverse(node.seq)))
                .map(|(&id, _)| id);
            let Some(peer) = found else {
                return;
            };
            self.turn(peer, many, few);
        }
    }

    /// Makes an inner node of one stripe one of another.
    fn turn(&mut self, peer: PeerId, from: u32, to: u32) {
        let Some(node) = self.nodes.get(&peer) else {
            return;
        };
        let place = node.place.clone();
        self.count_inner(&place, from, false);
        self.count_inner(&place, to, true);
        let Some(node) = self.nodes.get_mut(&peer) else {
            return;
        };
        node.inner = Some(to);
        for child in node.down[from as usize].clone() {
            self.detach(child, from);
        }
        self.reopen(peer, from);
        // Where it was a leaf it is worth a higher place.
        self.detach(peer, to);
    }

    /// Whether `peer` hangs below `above`, or is it.
    fn below(&self, peer: PeerId, above: PeerId, stripe: u32) -> bool {
        let mut at = Some(peer);
        while let Some(id) = at {
            if id == above {
                return true;
            }
            at = self.parent(id, stripe);
        }
        false
    }

    fn slots(&self, peer: PeerId, node: &Node, stripe: u32) -> usize {
        match node.inner {
            _ if self.root == Some(peer) => 1,
            _ if node.barred => 0,
            None => 1,
            Some(inner) if inner == stripe => self.stripes as usize,
            Some(_) => 0,
        }
    }

    /// How many of a peer's slots in a stripe are taken.
    fn taken(&self, node: &Node, stripe: u32) -> usize {
        let children = node.down[stripe as usize].iter();
        children.filter(|child| !self.barred(**child)).count()
    }

    /// Computes the depths of a peer and all below it anew.
    fn settle(&mut self, peer: PeerId, stripe: u32) {
        let s = stripe as usize;
        let mut stack = vec![peer];
        while let Some(id) = stack.pop() {
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            let depth = match node.up[s] {
                _ if self.root == Some(id) => 0,
                Some(parent) => self.nodes.get(&parent).map_or(ADRIFT, |up| up.depth[s] + 1),
                None => ADRIFT,
            };
            self.close(id, stripe);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.depth[s] = depth;
                stack.extend(&node.down[s]);
            }
            self.reopen(id, stripe);
        }
    }

    fn close(&mut self, peer: PeerId, stripe: u32) {
        if let Some(node) = self.nodes.get(&peer) {
            let key = (node.depth[stripe as usize], node.seq, peer);
            self.open[stripe as usize].remove(node.place.groups(), &key);
            self.leaves[stripe as usize].remove(node.place.groups(), &key);
        }
    }

    fn reopen(&mut self, peer: PeerId, stripe: u32) {
        let s = stripe as usize;
        let Some(node) = self.nodes.get(&peer) else {
            return;
        };
        let key = (node.depth[s], node.seq, peer);
        let slots = self.slots(peer, node, stripe);
        if self.taken(node, stripe) < slots {
            self.open[s].insert(node.place.groups(), key);
        } else {
            self.open[s].remove(node.place.groups(), &key);
        }
        if slots == 0 && !node.barred && node.down[s].is_empty() && node.up[s].is_some() {
            self.leaves[s].insert(node.place.groups(), key);
        } else {
            self.leaves[s].remove(node.place.groups(), &key);
        }
    }

    /// Peers that have no parent in a stripe though they are not the root.
    pub fn adrift(&self) -> Vec<(PeerId, u32)> {
        let loose = self.loose.iter().copied();
        loose.filter(|(id, _)| self.root != Some(*id)).collect()
    }

    #[cfg(test)]
    pub fn check(&self) {
        for (&id, node) in self.nodes.iter() {
            for stripe in 0..self.stripes {
                let s = stripe as usize;
                let groups = |group| node.place.is_in(group);
                let listed = self.groups.iter().filter(|(_, of)| of.contains(&id));
                assert!(
                    listed.map(|(&group, _)| group).all(groups),
                    "in a group it is not in"
                );
                let loose = self.loose.contains(&(id, stripe));
                assert_eq!(loose, node.up[s].is_none(), "who is loose is not known");
                for child in &node.down[s] {
                    assert_eq!(
                        self.nodes[child].up[s],
                        Some(id),
                        "child and parent disagree"
                    );
                }
                if let Some(parent) = node.up[s] {
                    assert!(
                        self.nodes[&parent].down[s].contains(&id),
                        "parent and child disagree"
                    );
                    assert!(!self.below(parent, id, stripe), "a cycle");
                    let above = &self.nodes[&parent].place;
                    for group in node.place.named() {
                        let astray = self.astray[s].of(group).any(|key| key.2 == id);
                        assert_eq!(
                            astray,
                            !above.is_in(group),
                            "who is fed from afar is not known"
                        );
                    }
                    for group in above.named() {
                        let fed = self.bridges[s].of(group).any(|key| key.2 == id);
                        assert_eq!(
                            fed,
                            !node.place.is_in(group),
                            "who is fed from here is not known"
                        );
                    }
                }
            }
        }
    }

    #[cfg(test)]
    pub fn depth(&self) -> u32 {
        self.nodes
            .values()
            .flat_map(|node| node.depth.iter().copied())
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
