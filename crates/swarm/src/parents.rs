//! Who pulls from whom: the trees' preferences as the peers are told them.

use pantala_core::{
    PeerId, Time,
    control::{Parents, PeerAddr, ToPeer, Trouble},
};

use crate::{
    Config, Output, Shape,
    mesh::neighbours,
    peer_map::PeerMap,
    place::Group,
    task::{Member, Out, Task},
    tree::Fit,
};

/// How many members a group must have so that they need to know nobody else.
const NEIGHBOURS: usize = 4;
/// How many pieces a parent may be behind its child when there is nobody better who has room.
const SOON: u32 = 8;
/// How many others besides the preferred parents a slow member is told.
const SLOW_OTHERS: usize = 1;

impl Task {
    /// Without a root: the one furthest ahead.
    pub(crate) fn elect_root(&mut self, now: Time) {
        let leased = self
            .leases
            .iter()
            .find(|lease| lease.end.is_none())
            .map(|lease| lease.holder);
        let furthest = self
            .members
            .iter()
            .max_by_key(|(id, member)| {
                (
                    now >= member.demoted_until && !self.trees.barred(**id),
                    member.held.len(),
                    member.position,
                    std::cmp::Reverse(**id),
                )
            })
            .map(|(&id, _)| id);
        if let Some(root) = leased.or(furthest) {
            self.set_root(root, now);
        }
    }

    /// A peer that came back may be further than the root, which was the first to come back: then
    /// it is the one to go on at the origin.
    pub(crate) fn reconsider_root(
        &mut self,
        peer: PeerId,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        let Some(root) = self.trees.root().filter(|&root| root != peer) else {
            return;
        };
        let held = |id| self.members.get(&id).map_or(0, |member| member.held.len());
        if held(peer) > held(root) && !self.leases.any_of(root) {
            self.set_root(peer, now);
            self.attach_adrift(now);
            self.tell_parents(config, Some(peer), now, out);
        }
    }

    pub(crate) fn attach_adrift(&mut self, now: Time) {
        for (peer, stripe) in self.trees.orphans() {
            self.attach(peer, stripe, None, now);
        }
    }

    pub(crate) fn attach(&mut self, peer: PeerId, stripe: u32, not: Option<PeerId>, now: Time) {
        let root = self.trees.root();
        let members = &self.members;
        let fit = |candidate: PeerId, child: PeerId| {
            if child == peer && Some(candidate) == not {
                return Fit::Badly;
            }
            fit(members, root, candidate, child, now)
        };
        self.chosen += 1;
        self.trees.attach(peer, stripe, fit);
    }

    /// Makes a member the root of all trees. Who of its group is fed from afar comes to it, before
    /// those from afar do.
    pub(crate) fn set_root(&mut self, peer: PeerId, now: Time) {
        self.trees.set_root(peer);
        let members = &self.members;
        let fit = |candidate, child| fit(members, Some(peer), candidate, child, now);
        for stripe in 0..self.trees.stripes() {
            self.trees.gather(peer, stripe, &fit);
        }
    }

    /// Tells every member whose preferred parents changed, but `quiet`, which is told otherwise.
    pub(crate) fn tell_parents(
        &mut self,
        config: &Config,
        quiet: Option<PeerId>,
        now: Time,
        out: Out<'_>,
    ) {
        let changed = self.trees.take_changed();
        // Without trees there is nothing to tell of them.
        for peer in changed.into_iter().filter(|_| config.shape == Shape::Trees) {
            let told = self.members.get(&peer).map(|member| &member.told.preferred);
            let news = told.is_some_and(|told| {
                let parents = self.trees.parents(peer).iter().copied();
                !parents.eq(told.iter().map(|parent| parent.map(|parent| parent.id)))
            });
            if !news {
                continue;
            }
            let parents = self.parents_of(peer, config);
            let Some(member) = self.members.get_mut(&peer) else {
                continue;
            };
            member.told = parents.clone();
            member.pace.moved(now);
            if quiet != Some(peer) {
                out.push(Output {
                    to: peer,
                    message: ToPeer::Parents {
                        task: self.id,
                        parents,
                    },
                });
            }
        }
    }

    /// Tells a member its parents again, drawn anew.
    pub(crate) fn tell_anew(&mut self, peer: PeerId, config: &Config, out: Out<'_>) {
        let parents = self.parents_of(peer, config);
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        member.told = parents.clone();
        let task = self.id;
        out.push(Output {
            to: peer,
            message: ToPeer::Parents { task, parents },
        });
    }

    /// Preferred parents, and others to fall back on: the parents' parents, then members drawn by
    /// lot. Of a group that is large enough only those: who left the tree must not fetch again from
    /// afar what is near already.
    pub(crate) fn parents_of(&mut self, peer: PeerId, config: &Config) -> Parents {
        let up = match config.shape {
            Shape::Trees => self.trees.parents(peer).to_vec(),
            Shape::Mesh | Shape::PerPiece => Vec::new(),
        };
        let group = self.neighbourhood(peer);
        let mut others: Vec<PeerId> = Vec::new();
        let mut add = |id: PeerId| {
            if id != peer && !up.contains(&Some(id)) && !others.contains(&id) {
                others.push(id);
            }
        };
        let own = |id: &PeerId| group.is_none_or(|group| self.trees.is_in(*id, group));
        for (stripe, parent) in up.iter().enumerate() {
            let above = parent.and_then(|parent| self.trees.parent(parent, stripe as u32));
            if let Some(above) = above.filter(own) {
                add(above);
            }
        }
        if self.trees.barred(peer) {
            let others = self.idle(peer, &up);
            return self.addressed(&up, others);
        }
        let near = group.and_then(|group| self.trees.group(group));
        let count = near.map_or(self.members.len(), |near| near.len());
        if count <= config.others + 1 {
            match near {
                Some(near) => near.iter().copied().for_each(&mut add),
                None => self.members.keys().copied().for_each(&mut add),
            }
        } else {
            for _ in 0..config.others {
                self.draws = self
                    .draws
                    .wrapping_mul(0x5851_f42d_4c95_7f2d)
                    .wrapping_add(0x1405_7b7e_f767_814f);
                let mut from = *peer.as_bytes();
                from[..8].copy_from_slice(&self.draws.to_be_bytes());
                let from = PeerId::from_bytes(from);
                // Identifiers are random, so the next one after a random point is a fair draw.
                let drawn = match near {
                    Some(near) => near.range(from..).next().or_else(|| near.first()).copied(),
                    None => {
                        let mut after = self.members.range(from..).map(|(&id, _)| id);
                        let first = || self.members.keys().next().copied();
                        after.next().or_else(first)
                    }
                };
                if let Some(id) = drawn {
                    add(id);
                }
            }
        }
        others.retain(|&id| !self.is_out_of_reach(id, peer, self.heard));
        others.truncate(config.others);
        self.addressed(&up, others)
    }

    /// Whom a slow member may fall back on: who feeds least. Whatever it takes from those that pass
    /// on all they can, all below them lack.
    fn idle(&self, peer: PeerId, up: &[Option<PeerId>]) -> Vec<PeerId> {
        let mut idle: Vec<(usize, PeerId)> = self
            .members
            .keys()
            .filter(|&&id| id != peer && !up.contains(&Some(id)) && !self.trees.barred(id))
            .map(|&id| (self.trees.load(id), id))
            .collect();
        let few = SLOW_OTHERS.min(idle.len());
        if few > 0 && few < idle.len() {
            idle.select_nth_unstable(few - 1);
        }
        idle.truncate(few);
        idle.into_iter().map(|(_, id)| id).collect()
    }

    fn addressed(&self, up: &[Option<PeerId>], others: Vec<PeerId>) -> Parents {
        let honest = |member: &&Member| member.withheld.is_none();
        let addr = |id: PeerId| {
            let member = self.members.get(&id).filter(honest);
            member.map(|member| member.addr)
        };
        Parents {
            preferred: up.iter().map(|parent| parent.and_then(addr)).collect(),
            others: others.into_iter().filter_map(addr).collect(),
        }
    }

    /// Whether so many of its group are members that it needs to know nobody else.
    pub(crate) fn has_neighbours(&self, peer: PeerId) -> bool {
        let own = self.neighbourhood(peer);
        own.is_some()
    }

    /// The narrowest group of a member that holds enough others to fall back on.
    fn neighbourhood(&self, peer: PeerId) -> Option<Group> {
        let place = &self.members.get(&peer)?.place;
        let large = |&group: &Group| {
            let near = self.trees.group(group);
            near.is_some_and(|near| near.len() >= NEIGHBOURS)
        };
        place.groups().find(large)
    }

    /// Tells a peer of others who have what it needs.
    pub(crate) fn introduce(&mut self, peer: PeerId, to: &[PeerId], config: &Config, out: Out<'_>) {
        let addrs: Vec<PeerAddr> = to
            .iter()
            .filter(|id| self.is_honest(**id))
            .filter_map(|id| self.members.get(id))
            .map(|member| member.addr)
            .collect();
        let Some(member) = self.members.get(&peer) else {
            return;
        };
        let mut known = member.told.others.clone();
        known.retain(|addr| self.is_honest(addr.id));
        known.retain(|addr| !self.is_out_of_reach(addr.id, peer, self.heard));
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        let most = match self.trees.barred(peer) {
            true => SLOW_OTHERS,
            false => neighbours(config),
        };
        let mut others = addrs;
        others.retain(|addr| addr.id != peer);
        for &old in &known {
            if !others.contains(&old) && others.len() < most {
                others.push(old);
            }
        }
        if others != member.told.others {
            member.told.others = others;
            let parents = member.told.clone();
            out.push(Output {
                to: peer,
                message: ToPeer::Parents {
                    task: self.id,
                    parents,
                },
            });
        }
    }

    /// A child complains. A slow parent is only to blame when it has what the child waits for: if
    /// it lacks that itself, what is slow lies above it, and shows in how its members get on.
    pub(crate) fn trouble(
        &mut self,
        peer: PeerId,
        parent: PeerId,
        trouble: Trouble,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        if let Trouble::Corrupt { piece } = trouble {
            self.accuse(peer, parent, piece, config, now, out);
            return;
        }
        if trouble == Trouble::Unreachable
            && self.members.contains_key(&parent)
            && let Some(child) = self.members.get_mut(&peer)
        {
            child.unreached.insert(parent, now);
        }
        let Some(child) = self.members.get(&peer) else {
            return;
        };
        let position = child.position;
        // Whose own link is slow finds everybody slow.
        if trouble == Trouble::Slow && self.trees.barred(peer) {
            return;
        }
        let has = |member: &Member| member.held.contains(position);
        if trouble == Trouble::Slow && !self.members.get(&parent).is_some_and(has) {
            return;
        }
        // That one member cannot connect to it says nothing about others.
        if trouble != Trouble::Unreachable
            && let Some(member) = self.members.get_mut(&parent)
        {
            member.strike(now);
        }
        for stripe in 0..self.trees.stripes() {
            if self.trees.parent(peer, stripe) == Some(parent) {
                self.attach(peer, stripe, Some(parent), now);
            }
        }
        self.tell_parents(config, None, now, out);
    }
}

/// How well one member would feed another.
pub(crate) fn fit(
    members: &PeerMap<Member>,
    root: Option<PeerId>,
    candidate: PeerId,
    child: PeerId,
    now: Time,
) -> Fit {
    let (Some(parent), Some(child)) = (members.get(&candidate), members.get(&child)) else {
        return Fit::Badly;
    };
    if child.unreached.contains(candidate, now) {
        return Fit::Badly;
    }
    if now < parent.demoted_until || parent.reader_bound || parent.mute {
        return Fit::Badly;
    }
    let position = child.position;
    let useful = parent.held.contains(position)
        || parent.position == position
        || (Some(candidate) == root && parent.position <= position);
    let soon =
        parent.position < position && parent.position.get().saturating_add(SOON) >= position.get();
    match useful {
        true => Fit::Well,
        false if soon => Fit::Soon,
        false => Fit::Badly,
    }
}
