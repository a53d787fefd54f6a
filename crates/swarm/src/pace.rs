//! Who does not keep up: found from how far everybody is, as the members say every so often.
//!
//! A member that lacks what all its parents have had for a while, and gains far less than the
//! quickest of the swarm do, has a slow link or a slow reader. It becomes a leaf: its children are
//! attached elsewhere and it gets no new ones until it has caught up. Who is behind because its
//! parents are is not to blame.
//!
//! All is counted in pieces and parts of pieces: members say how many bytes of unfinished pieces
//! they have, so that who is slow shows within its first piece, and those below it lose little.

use std::{collections::BTreeMap, time::Duration};

use pantala_core::{PeerId, PieceIndex, Time};

use crate::{
    Config,
    place::{ALL, Group},
    task::{FEW, Member, Out, Task},
};

/// How long a member that has new parents, or was deceived, is not behind yet.
const GRACE: Duration = Duration::from_millis(40);
/// Who has kept up for so many pieces may only be held up for a moment.
const PROVEN: f64 = 1.5;
const PROVEN_GRACE: Duration = Duration::from_millis(100);
/// Who says nothing for so long gets nothing: until then what it has is not known. It says so more often
/// in the first second.
const QUIET: Duration = Duration::from_millis(130);
const EARLY_QUIET: Duration = Duration::from_millis(75);
const EARLY: Duration = Duration::from_secs(1);
/// Pieces in flight that are believed at most.
const IN_FLIGHT_MAX: f64 = 64.0;
/// Over how long the pace of the swarm is measured.
const SPAN: Duration = Duration::from_millis(500);
/// The part of the pace below which a member is slow.
const SLOW: f64 = 0.5;
/// How long a slow member stays a leaf at least.
const REST: Duration = Duration::from_millis(500);
/// Members that are moved from a crowded uplink at once.
const CROWDED: usize = 4;

/// When a member that lacks what its parents have is behind, and slow.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    /// How long it must have been behind at least.
    grace: Duration,
    /// What may be under way to a member that keeps up, in pieces.
    slack: f64,
    /// Less than that behind its parents, in pieces, is on the way, not behind.
    behind: f64,
    /// Whether its time runs from when it last kept up, not from when it was seen to be behind.
    from_kept_up: bool,
}

impl Tolerance {
    /// In a large swarm most members share an uplink, and wait their turn for a block while others get
    /// theirs: in so short a time whole pieces tell more than parts of them.
    fn of(members: usize) -> Self {
        if members <= FEW as usize {
            Self {
                grace: GRACE,
                slack: 0.125,
                behind: 0.5,
                from_kept_up: true,
            }
        } else {
            Self {
                grace: Duration::from_millis(100),
                slack: 1.0,
                behind: 2.0,
                from_kept_up: false,
            }
        }
    }
}

/// How a member gets on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The first piece it lacks, when last looked.
    pub front: u32,
    /// Pieces it has gained so far. Fronts jump where something was missing; this does not.
    pub gained: u32,
    /// What it has of pieces that are not complete, in pieces.
    in_flight: f64,
    /// When it last said what it has, and when it first had something.
    said: Time,
    began: Option<Time>,
    /// When it last kept up, and what it had gained then.
    kept_up: (Time, f64),
    /// What it had gained at the beginning of this span and of the one before.
    mark: (Time, f64),
    before: (Time, f64),
    /// Since when its parents have had what it lacks, and what it had gained then.
    behind: Option<(Time, f64)>,
    /// Since when it feeds nobody.
    barred: Option<Time>,
}

impl Pace {
    pub fn new(position: PieceIndex, now: Time) -> Self {
        Self {
            front: position.get(),
            gained: 0,
            in_flight: 0.0,
            said: now,
            began: None,
            kept_up: (now, 0.0),
            mark: (now, 0.0),
            before: (now, 0.0),
            behind: None,
            barred: None,
        }
    }

    /// It has said what it has: so many pieces are on their way to it.
    pub fn says(&mut self, in_flight: f64, now: Time) {
        let nothing = self.total() == 0.0;
        self.in_flight = in_flight.min(IN_FLIGHT_MAX);
        self.said = now;
        let total = self.total();
        if total > 0.0 {
            self.began.get_or_insert(now);
        }
        if nothing {
            // Until its first bytes came it waited.
            self.kept_up = (now, total);
        }
        // What was on its way twice, or was wrong, is no loss.
        self.kept_up.1 = self.kept_up.1.min(total);
        self.behind = self.behind.map(|(since, had)| (since, had.min(total)));
    }

    /// A piece of which it has said that it is on its way is there.
    pub fn completes(&mut self, now: Time) {
        self.gained += 1;
        self.said = now;
        self.in_flight = (self.in_flight - 1.0).max(0.0);
    }

    /// What it has gained, what is on its way included, in pieces.
    pub fn total(&self) -> f64 {
        f64::from(self.gained) + self.in_flight
    }

    /// How far it is, in pieces.
    fn level(&self) -> f64 {
        f64::from(self.front) + self.in_flight
    }

    /// Until when it is known what it has.
    pub fn known_at(&self, now: Time) -> Time {
        let early = self.began.is_some_and(|at| now.since(at) < EARLY);
        let quiet = if early { EARLY_QUIET } else { QUIET };
        self.said + now.since(self.said).saturating_sub(quiet)
    }

    /// Pieces a second, over more than one span: right after the beginning of one a single piece
    /// would look like many.
    fn rate(&self, now: Time) -> f64 {
        let known = self.known_at(now);
        let took = known.since(self.before.0).as_secs_f64().max(0.02);
        (self.total() - self.before.1).max(0.0) / took
    }

    /// It has other parents now: what it lacks of what those have is no fault of its own until
    /// they have had the time to send it.
    pub fn moved(&mut self, now: Time) {
        self.behind = None;
        self.kept_up = (now + GRACE, self.total());
    }

    /// What it had gained before does not count: it came back with it, or it was wrong.
    pub fn restart(&mut self, now: Time) {
        let has = (now, self.total());
        (self.mark, self.before) = (has, has);
        self.moved(now);
    }

    fn advance(&mut self, front: u32) {
        // Its reader went back: what it lacks now it was not behind with.
        if front < self.front {
            self.behind = None;
        }
        self.front = front;
    }

    /// Whether it is behind parents that are so far.
    fn follow(&mut self, ahead: Option<f64>, tolerance: Tolerance, now: Time) {
        let is_behind = ahead.is_some_and(|ahead| ahead >= self.level() + tolerance.behind);
        if !is_behind {
            self.behind = None;
            let known = self.known_at(now);
            if known >= self.kept_up.0 {
                self.kept_up = (known, self.total());
            }
        } else if self.behind.is_none() {
            self.behind = Some(if tolerance.from_kept_up && self.total() > 0.0 {
                self.kept_up
            } else {
                (now, self.total())
            });
        }
    }

    fn is_slow(&self, pace: f64, tolerance: Tolerance, now: Time) -> bool {
        self.behind.is_some_and(|(since, before)| {
            let time = self.known_at(now).since(since);
            let gained = (self.total() - before).max(0.0);
            let grace = match before < PROVEN {
                true => tolerance.grace,
                false => tolerance.grace.max(PROVEN_GRACE),
            };
            time >= grace && gained + tolerance.slack < SLOW * pace * time.as_secs_f64()
        })
    }
}

impl Member {
    /// The first piece from its position on that it lacks.
    fn front(&self, bound: u32) -> u32 {
        // Who was done once may drop what it likes.
        if self.pace.front >= bound {
            return bound;
        }
        let from = self.position.get().max(self.pace.front).min(bound);
        // It may have dropped what its reader has passed.
        let from = if self.pace.front > self.position.get() && !self.holds_up_to(from) {
            self.position.get()
        } else {
            from
        };
        (from..bound)
            .find(|&piece| !self.held.contains(PieceIndex::new(piece)))
            .unwrap_or(bound)
    }

    fn holds_up_to(&self, end: u32) -> bool {
        (self.position.get()..end).all(|piece| self.held.contains(PieceIndex::new(piece)))
    }
}

impl Task {
    /// A member says how many bytes of unfinished pieces it has.
    pub(crate) fn says(&mut self, peer: PeerId, in_flight: u64, now: Time) {
        let piece = self.geometry.piece_size() as f64;
        if let Some(member) = self.members.get_mut(&peer) {
            member.pace.says(in_flight as f64 / piece, now);
        }
    }

    /// A member came back with what it holds.
    pub(crate) fn came_back(&mut self, peer: PeerId, now: Time) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.pace.restart(now);
        }
    }

    /// Looks how everybody gets on, and makes leaves of those that do not keep up.
    pub(crate) fn watch_pace(&mut self, config: &Config, now: Time, out: Out<'_>) {
        let bound = self.bound();
        let tolerance = Tolerance::of(self.members.len());
        // By group: how many are in it, and how quick the quickest is.
        let mut paces: BTreeMap<Group, (u32, f64)> = BTreeMap::new();
        let (mut done, mut looked_at) = (Vec::new(), 0);
        for &peer in &self.reading {
            let Some(member) = self.members.get_mut(&peer) else {
                done.push(peer);
                continue;
            };
            looked_at += 1;
            let front = member.front(bound);
            // Who has all waits for nobody; what it brought lately is still what others could have.
            if front >= bound && now.since(member.pace.said) > SPAN * 2 {
                done.push(peer);
            }
            member.pace.advance(front);
            let rate = member.pace.rate(now);
            for group in member.place.groups() {
                let (count, pace) = paces.entry(group).or_default();
                *count += 1;
                *pace = pace.max(rate);
            }
            if now.since(member.pace.mark.0) > SPAN {
                member.pace.before = member.pace.mark;
                member.pace.mark = (member.pace.known_at(now), member.pace.total());
            }
        }
        self.looked_at += looked_at;
        for peer in done {
            self.reading.remove(&peer);
        }
        let (mut slow, mut well, mut crowded) = (Vec::new(), Vec::new(), Vec::new());
        let ids: Vec<PeerId> = self.reading.iter().copied().collect();
        for peer in ids {
            let parents = self.trees.parents(peer);
            let levels = parents
                .iter()
                .flatten()
                .filter_map(|id| self.members.get(id));
            let ahead = levels
                .map(|parent| parent.pace.level())
                .min_by(f64::total_cmp);
            let pace = self.expected(peer, parents, &paces);
            let Some(member) = self.members.get_mut(&peer) else {
                continue;
            };
            member.pace.follow(ahead, tolerance, now);
            // Who shares an uplink with more than it is meant for gets its part of it.
            let mut part: f64 = 1.0;
            for (stripe, parent) in (0..).zip(parents) {
                let Some(parent) = *parent else {
                    continue;
                };
                part = part.min(self.trees.part(parent, stripe));
                if crowded.len() < CROWDED && self.trees.is_crowded(parent, stripe) {
                    crowded.push((peer, stripe));
                }
            }
            let keeps_up = member.pace.behind.is_none()
                && !member.reader_bound
                && pace > 0.0
                && member.pace.rate(now) >= SLOW * pace;
            match member.pace.barred {
                None if member.pace.is_slow(pace * part, tolerance, now) => slow.push(peer),
                Some(since) if keeps_up && now.since(since) > REST => well.push(peer),
                _ => {}
            }
        }
        for peer in well {
            self.bar(peer, false, now);
        }
        for &peer in &slow {
            self.bar(peer, true, now);
        }
        for peer in slow {
            self.clear_way(peer, config, now, out);
        }
        self.spread(&crowded, config, now, out);
    }

    /// Who shares an uplink with more than it is meant for goes elsewhere as soon as there is room:
    /// else it is slow for good, and all below it.
    fn spread(&mut self, crowded: &[(PeerId, u32)], config: &Config, now: Time, out: Out<'_>) {
        for &(peer, stripe) in crowded {
            let parent = self.trees.parent(peer, stripe);
            let still = parent.is_some_and(|parent| self.trees.is_crowded(parent, stripe));
            if still && self.trees.spare(stripe) {
                self.attach(peer, stripe, None, now);
            }
        }
        self.tell_parents(config, None, now, out);
    }

    /// How quick a member should be: as the quickest of all, but where it is fed from afar as the
    /// quickest of those near it. The way there is what may be slow, and it is the same for all of
    /// them.
    fn expected(
        &self,
        peer: PeerId,
        parents: &[Option<PeerId>],
        paces: &BTreeMap<Group, (u32, f64)>,
    ) -> f64 {
        let place = |id: PeerId| self.members.get(&id).map(|member| &member.place);
        let group = place(peer).and_then(|own| {
            let parents = parents.iter().flatten();
            let mut parents = parents.filter_map(|&parent| place(parent));
            parents.find_map(|parent| own.apart(parent))
        });
        let near = group.and_then(|group| paces.get(&group));
        let near = near.filter(|(count, _)| *count > 1);
        near.or_else(|| paces.get(&ALL))
            .map_or(0.0, |(_, pace)| *pace)
    }

    /// Gives the children of a peer that is slow other parents, and sends it itself where an
    /// uplink is idle: it must not share one with those that keep up.
    pub(crate) fn clear_way(&mut self, peer: PeerId, config: &Config, now: Time, out: Out<'_>) {
        self.move_children(peer, now);
        for stripe in 0..self.trees.stripes() {
            self.attach(peer, stripe, None, now);
        }
        self.tell_parents(config, None, now, out);
    }

    /// Who is to feed nobody and does, for want of anybody else at the time, does not where there is
    /// a new root.
    pub(crate) fn relieve_leaves(&mut self, now: Time) {
        let leaves: Vec<PeerId> = self
            .members
            .iter()
            .filter(|(_, member)| member.pace.barred.is_some())
            .map(|(&id, _)| id)
            .collect();
        for leaf in leaves {
            self.move_children(leaf, now);
        }
    }

    fn move_children(&mut self, peer: PeerId, now: Time) {
        for (child, stripe) in self.trees.children(peer) {
            self.attach(child, stripe, Some(peer), now);
        }
    }

    /// Makes a member a leaf from now on, or a time in the future on, so that it does not come back
    /// before; or lets it feed others again.
    pub(crate) fn bar(&mut self, peer: PeerId, barred: bool, since: Time) {
        if let Some(member) = self.members.get_mut(&peer) {
            let since = member.pace.barred.map_or(since, |old| old.max(since));
            member.pace.barred = barred.then_some(since);
            member.pace.behind = None;
        }
        self.trees.bar(peer, barred);
    }
}
