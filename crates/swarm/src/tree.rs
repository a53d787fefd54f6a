use std::collections::{BTreeMap, BTreeSet};

use pantala_core::PeerId;

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
    nodes: BTreeMap<PeerId, Node>,
    /// Per stripe: peers with a free slot, the shallowest and oldest first.
    open: Vec<BTreeSet<(u32, u64, PeerId)>>,
    /// Per stripe: attached peers that feed nobody in it, the shallowest and oldest first.
    leaves: Vec<BTreeSet<(u32, u64, PeerId)>>,
    inner: Vec<usize>,
    root: Option<PeerId>,
    /// Who has no parent in a stripe, the root among them.
    loose: BTreeSet<(PeerId, u32)>,
    /// Whose parents are others than when last asked.
    changed: BTreeSet<PeerId>,
    counter: u64,
}

#[derive(Debug)]
struct Node {
    /// When it came, to break ties by age.
    seq: u64,
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
/// Open slots that are looked at for one choice, from either end, before taste gives way to having a
/// parent at all.
const LOOKS: usize = 64;

impl Trees {
    pub fn new(stripes: u32, chain: u32) -> Self {
        Self {
            stripes,
            chain,
            nodes: BTreeMap::new(),
            open: vec![BTreeSet::new(); stripes as usize],
            leaves: vec![BTreeSet::new(); stripes as usize],
            inner: vec![0; stripes as usize],
            root: None,
            loose: BTreeSet::new(),
            changed: BTreeSet::new(),
            counter: 0,
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
    pub fn add(&mut self, peer: PeerId, in_step: impl Fn(PeerId) -> bool) {
        if self.nodes.contains_key(&peer) {
            return;
        }
        let inner = (!self.chains(in_step)).then(|| {
            (0..self.stripes)
                .min_by_key(|&s| self.inner[s as usize])
                .unwrap_or(0)
        });
        if let Some(inner) = inner {
            self.inner[inner as usize] += 1;
        }
        self.counter += 1;
        let stripes = self.stripes as usize;
        self.nodes.insert(
            peer,
            Node {
                seq: self.counter,
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

    pub fn barred(&self, peer: PeerId) -> bool {
        self.nodes.get(&peer).is_some_and(|node| node.barred)
    }

    /// Whether it feeds more than it has slots for, in some stripe.
    pub fn is_overloaded(&self, peer: PeerId) -> bool {
        self.nodes.get(&peer).is_some_and(|node| {
            (0..self.stripes)
                .any(|stripe| node.down[stripe as usize].len() > self.slots(peer, node, stripe))
        })
    }

    /// Whether a newcomer should be a link of a chain: above the first open slot there are not too
    /// many that are in step with it already.
    fn chains(&self, in_step: impl Fn(PeerId) -> bool) -> bool {
        if self.chain == 0 {
            return false;
        }
        let mut at = self.open[0].first().map(|&(_, _, id)| id);
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
        if let Some(inner) = self.nodes.remove(&peer).and_then(|node| node.inner) {
            self.inner[inner as usize] -= 1;
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
        }
        match parent {
            Some(_) => self.loose.remove(&(peer, stripe)),
            None => self.loose.insert((peer, stripe)),
        };
        before
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

    /// Gives a peer a parent in a stripe: the shallowest open slot whose owner would feed it well, else
    /// soon; else the peer with the fewest children that would, else anybody. Never one of its own
    /// descendants. Who shares an uplink that is meant for fewer is slow for good, and all below it;
    /// who goes below somebody a little behind loses that little once.
    /// An inner node takes the place of a shallower leaf that it may feed: otherwise leaves would
    /// fill the slots near the root and the tree would be as deep as the swarm is large. `None`
    /// only when the peer is the root or there is nobody.
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
        if let Some((leaf, above)) = self.displaceable(peer, stripe, &fit) {
            self.detach(leaf, stripe);
            self.link(peer, above, stripe);
            self.link(leaf, peer, stripe);
            return Some(above);
        }
        let parent = self.choose(peer, stripe, |candidate| fit(candidate, peer))?;
        self.link(peer, parent, stripe);
        Some(parent)
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

    /// A leaf whose place an inner node should take, and the leaf's parent.
    fn displaceable(
        &self,
        peer: PeerId,
        stripe: u32,
        fit: &impl Fn(PeerId, PeerId) -> Fit,
    ) -> Option<(PeerId, PeerId)> {
        let may = |parent, child| fit(parent, child) == Fit::Well;
        let s = stripe as usize;
        let node = self.nodes.get(&peer)?;
        if self.taken(node, stripe) >= self.slots(peer, node, stripe) {
            return None;
        }
        let open = looks(&self.open[s]).find(|&&(_, _, id)| id != peer && may(id, peer));
        let below_open = open.map_or(ADRIFT, |&(depth, _, _)| depth + 1);
        looks(&self.leaves[s])
            .filter(|&&(depth, _, _)| depth < below_open)
            .filter_map(|&(_, _, leaf)| Some((leaf, self.parent(leaf, stripe)?)))
            .find(|&(leaf, above)| {
                leaf != peer
                    && !self.barred(above)
                    && may(peer, leaf)
                    && may(above, peer)
                    && !self.below(above, peer, stripe)
            })
    }

    fn choose(&self, peer: PeerId, stripe: u32, fit: impl Fn(PeerId) -> Fit) -> Option<PeerId> {
        let may = |id: PeerId| fit(id) == Fit::Well;
        let sound = |&candidate: &PeerId| candidate != peer && !self.below(candidate, peer, stripe);
        let open = || looks(&self.open[stripe as usize]).map(|&(_, _, id)| id);
        if self.barred(peer) {
            // It takes no slot: where there is most of an uplink left.
            let idle = self
                .nodes
                .keys()
                .copied()
                .filter(|id| sound(id) && !self.barred(*id));
            let idle = idle.filter(|&id| may(id)).min_by_key(|&id| self.load(id));
            if idle.is_some() {
                return idle;
            }
        }
        let mut sound_open = open().filter(sound).filter(|&id| fit(id) != Fit::Badly);
        let first = sound_open.next();
        let well = first.into_iter().chain(sound_open).find(|&id| may(id));
        if let Some(found) = well.or(first) {
            return Some(found);
        }
        let by_load = |may: &dyn Fn(PeerId) -> bool| {
            self.nodes
                .iter()
                .filter(|(_, node)| node.depth[stripe as usize] < ADRIFT)
                .map(|(&id, node)| (id, node))
                .filter(|(id, _)| sound(id) && may(*id))
                .min_by_key(|(id, node)| (self.load(*id), node.depth[stripe as usize], node.seq))
                .map(|(id, _)| id)
        };
        by_load(&|id| !self.barred(id) && may(id))
            .or_else(|| open().find(sound))
            .or_else(|| by_load(&|id| !self.barred(id)))
            .or_else(|| by_load(&|_| true))
    }

    /// The orphans in the order in which they are best attached: those first below whom a slot is
    /// open, for the others can go there then.
    pub fn orphans(&self) -> Vec<(PeerId, u32)> {
        let mut orphans = self.adrift();
        if orphans.len() > 1 {
            let mut with_slots = BTreeSet::new();
            for stripe in 0..self.stripes {
                let deepest = self.open[stripe as usize].iter().rev();
                let adrift = deepest.take_while(|&&(depth, _, _)| depth >= ADRIFT);
                for &(_, _, id) in adrift.take(LOOKS) {
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

    /// Sees to it that no stripe has far fewer inner nodes than another: then it would lack slots. Who
    /// feeds the fewest in the one becomes inner in the other; its children there are adrift.
    pub fn balance(&mut self) {
        loop {
            let stripes = || 0..self.stripes;
            let few = stripes().min_by_key(|&s| self.inner[s as usize]);
            let many = stripes().max_by_key(|&s| self.inner[s as usize]);
            let (Some(few), Some(many)) = (few, many) else {
                return;
            };
            if self.inner[few as usize] + 1 >= self.inner[many as usize] {
                return;
            }
            let feeds = |node: &Node| node.down[many as usize].len();
            let found = self
                .nodes
                .iter()
                .filter(|(id, node)| node.inner == Some(many) && self.root != Some(**id))
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
        self.inner[from as usize] -= 1;
        self.inner[to as usize] += 1;
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
            self.open[stripe as usize].remove(&key);
            self.leaves[stripe as usize].remove(&key);
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
            self.open[s].insert(key);
        } else {
            self.open[s].remove(&key);
        }
        if slots == 0 && !node.barred && node.down[s].is_empty() && node.up[s].is_some() {
            self.leaves[s].insert(key);
        } else {
            self.leaves[s].remove(&key);
        }
    }

    /// Peers that have no parent in a stripe though they are not the root.
    pub fn adrift(&self) -> Vec<(PeerId, u32)> {
        let loose = self.loose.iter().copied();
        loose.filter(|(id, _)| self.root != Some(*id)).collect()
    }

    #[cfg(test)]
    pub fn check(&self) {
        for (&id, node) in &self.nodes {
            for stripe in 0..self.stripes {
                let s = stripe as usize;
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

/// The first and the last of a list: the shallowest, and the newest in the deepest.
fn looks<T: Ord>(list: &BTreeSet<T>) -> impl Iterator<Item = &T> {
    let last = list.len().saturating_sub(LOOKS).min(LOOKS);
    list.iter().take(LOOKS).chain(list.iter().rev().take(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> PeerId {
        let mut bytes = [0; 16];
        bytes[0] = n;
        PeerId::from_bytes(bytes)
    }

    fn join(trees: &mut Trees, peer: PeerId) {
        trees.add(peer, |_| true);
        if trees.root().is_none() {
            trees.set_root(peer);
        }
        for stripe in 0..trees.stripes() {
            trees.attach(peer, stripe, |_, _| Fit::Well);
        }
    }

    #[test]
    fn who_loses_many_still_has_slots_for_all() {
        let mut trees = Trees::new(2, 4);
        (0..100).for_each(|n| join(&mut trees, id(n)));
        for n in (5..95).step_by(3) {
            trees.remove(id(n));
            trees.balance();
            while let Some(&(orphan, stripe)) = trees.orphans().first() {
                trees.attach(orphan, stripe, |_, _| Fit::Well);
            }
            trees.check();
            assert!((0..100).all(|n| !trees.is_overloaded(id(n))), "after {n}");
        }
    }

    #[test]
    fn one_stripe_is_a_chain() {
        let mut trees = Trees::new(1, 0);
        (0..8).for_each(|n| join(&mut trees, id(n)));
        trees.check();
        assert_eq!(trees.depth(), 7);
        assert!((0..8).all(|n| trees.load(id(n)) <= 1));
    }

    #[test]
    fn two_stripes_are_shallow_and_fair() {
        let mut trees = Trees::new(2, 0);
        (0..200).for_each(|n| join(&mut trees, id(n)));
        trees.check();
        assert!(trees.depth() <= 10, "depth {}", trees.depth());
        assert!(
            (0..200).all(|n| trees.load(id(n)) <= 2),
            "nobody uploads more than it receives"
        );
        assert!(trees.adrift().is_empty());
    }

    #[test]
    fn few_are_a_chain_and_many_a_chain_with_trees_below() {
        let mut trees = Trees::new(2, 12);
        (0..12).for_each(|n| join(&mut trees, id(n)));
        assert_eq!(trees.depth(), 11);
        (12..200).for_each(|n| join(&mut trees, id(n)));
        trees.check();
        assert!(trees.depth() <= 22, "depth {}", trees.depth());
        assert!((0..200).all(|n| trees.load(id(n)) <= 2));
    }

    proptest! {
        #[test]
        fn survives_any_coming_and_going(
            stripes in 1u32..4,
            chain in 0u32..8,
            ops in prop::collection::vec((0u8..4, 0u8..24), 0..150),
        ) {
            let mut trees = Trees::new(stripes, chain);
            for (op, n) in ops {
                match op {
                    0 | 1 => join(&mut trees, id(n)),
                    2 => {
                        let orphans = trees.remove(id(n));
                        if trees.root().is_none() && let Some(&(orphan, _)) = orphans.first() {
                            trees.set_root(orphan);
                        }
                        for (orphan, stripe) in orphans {
                            trees.attach(orphan, stripe, |_, _| Fit::Well);
                        }
                    }
                    _ => trees.set_root(id(n)),
                }
                for (peer, stripe) in trees.adrift() {
                    trees.attach(peer, stripe, |_, _| Fit::Well);
                }
                trees.check();
                if trees.root().is_some() {
                    prop_assert!(trees.adrift().is_empty());
                }
            }
        }
    }
}
