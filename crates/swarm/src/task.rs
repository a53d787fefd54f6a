use std::{collections::BTreeMap, time::Duration};

use pantala_core::{
    ContentMeta, Geometry, PeerId, PieceDigest, PieceIndex, PieceSet, TaskId, Time,
    control::{Known, Parents, PeerAddr, PieceRun, ToPeer, Trouble},
};

use crate::{Config, Output, leases::Leases, tree::Trees};

/// One content and the peers that have or want it.
#[derive(Debug)]
pub(crate) struct Task {
    id: TaskId,
    pub meta: ContentMeta,
    geometry: Geometry,
    digests: BTreeMap<PieceIndex, PieceDigest>,
    /// How many members hold each piece.
    copies: Vec<u32>,
    members: BTreeMap<PeerId, Member>,
    trees: Trees,
    leases: Leases,
    pub empty_since: Option<Time>,
    pub moved: u64,
    pub chosen: u64,
    draws: u64,
}

#[derive(Debug)]
struct Member {
    addr: PeerAddr,
    held: PieceSet,
    position: PieceIndex,
    reader_bound: bool,
    strikes: u32,
    demoted_until: Time,
    /// When it last gave a lease back that its reader had no room for.
    returned: Option<Time>,
    /// The piece it asked for last, and how often in a row.
    asked: (PieceIndex, u32),
    told: Parents,
}

/// With how many unsuccessful requests for the same piece a peer may ask the origin itself, though
/// somebody else has or should bring it.
const LAST_RESORT: u32 = 4;
const DEMOTION: Duration = Duration::from_secs(1);
const STRIKES_MAX: u32 = 6;
const RETURN_REST: Duration = Duration::from_secs(2);

/// Pieces that are kept account of: 16 TiB of the largest, 4 TiB of unknown length.
const PIECES_MAX: u32 = 1 << 22;

type Out<'a> = &'a mut Vec<Output>;

impl Task {
    pub fn new(id: TaskId, meta: ContentMeta, config: &Config) -> Self {
        let stripes = match config.stripes {
            0 => 2,
            stripes => stripes,
        };
        Self {
            id,
            geometry: Geometry::new(meta.length),
            meta,
            digests: BTreeMap::new(),
            copies: Vec::new(),
            members: BTreeMap::new(),
            trees: Trees::new(stripes),
            leases: Leases::default(),
            empty_since: None,
            moved: 0,
            chosen: 0,
            draws: config.seed,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members.keys().copied()
    }

    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    pub fn has_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    /// The piece in which a byte lies.
    pub fn piece_at(&self, offset: u64) -> PieceIndex {
        self.geometry.piece_at(offset)
    }

    /// What a newcomer must know.
    pub fn known(&self, peer: PeerId) -> Known {
        Known {
            task: self.id,
            meta: self.meta.clone(),
            digests: self
                .digests
                .iter()
                .map(|(&piece, &digest)| (piece, digest))
                .collect(),
            parents: self
                .members
                .get(&peer)
                .map(|member| member.told.clone())
                .unwrap_or_default(),
        }
    }

    /// A peer joins, or comes back for more. Gives it parents; says nothing to it yet.
    pub fn join(
        &mut self,
        addr: PeerAddr,
        position: PieceIndex,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        self.empty_since = None;
        let peer = addr.id;
        self.members
            .entry(peer)
            .and_modify(|member| member.position = position)
            .or_insert_with(|| Member::new(addr, position));
        self.trees.add(peer);
        if self.trees.root().is_none() {
            self.elect_root(now);
        }
        self.attach_adrift(now);
        self.tell_parents(config, Some(peer), out);
    }

    /// The first lease, for who learned the metadata.
    pub fn grant_first(
        &mut self,
        peer: PeerId,
        from: PieceIndex,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        if self.is_free(from) {
            self.grant(peer, from, config, now, out);
        }
    }

    fn is_free(&self, piece: PieceIndex) -> bool {
        self.in_bounds(piece) && self.copies(piece) == 0 && self.leases.holder(piece).is_none()
    }

    fn copies(&self, piece: PieceIndex) -> u32 {
        self.copies.get(piece.get() as usize).copied().unwrap_or(0)
    }

    pub fn leave(&mut self, peer: PeerId, config: &Config, now: Time, out: Out<'_>) {
        let Some(member) = self.members.remove(&peer) else {
            return;
        };
        for piece in member.held.iter() {
            self.count(piece, false);
        }
        let leases = self.leases.take_all(peer);
        self.trees.remove(peer);
        for lease in &leases {
            self.moved += 1;
            self.pass_on(lease.first, peer, config, now, out);
        }
        if self.trees.root().is_none() {
            self.elect_root(now);
        }
        self.attach_adrift(now);
        self.tell_parents(config, None, out);
        if self.members.is_empty() {
            self.empty_since = Some(now);
        }
    }

    /// Gives the lease from `piece` on to the member that can use it best, if there is one: the
    /// furthest one that is not slowed by its own reader.
    fn pass_on(
        &mut self,
        piece: PieceIndex,
        not: PeerId,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        if !self.is_free(piece) {
            return;
        }
        let rested = |member: &Member| member.returned.is_none_or(|at| now.since(at) > RETURN_REST);
        let next = self
            .members
            .iter()
            .filter(|(id, member)| **id != not && !member.reader_bound && rested(member))
            .filter(|(_, member)| member.position <= piece && self.geometry.has(member.position))
            .max_by_key(|(id, member)| (now >= member.demoted_until, member.position, **id))
            .map(|(&id, _)| id);
        if let Some(next) = next {
            self.grant(next, piece, config, now, out);
        }
    }

    /// Leases the pieces from `first` up to what somebody holds or has a lease for.
    fn grant(&mut self, peer: PeerId, first: PieceIndex, config: &Config, now: Time, out: Out<'_>) {
        let held = (first.get() as usize..self.copies.len())
            .find(|&piece| self.copies[piece] > 0)
            .map(|piece| PieceIndex::new(piece as u32));
        let leased = self.leases.next_from(first);
        let end = match (held, leased) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        // Forced: the piece itself is held or leased elsewhere.
        let end = end.map(|end| end.max(first.next()));
        self.leases.grant(peer, first, end, now);
        out.push(Output {
            to: peer,
            message: ToPeer::Lease {
                task: self.id,
                first,
                end,
            },
        });
        let root_leased = self
            .trees
            .root()
            .is_some_and(|root| self.leases.any_of(root));
        if end.is_none() && !root_leased {
            self.trees.set_root(peer);
            self.attach_adrift(now);
            self.tell_parents(config, None, out);
        }
    }

    /// Without a root: the one furthest ahead.
    fn elect_root(&mut self, now: Time) {
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
                    now >= member.demoted_until,
                    member.held.len(),
                    member.position,
                    std::cmp::Reverse(**id),
                )
            })
            .map(|(&id, _)| id);
        if let Some(root) = leased.or(furthest) {
            self.trees.set_root(root);
        }
    }

    fn attach_adrift(&mut self, now: Time) {
        for (peer, stripe) in self.trees.adrift() {
            self.attach(peer, stripe, None, now);
        }
    }

    fn attach(&mut self, peer: PeerId, stripe: u32, not: Option<PeerId>, now: Time) {
        let root = self.trees.root();
        let members = &self.members;
        let may = |candidate: PeerId, child: PeerId| {
            if child == peer && Some(candidate) == not {
                return false;
            }
            let (Some(parent), Some(child)) = (members.get(&candidate), members.get(&child)) else {
                return false;
            };
            let position = child.position;
            let useful = parent.held.contains(position)
                || parent.position == position
                || (Some(candidate) == root && parent.position <= position);
            useful && now >= parent.demoted_until && !parent.reader_bound
        };
        self.chosen += 1;
        self.trees.attach(peer, stripe, may);
    }

    /// Tells every member whose preferred parents changed, but `quiet`, which is told otherwise.
    fn tell_parents(&mut self, config: &Config, quiet: Option<PeerId>, out: Out<'_>) {
        let changed: Vec<PeerId> = self
            .members
            .iter()
            .filter(|(id, member)| {
                let now = self.trees.parents(**id);
                !now.iter()
                    .copied()
                    .eq(member.told.preferred.iter().map(|p| p.map(|p| p.id)))
            })
            .map(|(&id, _)| id)
            .collect();
        for peer in changed {
            let parents = self.parents_of(peer, config);
            let Some(member) = self.members.get_mut(&peer) else {
                continue;
            };
            member.told = parents.clone();
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

    /// Preferred parents, and others to fall back on: the parents' parents, then members drawn by
    /// lot.
    fn parents_of(&mut self, peer: PeerId, config: &Config) -> Parents {
        let up = self.trees.parents(peer);
        let mut others: Vec<PeerId> = Vec::new();
        let mut add = |id: PeerId| {
            if id != peer && !up.contains(&Some(id)) && !others.contains(&id) {
                others.push(id);
            }
        };
        for (stripe, parent) in up.iter().enumerate() {
            if let Some(above) = parent.and_then(|parent| self.trees.parent(parent, stripe as u32))
            {
                add(above);
            }
        }
        let count = self.members.len();
        if count <= config.others + 1 {
            self.members.keys().copied().for_each(&mut add);
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
                let drawn = self
                    .members
                    .range(from..)
                    .next()
                    .or_else(|| self.members.iter().next());
                if let Some((&id, _)) = drawn {
                    add(id);
                }
            }
        }
        others.truncate(config.others);
        let addr = |id: PeerId| self.members.get(&id).map(|member| member.addr);
        Parents {
            preferred: up.iter().map(|parent| parent.and_then(addr)).collect(),
            others: others.into_iter().filter_map(addr).collect(),
        }
    }

    fn count(&mut self, piece: PieceIndex, more: bool) {
        let at = piece.get() as usize;
        if at >= self.copies.len() {
            self.copies.resize(at + 1, 0);
        }
        self.copies[at] = if more {
            self.copies[at] + 1
        } else {
            self.copies[at].saturating_sub(1)
        };
    }

    /// A peer says what changed in its memory.
    pub fn have(
        &mut self,
        peer: PeerId,
        gained: &[PieceRun],
        lost: &[PieceRun],
        position: PieceIndex,
        reader_bound: bool,
        now: Time,
    ) {
        self.leases.heard(peer, false, now);
        for (runs, more) in [(gained, true), (lost, false)] {
            let bound = self.bound();
            let end = |first: u32, count: u32| first.saturating_add(count).min(bound);
            for piece in runs
                .iter()
                .flat_map(|&(first, count)| first.get()..end(first.get(), count))
            {
                let piece = PieceIndex::new(piece);
                let Some(member) = self.members.get_mut(&peer) else {
                    return;
                };
                let changed = if more {
                    member.held.insert(piece)
                } else {
                    member.held.remove(piece)
                };
                if changed {
                    self.count(piece, more);
                }
            }
        }
        if let Some(member) = self.members.get_mut(&peer) {
            member.position = member.position.max(position);
            member.reader_bound = reader_bound;
        }
    }

    /// The piece after the last there can be: what a peer claims must not make us allocate.
    fn bound(&self) -> u32 {
        self.geometry
            .pieces()
            .map_or(PIECES_MAX, |pieces| pieces.min(PIECES_MAX))
    }

    fn in_bounds(&self, piece: PieceIndex) -> bool {
        piece.get() < self.bound()
    }

    /// Digests that a peer knew before this supernode did. Where two peers disagree nobody is
    /// believed: the piece is vouched for anew by whoever leases it.
    pub fn resume_digests(
        &mut self,
        peer: PeerId,
        digests: Vec<(PieceIndex, PieceDigest)>,
        out: Out<'_>,
    ) {
        let mut fresh = Vec::new();
        for (piece, digest) in digests {
            if !self.in_bounds(piece) {
                continue;
            }
            match self.digests.get(&piece) {
                None => {
                    self.digests.insert(piece, digest);
                    fresh.push((piece, digest));
                }
                Some(known) if *known != digest => {
                    self.digests.remove(&piece);
                }
                Some(_) => {}
            }
        }
        self.tell_digests(peer, fresh, out);
    }

    /// A leased piece came from the origin.
    pub fn sealed(
        &mut self,
        peer: PeerId,
        piece: PieceIndex,
        digest: PieceDigest,
        now: Time,
        out: Out<'_>,
    ) {
        // Who lost its lease just before may still vouch where nobody else has: the bytes came
        // from the origin under a lease.
        if !self.leases.holds(peer, piece) && self.digests.contains_key(&piece) {
            return;
        }
        if !self.in_bounds(piece) || !self.members.contains_key(&peer) {
            return;
        }
        self.leases.came(peer, piece, now);
        // It holds the piece, though its next word on what it holds is still to come: otherwise
        // the piece would look free meanwhile.
        if let Some(member) = self.members.get_mut(&peer)
            && member.held.insert(piece)
        {
            self.count(piece, true);
        }
        if self.digests.insert(piece, digest) != Some(digest) {
            self.tell_digests(peer, vec![(piece, digest)], out);
        }
    }

    fn tell_digests(&self, from: PeerId, digests: Vec<(PieceIndex, PieceDigest)>, out: Out<'_>) {
        if digests.is_empty() {
            return;
        }
        for &to in self.members.keys().filter(|&&id| id != from) {
            let digests = digests.clone();
            out.push(Output {
                to,
                message: ToPeer::Digests {
                    task: self.id,
                    digests,
                },
            });
        }
    }

    pub fn ended(&mut self, peer: PeerId, length: u64, out: Out<'_>) {
        if self.geometry.length().is_some() {
            return;
        }
        self.geometry = self.geometry.ended(length);
        self.meta.length = Some(length);
        self.leases.limit(self.geometry.piece_after(length));
        for &to in self.members.keys().filter(|&&id| id != peer) {
            out.push(Output {
                to,
                message: ToPeer::Ended {
                    task: self.id,
                    length,
                },
            });
        }
    }

    pub fn pulse(&mut self, peer: PeerId, bytes: u64, now: Time) {
        self.leases.heard(peer, bytes > 0, now);
    }

    /// A peer lacks a source for a piece.
    pub fn ask(
        &mut self,
        peer: PeerId,
        piece: PieceIndex,
        late: bool,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        if !self.in_bounds(piece) {
            return;
        }
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        member.asked = if member.asked.0 == piece {
            (piece, member.asked.1 + 1)
        } else {
            (piece, 1)
        };
        let desperate = late && member.asked.1 >= LAST_RESORT;
        if self.leases.holds(peer, piece) {
            return;
        }
        if let Some(lease) = self.leases.holder(piece).cloned() {
            if now.since(lease.alive) > config.lease_timeout
                || now.since(lease.progressed) > config.stall_timeout
            {
                self.move_leases(lease.holder, Some(peer), config, now, out);
            } else if desperate && now.since(lease.progressed) > config.lease_timeout {
                self.force(peer, piece, now, out);
            } else {
                self.introduce(peer, &[lease.holder], config, out);
            }
        } else if self.copies(piece) == 0 {
            self.grant(peer, piece, config, now, out);
        } else if desperate {
            self.force(peer, piece, now, out);
        } else {
            let mut holders: Vec<(usize, PeerId)> = self
                .members
                .iter()
                .filter(|(id, member)| **id != peer && member.held.contains(piece))
                .filter(|(_, member)| now >= member.demoted_until || late)
                .map(|(&id, _)| (self.trees.load(id), id))
                .collect();
            holders.sort_unstable();
            let holders: Vec<PeerId> = holders.into_iter().take(2).map(|(_, id)| id).collect();
            self.introduce(peer, &holders, config, out);
        }
    }

    /// One piece from the origin, though others have it: they did not deliver.
    fn force(&mut self, peer: PeerId, piece: PieceIndex, now: Time, out: Out<'_>) {
        let end = Some(piece.next());
        self.leases.grant(peer, piece, end, now);
        out.push(Output {
            to: peer,
            message: ToPeer::Lease {
                task: self.id,
                first: piece,
                end,
            },
        });
    }

    /// Tells a peer of others who have what it needs.
    fn introduce(&mut self, peer: PeerId, to: &[PeerId], config: &Config, out: Out<'_>) {
        let addrs: Vec<PeerAddr> = to
            .iter()
            .filter_map(|id| self.members.get(id))
            .map(|member| member.addr)
            .collect();
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        let mut others = addrs;
        others.retain(|addr| addr.id != peer);
        for &old in &member.told.others {
            if !others.contains(&old) && others.len() < config.others.max(2) {
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

    pub fn give_back(
        &mut self,
        peer: PeerId,
        first: PieceIndex,
        end: Option<PieceIndex>,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        if !self.leases.give_back(peer, first, end) {
            return;
        }
        if let Some(member) = self.members.get_mut(&peer) {
            member.returned = Some(now);
        }
        let wanted = self
            .members
            .iter()
            .any(|(&id, member)| id != peer && member.position <= first);
        if wanted {
            self.pass_on(first, peer, config, now, out);
        }
        // A root without a lease feeds nobody new: another takes its place with the next lease.
        self.attach_adrift(now);
        self.tell_parents(config, None, out);
    }

    /// Takes the leases of a holder that stalls away, and gives them to `to` or the best other.
    fn move_leases(
        &mut self,
        from: PeerId,
        to: Option<PeerId>,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        if self.members.len() < 2 {
            return;
        }
        if let Some(member) = self.members.get_mut(&from) {
            member.strike(now);
        }
        for lease in self.leases.take_all(from) {
            self.moved += 1;
            let (first, end) = (lease.first, lease.end);
            out.push(Output {
                to: from,
                message: ToPeer::LeaseEnded {
                    task: self.id,
                    first,
                    end,
                },
            });
            match to {
                Some(to) if self.is_free(first) => self.grant(to, first, config, now, out),
                _ => self.pass_on(first, from, config, now, out),
            }
        }
    }

    /// Moves leases on whose holders stall.
    pub fn tick(&mut self, config: &Config, now: Time, out: Out<'_>) {
        let stalled: Vec<PeerId> = self
            .leases
            .iter()
            .filter(|lease| {
                now.since(lease.alive) > config.lease_timeout
                    || now.since(lease.progressed) > config.stall_timeout
            })
            .map(|lease| lease.holder)
            .collect();
        for holder in stalled {
            self.move_leases(holder, None, config, now, out);
        }
    }

    /// A child complains. A parent is only to blame when somebody else could do better: if nobody
    /// has the piece that the child waits for, what is slow lies above them all.
    pub fn trouble(
        &mut self,
        peer: PeerId,
        parent: PeerId,
        trouble: Trouble,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        let Some(child) = self.members.get(&peer) else {
            return;
        };
        let position = child.position;
        if trouble == Trouble::Slow && self.copies(position) == 0 {
            return;
        }
        if let Some(member) = self.members.get_mut(&parent) {
            member.strike(now);
        }
        for stripe in 0..self.trees.stripes() {
            if self.trees.parent(peer, stripe) == Some(parent) {
                self.attach(peer, stripe, Some(parent), now);
            }
        }
        self.tell_parents(config, None, out);
    }
}

impl Member {
    fn new(addr: PeerAddr, position: PieceIndex) -> Self {
        Self {
            addr,
            held: PieceSet::new(),
            position,
            reader_bound: false,
            strikes: 0,
            demoted_until: Time::ZERO,
            returned: None,
            asked: (PieceIndex::new(u32::MAX), 0),
            told: Parents::default(),
        }
    }

    /// It was late: gets no new children for a while that doubles, never for ever.
    fn strike(&mut self, now: Time) {
        self.strikes = (self.strikes + 1).min(STRIKES_MAX);
        self.demoted_until = now + DEMOTION * (1 << (self.strikes - 1));
    }
}
