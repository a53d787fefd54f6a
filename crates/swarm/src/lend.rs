//! Who may ask the origin for what: granting leases, moving them on.

use std::{
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use pantala_core::{
    Error, PeerId, PieceIndex, Time,
    control::{PIECES_PER_MESSAGE, PieceSpan, ToPeer},
};

use crate::{
    Config, Output, Shape,
    leases::Lease,
    outage::Verdict,
    task::{Member, Out, Task},
};

/// With how many unsuccessful requests for the same piece a peer may ask the origin itself, though
/// somebody else has or should bring it.
const LAST_RESORT: u32 = 4;
/// How long between two looks at how members get on, for each of them: looking at one costs a microsecond
/// or two, and a large swarm must not take a processor for it.
const LOOK: Duration = Duration::from_micros(5);
/// How long a peer that gave a lease back gets no new one of its own accord.
const RETURN_REST: Duration = Duration::from_secs(2);

/// So many that hold a piece are enough to choose from,
const HOLDERS: usize = 64;
/// and where somebody holds it no more members are looked at than this: in a large swarm many ask at
/// once.
const LOOKED_AT: usize = 4096;

/// What a peer lacks a source for.
#[derive(Debug, Clone, Copy)]
struct Need {
    piece: PieceIndex,
    /// Somebody was asked for it and does not deliver.
    late: bool,
    /// It has asked so often that it may ask the origin.
    desperate: bool,
}

impl Task {
    /// The first lease, for who learned the metadata.
    pub(crate) fn grant_first(
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

    /// Gives the lease from `piece` on to the member that can use it best, if there is one: the
    /// furthest one that is not slowed by its own reader.
    pub(crate) fn pass_on(
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
        if let Some(next) = self.next_holder(piece, not, now) {
            self.grant(next, piece, config, now, out);
        }
    }

    /// Who can use the lease from `piece` best.
    fn next_holder(&self, piece: PieceIndex, not: PeerId, now: Time) -> Option<PeerId> {
        let rested = |member: &Member| member.returned.is_none_or(|at| now.since(at) > RETURN_REST);
        self.members
            .iter()
            .filter(|(id, member)| **id != not && !member.reader_bound && rested(member))
            .filter(|(_, member)| member.withheld.is_none() && !member.mute)
            .filter(|(_, member)| member.position <= piece && self.geometry.has(member.position))
            .max_by_key(|(id, member)| {
                (
                    now >= member.demoted_until && !self.trees.barred(**id),
                    member.position,
                    **id,
                )
            })
            .map(|(&id, _)| id)
    }

    /// Leases the pieces from `first` up to what somebody holds or has a lease for.
    pub(crate) fn grant(
        &mut self,
        peer: PeerId,
        first: PieceIndex,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        self.grant_within(peer, first, None, config, now, out);
    }

    /// The same, and nothing from `limit` on. Gives the piece after the last, where a lease is granted.
    fn grant_within(
        &mut self,
        peer: PeerId,
        first: PieceIndex,
        limit: Option<PieceIndex>,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) -> Option<Option<PieceIndex>> {
        if !self.may_lease(first) || self.is_forbidden(peer, now, out) {
            return None;
        }
        let held = (first.get() as usize..self.copies.len())
            .find(|&piece| self.copies[piece] > 0)
            .map(|piece| PieceIndex::new(piece as u32));
        let leased = self.leases.next_from(first);
        let end = match (held, leased) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let end = match (end, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let most = PieceIndex::new(first.get().saturating_add(config.lease_pieces));
        let end = match (config.lease_pieces, end) {
            (0, end) => end,
            (_, end) => Some(end.map_or(most, |end| end.min(most))),
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
        self.watch_holder(now);
        let root_leased = self
            .trees
            .root()
            .is_some_and(|root| self.leases.any_of(root));
        if end.is_none() && !root_leased {
            self.set_root(peer, now);
            self.attach_adrift(now);
            self.relieve_leaves(now);
            self.tell_parents(config, None, now, out);
        }
        Some(end)
    }

    /// A peer that came back says what it fetches from the origin. It goes on with what nobody else holds
    /// or fetches, and is told that the rest is not its own any more.
    pub(crate) fn adopt(
        &mut self,
        peer: PeerId,
        spans: &[PieceSpan],
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        for &(first, end) in spans {
            let Some(free) = self.first_free(first, end).filter(|_| self.is_honest(peer)) else {
                self.end_lease(peer, first, end, out);
                continue;
            };
            if first < free {
                self.end_lease(peer, first, Some(free), out);
            }
            match self.grant_within(peer, free, end, config, now, out) {
                None => self.end_lease(peer, free, end, out),
                Some(Some(stop)) if end.is_none_or(|end| stop < end) => {
                    self.end_lease(peer, stop, end, out);
                }
                Some(_) => {}
            }
            self.transfer.came_back();
        }
    }

    /// The first of these pieces that nobody holds or has a lease for.
    fn first_free(&self, first: PieceIndex, end: Option<PieceIndex>) -> Option<PieceIndex> {
        let ends = self.leases.iter().filter_map(|lease| lease.end);
        let taken = ends.max().map_or(0, PieceIndex::get);
        // Nothing beyond is held, or leased with an end.
        let last = taken.max(self.copies.len() as u32).max(first.get());
        let pieces = (first.get()..=last).map(PieceIndex::new);
        let pieces = pieces.take(PIECES_PER_MESSAGE);
        let mut pieces = pieces.take_while(|&piece| end.is_none_or(|end| piece < end));
        pieces.find(|&piece| self.is_free(piece))
    }

    /// A transfer from the origin failed, and the peer gives its lease back for that. Another member
    /// may have a better way; once enough have failed, or where the origin has said it, all are told.
    pub(crate) fn origin_failed(
        &mut self,
        peer: PeerId,
        (first, end): (PieceIndex, Option<PieceIndex>),
        error: &Error,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        let Some(since) = self.leases.since(peer, first) else {
            return;
        };
        self.leases.give_back(peer, first, end);
        if let Some(member) = self.members.get_mut(&peer) {
            member.returned = Some(now);
        }
        let (private, rest) = (self.meta.private, config.lease_timeout);
        match self.outage.failed(error, private, since, rest, now) {
            Verdict::Certain => self.tell_outage(error, out),
            Verdict::Doubtful => self.pass_on(first, peer, config, now, out),
            Verdict::Personal if self.next_holder(first, peer, now).is_some() => {
                self.pass_on(first, peer, config, now, out);
            }
            // Nobody else is there who could bring what it needs.
            Verdict::Personal => {
                let (task, error) = (self.id, error.clone());
                let message = ToPeer::OriginFailed { task, error };
                out.push(Output { to: peer, message });
            }
        }
        // A root without a lease feeds nobody new: another takes its place with the next lease.
        self.attach_adrift(now);
        self.tell_parents(config, None, now, out);
    }

    fn tell_outage(&self, error: &Error, out: Out<'_>) {
        for &to in self.members.keys() {
            let (task, error) = (self.id, error.clone());
            let message = ToPeer::OriginFailed { task, error };
            out.push(Output { to, message });
        }
    }

    /// Tells a peer that the origin is not to be asked now, if that is so.
    fn is_forbidden(&self, peer: PeerId, now: Time, out: Out<'_>) -> bool {
        let Some(error) = self.outage.forbids(now) else {
            return false;
        };
        let (task, error) = (self.id, error.clone());
        let message = ToPeer::OriginFailed { task, error };
        out.push(Output { to: peer, message });
        true
    }

    pub(crate) fn pulse(&mut self, peer: PeerId, bytes: u64, now: Time) {
        if bytes > 0 {
            self.outage.bytes_came();
        }
        self.leases.heard(peer, bytes > 0, now);
    }

    /// A peer lacks a source for a piece.
    pub(crate) fn ask(
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
        // A peer asks for other pieces in between, not late: those are no end of its trouble. One that
        // it asks for again and again, though told who has it, is: nobody of those can be reached.
        let over = member.asked.0 < member.position || member.held.contains(member.asked.0);
        // Of several that it asks for by turns the first is its trouble.
        let first = late && piece < member.asked.0;
        if member.asked.0 != piece && (first || over || member.asked.1 == 0) {
            member.asked = (piece, 0);
            member.near = 0;
        }
        member.asked.1 += u32::from(member.asked.0 == piece);
        let times = if member.asked.0 == piece {
            member.asked.1
        } else {
            1
        };
        let most = if late { LAST_RESORT } else { LAST_RESORT + 1 };
        let desperate = times >= most;
        if self.leases.holds(peer, piece) {
            return;
        }
        if self.is_single() && self.copies(piece) == 0 {
            self.ask_single(peer, piece, times, config, out);
            return;
        }
        if !self.is_honest(peer) {
            // For itself alone: what it brings counts for nobody else.
            self.force(peer, piece, now, out);
            return;
        }
        if let Some(others) = self.help_out(peer, piece, now, out) {
            self.introduce(peer, &others, config, out);
            return;
        }
        if let Some(lease) = self.leases.liveliest(piece).cloned() {
            if lease.offered && now.since(lease.alive) <= config.lease_timeout {
                self.end_lease(lease.holder, piece, lease.end, out);
                self.leases.give_back(lease.holder, piece, lease.end);
                self.grant(peer, piece, config, now, out);
            } else if now.since(lease.alive) > config.lease_timeout
                || now.since(lease.progressed) > self.outage.patience(config.stall_timeout)
            {
                self.move_leases(lease.holder, Some(peer), config, now, out);
            } else if desperate && now.since(lease.progressed) > config.lease_timeout {
                self.force(peer, piece, now, out);
            } else if config.shape == Shape::Mesh && !late && times == 1 {
                // It comes to its neighbours, or soon.
                self.lend_next(peer, piece, config, now, out);
            } else if config.shape == Shape::PerPiece && !late && !desperate {
                self.line_up(peer, piece, lease.holder, config, out);
            } else {
                self.introduce(peer, &[lease.holder], config, out);
            }
        } else if self.copies(piece) == 0 {
            self.grant(peer, piece, config, now, out);
        } else if config.shape == Shape::PerPiece
            && !late
            && !desperate
            && let Some(root) = self.holder_of(piece)
        {
            self.line_up(peer, piece, root, config, out);
        } else {
            let need = Need {
                piece,
                late,
                desperate,
            };
            self.refer(peer, need, config, now, out);
        }
    }

    /// Tells a peer who has a piece: the nearest, but before those in another group whoever brings its
    /// own group what it lacks: a group takes each piece in once. Where nothing of that helps the peer
    /// asks the origin.
    fn refer(&mut self, peer: PeerId, need: Need, config: &Config, now: Time, out: Out<'_>) {
        let Need {
            piece,
            late,
            desperate,
        } = need;
        let Some(member) = self.members.get(&peer) else {
            return;
        };
        let own = &member.place;
        let mut holders: Vec<(usize, usize, PeerId)> = Vec::new();
        let mut beside = 0;
        // From itself on, so that not all of a large swarm are told of the same.
        let after = self.members.range((Excluded(peer), Unbounded));
        for (looked, (&id, member)) in after.chain(self.members.range(..peer)).enumerate() {
            if beside == HOLDERS || (looked >= LOOKED_AT && !holders.is_empty()) {
                break;
            }
            if self.is_out_of_reach(id, peer, now) {
                continue;
            }
            if member.held.contains(piece) && (now >= member.demoted_until || late) {
                let distance = own.distance(&member.place);
                beside += usize::from(distance == 0);
                holders.push((distance, self.trees.load(id), id));
            }
        }
        holders.sort_unstable();
        let nearest = holders.first().map_or(0, |holder| holder.0);
        let ways_in = match nearest {
            0 => Vec::new(),
            _ => self.ways_in(peer, piece),
        };
        let times = member.asked.1;
        let told = &member.told;
        let knows = |id: PeerId| {
            let preferred = told.preferred.iter().flatten();
            preferred.chain(&told.others).any(|addr| addr.id == id)
        };
        // Somebody near may have got it since it asked last: then it comes. It is told of that one, and
        // of who brings pieces from afar.
        let near = holders.iter().take_while(|holder| holder.0 == 0);
        let count = match near.clone().count() {
            HOLDERS => self.copies(piece) as usize,
            few => few,
        };
        let one_more = count > member.near && near.clone().any(|holder| !knows(holder.2));
        let comes = !ways_in.is_empty() && times < LAST_RESORT * 2;
        if desperate && !one_more && !comes {
            self.force(peer, piece, now, out);
            return;
        }
        let to: Vec<PeerId> = match ways_in.is_empty() {
            false => ways_in,
            true if one_more => {
                let new = near.filter(|holder| !knows(holder.2));
                new.map(|holder| holder.2).collect()
            }
            true => holders.into_iter().map(|holder| holder.2).collect(),
        };
        let to: Vec<PeerId> = to.into_iter().take(2).collect();
        if let Some(member) = self.members.get_mut(&peer) {
            member.near = count;
        }
        self.introduce(peer, &to, config, out);
    }

    /// Who of a peer's group gets pieces from outside of it, so that the others need not.
    fn ways_in(&self, peer: PeerId, piece: PieceIndex) -> Vec<PeerId> {
        let Some(member) = self.members.get(&peer) else {
            return Vec::new();
        };
        let brings = |id: &PeerId| {
            self.members.get(id).is_some_and(|member| {
                let will = member.held.contains(piece) || member.position <= piece;
                let honest = member.withheld.is_none() && !member.mute;
                will && honest && !self.trees.barred(*id)
            })
        };
        for group in member.place.named() {
            let mut entries: Vec<PeerId> = self.trees.entries(group).collect();
            // It is the way in itself.
            if entries.contains(&peer) {
                return Vec::new();
            }
            entries.sort_unstable();
            entries.dedup();
            entries.retain(brings);
            if !entries.is_empty() {
                return entries;
            }
        }
        Vec::new()
    }

    /// One piece from the origin, though others have it: they did not deliver.
    pub(crate) fn force(&mut self, peer: PeerId, piece: PieceIndex, now: Time, out: Out<'_>) {
        if self.is_single() {
            self.is_unobtainable(peer, piece, out);
            return;
        }
        if self.is_forbidden(peer, now, out) {
            return;
        }
        let end = Some(piece.next());
        match self.is_honest(peer) {
            true => self.leases.grant(peer, piece, end, now),
            false => self.leases.grant_alone(peer, piece, piece.next(), now),
        }
        out.push(Output {
            to: peer,
            message: ToPeer::Lease {
                task: self.id,
                first: piece,
                end,
            },
        });
    }

    pub(crate) fn give_back(
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
        self.transfer_may_be_over();
        let wanted = self
            .members
            .iter()
            .any(|(&id, member)| id != peer && member.position <= first);
        if wanted {
            self.pass_on(first, peer, config, now, out);
        }
        // A root without a lease feeds nobody new: another takes its place with the next lease.
        self.attach_adrift(now);
        self.tell_parents(config, None, now, out);
    }

    /// A holder's reader has no room for more. If nobody else can use the lease it stays where it is.
    pub(crate) fn offered(
        &mut self,
        peer: PeerId,
        first: PieceIndex,
        end: Option<PieceIndex>,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        if self.is_single() {
            self.is_unneeded_by_holder(peer, first);
            return;
        }
        if !self.leases.holds(peer, first) {
            return;
        }
        if self.next_holder(first, peer, now).is_some() {
            self.end_lease(peer, first, end, out);
            self.give_back(peer, first, end, config, now, out);
        } else {
            self.leases.offer(peer, first);
        }
    }

    /// Takes the leases of a holder that stalls away, and gives them to `to` or the best other.
    pub(crate) fn move_leases(
        &mut self,
        from: PeerId,
        to: Option<PeerId>,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        if self.members.len() < 2 || self.is_single() {
            return;
        }
        let leases = self.leases.take_all(from);
        let silent = |lease: &Lease| now.since(lease.alive) > config.lease_timeout;
        let mute = leases.iter().any(silent);
        if let Some(member) = self.members.get_mut(&from) {
            member.strike(now);
            member.mute = mute;
        }
        // A holder that lives and gets nothing: the origin may be what is slow.
        let stalled = !mute && !leases.is_empty();
        let dead = stalled && self.outage.stalled(config.lease_timeout, now);
        if dead && let Some(error) = self.outage.forbids(now).cloned() {
            self.tell_outage(&error, out);
        }
        for lease in leases {
            self.moved += 1;
            let first = lease.first;
            self.end_lease(from, first, lease.end, out);
            match to {
                Some(to) if self.is_free(first) => self.grant(to, first, config, now, out),
                _ => self.pass_on(first, from, config, now, out),
            }
        }
    }

    /// Moves leases on whose holders stall, and makes leaves of who does not keep up.
    pub(crate) fn tick(&mut self, config: &Config, now: Time, out: Out<'_>) {
        let patience = self.outage.patience(config.stall_timeout);
        let stalled: Vec<PeerId> = self
            .leases
            .iter()
            .filter(|lease| {
                now.since(lease.alive) > config.lease_timeout
                    || (!lease.offered && now.since(lease.progressed) > patience)
            })
            .map(|lease| lease.holder)
            .collect();
        for holder in stalled {
            self.move_leases(holder, None, config, now, out);
        }
        if now >= self.looked + LOOK * self.reading.len() as u32 {
            self.looked = now;
            self.watch_trust(config, now, out);
            if config.make_leaves {
                self.watch_pace(config, now, out);
            }
        }
        self.consider_probe(config, now, out);
    }
}
