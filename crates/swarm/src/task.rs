use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pantala_core::{
    ContentMeta, Geometry, PeerId, PieceDigest, PieceIndex, PieceSet, TaskId, Time,
    control::{Known, PIECES_PER_MESSAGE, Parents, PeerAddr, PieceRun, ToPeer},
};

use crate::{
    Config, Output, Shape,
    keep::Keepers,
    leases::Leases,
    mesh::PieceTree,
    outage::Outage,
    pace::Pace,
    peer_map::PeerMap,
    place::{ALL, Place},
    probe::Probes,
    reach::Unreached,
    transfer::Transfer,
    tree::Trees,
};

/// One content and the peers that have or want it.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) meta: ContentMeta,
    pub(crate) geometry: Geometry,
    pub(crate) digests: BTreeMap<PieceIndex, PieceDigest>,
    /// How many members hold each piece.
    pub(crate) copies: Vec<u32>,
    pub(crate) members: PeerMap<Member>,
    /// Members that may still lack something: how they get on is watched.
    pub(crate) reading: BTreeSet<PeerId>,
    /// How often a member was looked at to see how it gets on.
    pub(crate) looked_at: u64,
    /// Members that are suspected or not believed.
    pub(crate) watched: BTreeSet<PeerId>,
    pub(crate) trees: Trees,
    /// Where each piece has a tree of its own: those of the pieces that are asked for.
    pub(crate) piece_trees: BTreeMap<PieceIndex, PieceTree>,
    pub(crate) leases: Leases,
    pub(crate) probes: Probes,
    pub(crate) keepers: Keepers,
    /// Digests that not all members were told yet, and who knows them: nobody where several
    /// vouched.
    pub(crate) fresh: Vec<(PieceIndex, PieceDigest)>,
    pub(crate) fresh_from: Option<PeerId>,
    /// No digests are told before.
    pub(crate) quiet_until: Time,
    /// When it was last looked how its members get on.
    pub(crate) looked: Time,
    /// When something was last heard of it.
    pub(crate) heard: Time,
    pub(crate) empty_since: Option<Time>,
    /// The one transfer that content without validators comes from.
    pub(crate) transfer: Transfer,
    /// Pieces that members' messages spoke of.
    pub(crate) pieces_heard: u64,
    /// What is known of the origin's failures.
    pub(crate) outage: Outage,
    pub(crate) moved: u64,
    pub(crate) chosen: u64,
    pub(crate) draws: u64,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) addr: PeerAddr,
    pub(crate) place: Place,
    pub(crate) held: PieceSet,
    pub(crate) position: PieceIndex,
    pub(crate) joined: Time,
    pub(crate) pace: Pace,
    pub(crate) reader_bound: bool,
    pub(crate) strikes: u32,
    /// When it last complained of wrong bytes.
    pub(crate) deceived: Option<Time>,
    /// Since when somebody has complained of wrong bytes that it may only have passed on.
    pub(crate) suspected: Option<Time>,
    /// Who complained last that it sends wrong bytes, and when.
    pub(crate) accuser: Option<(PeerId, Time)>,
    /// Whom this member's word alone has made a liar, and until when.
    pub(crate) accused: Option<(PeerId, Time)>,
    /// What it says it holds, while it is not believed: it sent wrong bytes.
    pub(crate) withheld: Option<PieceSet>,
    pub(crate) demoted_until: Time,
    /// It lost a lease for saying nothing, and has said nothing since: it gets no other.
    pub(crate) mute: bool,
    /// When it last gave a lease back that its reader had no room for.
    pub(crate) returned: Option<Time>,
    /// The late piece it asked for last, and how often in a row.
    pub(crate) asked: (PieceIndex, u32),
    /// In how many pieces' own trees somebody was told to wait for it.
    pub(crate) waited_for: u32,
    /// How many near it held that piece when it was last told of some.
    pub(crate) near: usize,
    pub(crate) told: Parents,
    /// Parents that it could not connect to.
    pub(crate) unreached: Unreached,
}

const DEMOTION: Duration = Duration::from_secs(1);
const STRIKES_MAX: u32 = 6;
/// Peers that came within this time of each other are in step; who comes later is behind anyway by
/// more than a chain costs.
const IN_STEP: Duration = Duration::from_millis(40);

/// Messages with digests that are sent in a second at most, about a third of what one core can, where
/// there are more members than
const DIGEST_MESSAGES: u32 = 400_000;
/// so many.
pub(crate) const FEW: u32 = 512;

/// How long nothing may be heard of a task that is looked after all the same.
const IDLE: Duration = Duration::from_secs(5);

/// Pieces that are kept account of: 16 TiB of the largest, 4 TiB of unknown length.
const PIECES_MAX: u32 = 1 << 22;

pub(crate) type Out<'a> = &'a mut Vec<Output>;

impl Task {
    pub(crate) fn new(id: TaskId, meta: ContentMeta, config: &Config) -> Self {
        let (stripes, chain) = match config.stripes {
            0 => (2, config.chain),
            stripes => (stripes, 0),
        };
        Self {
            id,
            geometry: Geometry::of(&meta),
            meta,
            digests: BTreeMap::new(),
            copies: Vec::new(),
            members: PeerMap::new(),
            reading: BTreeSet::new(),
            looked_at: 0,
            watched: BTreeSet::new(),
            trees: Trees::new(stripes, chain),
            piece_trees: BTreeMap::new(),
            leases: Leases::default(),
            probes: Probes::default(),
            keepers: Keepers::default(),
            fresh: Vec::new(),
            fresh_from: None,
            quiet_until: Time::ZERO,
            looked: Time::ZERO,
            heard: Time::ZERO,
            empty_since: None,
            transfer: Transfer::default(),
            pieces_heard: 0,
            outage: Outage::default(),
            moved: 0,
            chosen: 0,
            draws: config.seed,
        }
    }

    pub(crate) fn looked_at(&self) -> u64 {
        self.looked_at + self.trees.looked_at()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members.keys().copied()
    }

    /// Whether its members say nothing and owe nothing: then there is nothing to look after.
    pub(crate) fn is_idle(&self, now: Time) -> bool {
        self.leases.is_empty() && now.since(self.heard) > IDLE
    }

    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn lease_count(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn has_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    /// The piece in which a byte lies.
    pub(crate) fn piece_at(&self, offset: u64) -> PieceIndex {
        self.geometry.piece_at(offset)
    }

    /// What a newcomer must know.
    pub(crate) fn known(&self, peer: PeerId) -> Known {
        let meta = ContentMeta {
            piece_size: Some(self.geometry.piece_size()),
            ..self.meta.clone()
        };
        Known {
            task: self.id,
            meta,
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
    pub(crate) fn join(
        &mut self,
        addr: PeerAddr,
        place: &Place,
        position: PieceIndex,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        self.empty_since = None;
        self.heard = now;
        let peer = addr.id;
        match self.members.get_mut(&peer) {
            Some(member) => {
                member.position = position;
                member.pace = Pace::new(position, now);
            }
            None => {
                let member = Member::new(addr, place.clone(), position, now);
                self.members.insert(peer, member);
            }
        }
        self.reading.insert(peer);
        let members = &self.members;
        self.trees.add(peer, place.clone(), |other| {
            members
                .get(&other)
                .is_some_and(|other| now.since(other.joined) < IN_STEP)
        });
        if self.trees.root().is_none() {
            self.elect_root(now);
        }
        self.attach_adrift(now);
        self.tell_parents(config, Some(peer), now, out);
        if config.shape == Shape::Mesh {
            self.meet(peer, config, out);
        }
        self.deal_in(peer, out);
    }

    pub(crate) fn is_free(&self, piece: PieceIndex) -> bool {
        self.in_bounds(piece) && self.copies(piece) == 0 && self.leases.holder(piece).is_none()
    }

    pub(crate) fn copies(&self, piece: PieceIndex) -> u32 {
        self.copies.get(piece.get() as usize).copied().unwrap_or(0)
    }

    pub(crate) fn leave(&mut self, peer: PeerId, config: &Config, now: Time, out: Out<'_>) {
        let Some(member) = self.members.remove(&peer) else {
            return;
        };
        for piece in member.held.iter() {
            self.count(piece, false);
        }
        self.reading.remove(&peer);
        self.deal_out(peer, out);
        let leases = self.leases.take_all(peer);
        self.trees.remove(peer);
        self.trees.balance(ALL);
        for lease in &leases {
            self.moved += 1;
            self.pass_on(lease.first, peer, config, now, out);
        }
        self.transfer_may_be_over();
        if self.trees.root().is_none() {
            self.elect_root(now);
        }
        self.attach_adrift(now);
        self.tell_parents(config, None, now, out);
        if config.shape != Shape::Trees {
            self.miss(peer, config, out);
        }
        if self.members.is_empty() {
            self.empty_since = Some(now);
        }
    }

    pub(crate) fn count(&mut self, piece: PieceIndex, more: bool) {
        let at = piece.get() as usize;
        if at >= self.copies.len() {
            self.copies.resize(at + 1, 0);
        }
        let before = self.copies[at];
        self.copies[at] = match more {
            true => before + 1,
            false => before.saturating_sub(1),
        };
        self.transfer.counted(before, self.copies[at]);
        self.counted(piece, self.copies[at], more);
    }

    /// A peer says what changed in its memory. Says whether its reader has become the slow one,
    /// so that its children are better off elsewhere.
    pub(crate) fn have(
        &mut self,
        peer: PeerId,
        gained: &[PieceRun],
        lost: &[PieceRun],
        position: PieceIndex,
        reader_bound: bool,
        now: Time,
    ) -> bool {
        self.leases.heard(peer, false, now);
        let mut heard = 0;
        for (runs, more) in [(gained, true), (lost, false)] {
            let bound = self.bound();
            let end = |first: u32, count: u32| first.saturating_add(count).min(bound);
            let pieces = runs
                .iter()
                .flat_map(|&(first, count)| first.get()..end(first.get(), count));
            for piece in pieces.take(PIECES_PER_MESSAGE - heard) {
                heard += 1;
                self.pieces_heard += 1;
                let piece = PieceIndex::new(piece);
                let Some(member) = self.members.get_mut(&peer) else {
                    return false;
                };
                if let Some(withheld) = &mut member.withheld {
                    match more {
                        true => withheld.insert(piece),
                        false => withheld.remove(piece),
                    };
                    continue;
                }
                let changed = if more {
                    member.held.insert(piece)
                } else {
                    member.held.remove(piece)
                };
                if changed {
                    member.pace.gained += u32::from(more);
                    self.count(piece, more);
                    match more {
                        true => self.gained(peer, piece),
                        false => self.lost(peer, piece),
                    }
                }
            }
        }
        if self.geometry.pieces().is_some() && !self.geometry.has(position) {
            self.has_read(peer);
        }
        if let Some(member) = self.members.get_mut(&peer) {
            member.position = member.position.max(position);
            let before = std::mem::replace(&mut member.reader_bound, reader_bound);
            return reader_bound && !before;
        }
        false
    }

    /// The piece after the last there can be: what a peer claims must not make us allocate.
    pub(crate) fn bound(&self) -> u32 {
        self.geometry
            .pieces()
            .map_or(PIECES_MAX, |pieces| pieces.min(PIECES_MAX))
    }

    pub(crate) fn in_bounds(&self, piece: PieceIndex) -> bool {
        piece.get() < self.bound()
    }

    /// Digests that a peer knew before this supernode did. Where two peers disagree nobody is
    /// believed: the piece is vouched for anew by whoever leases it.
    pub(crate) fn resume_digests(
        &mut self,
        peer: PeerId,
        digests: Vec<(PieceIndex, PieceDigest)>,
        now: Time,
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
                // Nobody can vouch anew for what all must come from one transfer.
                Some(known) if *known != digest && !self.is_single() => {
                    self.digests.remove(&piece);
                }
                Some(_) => {}
            }
        }
        self.tell_digests(peer, fresh, now, out);
    }

    /// A leased piece came from the origin.
    pub(crate) fn sealed(
        &mut self,
        peer: PeerId,
        piece: PieceIndex,
        digest: PieceDigest,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        // Who lost its lease just before may still vouch where nobody else has: the bytes came
        // from the origin under a lease.
        if !self.leases.holds(peer, piece) && self.digests.contains_key(&piece) {
            return;
        }
        if !self.in_bounds(piece) {
            return;
        }
        if self
            .digests
            .get(&piece)
            .is_some_and(|known| *known != digest)
        {
            self.disagrees(peer, piece, config, now, out);
            return;
        }
        self.leases.came(peer, piece, now);
        self.outage.is_over();
        if !self.is_honest(peer) {
            return;
        }
        // Else its holder would be taken for stalled for ever.
        self.leases.drop_past(PieceIndex::new(self.bound()));
        // It holds the piece, though its next word on what it holds is still to come: otherwise
        // the piece would look free meanwhile.
        if let Some(member) = self.members.get_mut(&peer)
            && member.held.insert(piece)
        {
            member.pace.completes(now);
            self.count(piece, true);
        }
        if self.digests.insert(piece, digest).is_none() {
            self.tell_digests(peer, vec![(piece, digest)], now, out);
        }
        self.probe_sealed(peer, config, now, out);
    }

    /// A member got other bytes from the origin than the digest that the others hold theirs against
    /// says: it lies, or the origin gave it another version. Nobody is told its digest, it fetches no
    /// more for the others, and is told what the piece should be.
    fn disagrees(
        &mut self,
        peer: PeerId,
        piece: PieceIndex,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        let Some(&known) = self.digests.get(&piece) else {
            return;
        };
        out.push(Output {
            to: peer,
            message: ToPeer::Digests {
                task: self.id,
                digests: vec![(piece, known)],
            },
        });
        let leases = self.leases.take_all(peer);
        for lease in &leases {
            self.end_lease(peer, lease.first, lease.end, out);
        }
        for lease in leases {
            self.moved += 1;
            self.pass_on(lease.first, peer, config, now, out);
        }
        self.transfer_may_be_over();
    }

    /// All members but who vouched are told new digests: at once, but in a large swarm no more often
    /// than one supernode can send so many messages.
    pub(crate) fn tell_digests(
        &mut self,
        from: PeerId,
        digests: Vec<(PieceIndex, PieceDigest)>,
        now: Time,
        out: Out<'_>,
    ) {
        if digests.is_empty() {
            return;
        }
        self.fresh_from =
            Some(from).filter(|_| self.fresh.is_empty() || self.fresh_from == Some(from));
        self.fresh.extend(digests);
        self.flush_digests(now, out);
    }

    /// When there are digests to be told, if there are any.
    pub(crate) fn digests_due(&self) -> Time {
        if self.fresh.is_empty() {
            Time::NEVER
        } else {
            self.quiet_until
        }
    }

    /// Tells the digests that are due.
    pub(crate) fn flush_digests(&mut self, now: Time, out: Out<'_>) {
        if now < self.digests_due() {
            return;
        }
        let digests = std::mem::take(&mut self.fresh);
        for &to in self
            .members
            .keys()
            .filter(|&&id| Some(id) != self.fresh_from)
        {
            let digests = digests.clone();
            out.push(Output {
                to,
                message: ToPeer::Digests {
                    task: self.id,
                    digests,
                },
            });
        }
        let members = self.members.len() as u32;
        if members > FEW {
            self.quiet_until = now + Duration::from_secs(1) * members / DIGEST_MESSAGES;
        }
    }

    /// Whether a member may have hashed the whole: it has all up to the last piece, and its reader
    /// waits for no other. What it holds that against only the member knows: a URL names a digest also
    /// where the task is not named by it.
    pub(crate) fn may_have_read_all(&self, peer: PeerId) -> bool {
        let pieces = self.geometry.pieces();
        let read = |member: &Member| {
            pieces.is_some_and(|pieces| member.position.get().saturating_add(1) >= pieces)
        };
        self.members.get(&peer).is_some_and(read)
    }

    /// The content ends, says who reads it from the origin: the holder of the lease for what would
    /// come next. Whoever holds more than that contradicts it. Then the origin's answers differ, or
    /// somebody lies; the end is not believed, and somebody else looks where it is.
    pub(crate) fn ended(
        &mut self,
        peer: PeerId,
        length: u64,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        let after = self.geometry.piece_after(length);
        let knows = self.is_honest(peer) && self.leases.reads_on(peer, after);
        if self.geometry.length().is_some() || !self.in_bounds(after) || !knows {
            return;
        }
        let more = self.copies.get(after.get() as usize..);
        if more.is_some_and(|more| more.iter().any(|&copies| copies > 0)) {
            self.end_lease(peer, after, None, out);
            self.give_back(peer, after, None, config, now, out);
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
}

impl Member {
    fn new(addr: PeerAddr, place: Place, position: PieceIndex, now: Time) -> Self {
        Self {
            addr,
            place,
            held: PieceSet::new(),
            position,
            joined: now,
            pace: Pace::new(position, now),
            reader_bound: false,
            strikes: 0,
            deceived: None,
            suspected: None,
            accuser: None,
            accused: None,
            withheld: None,
            demoted_until: Time::ZERO,
            mute: false,
            returned: None,
            asked: (PieceIndex::new(u32::MAX), 0),
            waited_for: 0,
            near: 0,
            told: Parents::default(),
            unreached: Unreached::default(),
        }
    }

    /// It was late: gets no new children for a while that doubles, never for ever.
    pub(crate) fn strike(&mut self, now: Time) {
        self.strikes = (self.strikes + 1).min(STRIKES_MAX);
        // Who lied is not believed for longer than that.
        let until = now + DEMOTION * (1 << (self.strikes - 1));
        self.demoted_until = self.demoted_until.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lied_is_not_believed_sooner_for_being_late_as_well() {
        let addr = PeerAddr {
            id: PeerId::from_bytes([1; 16]),
            addr: ([127, 0, 0, 1], 1).into(),
        };
        let now = Time::ZERO;
        let mut member = Member::new(addr, Place::default(), PieceIndex::new(0), now);
        let until = now + Duration::from_secs(30);
        member.demoted_until = until;
        member.strike(now);
        assert_eq!(member.demoted_until, until);
    }
}
