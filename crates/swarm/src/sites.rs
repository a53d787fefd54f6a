//! Which data centre each peer is in, found from round trips that peers measure to each other.
//!
//! A site is a set of peers that are near each other. A newcomer measures the round trip to one or
//! two members of each site that there is, a few sites at a time. Near one of them it is a member
//! of that site, near none of them the first of a new one.
//!
//! What is measured is never less than the way is long, but may be far more: a queue in front of a
//! busy link is as long as a continent is wide. So *near* is certain and *far* is not:
//! - Near is an absolute bound, [`NEAR`]. A share of the distance to others would make one site of a
//!   country as soon as somebody comes from another continent.
//! - Who is found far from all is a site of one, and that has no name: nothing is done about it. A
//!   site has a name when it has a second member, which is near the first for certain, or when its
//!   first has found so [`SURE`] times more. And there are no names at all while there is only one
//!   site to be named: then everybody is near everybody, as if nothing had been measured.
//! - Until then who is near none is the guest of the site that it is far nearer to than to any
//!   other, where two have names: what waits in front of its own link it waits for each time.
//! - Who is near none looks again, ever more rarely, and so does one member of each site. Where
//!   that turns out to be near an older site it goes there, and all others of its site look for
//!   themselves. So what was one after all becomes one again, and nobody's word moves another.
//!
//! Any member stands for its site, in turn: nobody is asked by all, and whoever leaves is not
//! missed. Of those that come at once the first are placed first, and stand for their site to the
//! others.
//!
//! # Invariants
//! 1. A site has members, and each of them says that it is in it.
//! 2. Nothing is kept of who has gone.
//! 3. A peer is asked for one measurement at a time, of [`TARGETS`] others at most, and
//!    [`TARGETED`] others at most are asked to measure the way to it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use pantala_core::{
    PeerId, Time,
    control::{PeerAddr, RoundTrip, ToPeer},
};

use crate::{Output, place::Place};

/// Two peers this near each other are in one site. Hosts of a data centre are 0.05 to 1 ms apart,
/// also when they have much to do; those of two cities 3 ms and more. What is in between is the
/// operator's to say.
const NEAR: Duration = Duration::from_millis(2);
/// Peers that one is asked to measure the way to, at once.
const TARGETS: usize = 8;
/// How often in a row a peer is asked about sites that it was not asked about before.
const ROUNDS: u32 = 3;
/// Who comes when there are so many sites, and near none, is in none.
const SITES_MAX: usize = 64;
/// How many measure the way to the same peer at once.
const TARGETED: u32 = 64;
/// Members that are looked at for one that not too many measure.
const LOOKS: usize = 16;
/// How long an answer may take. Peers answer within two seconds.
const ANSWER: Duration = Duration::from_secs(5);
/// How long until who is near none looks again; doubles each time.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(120);
/// How often a site of one must have been found again to be far from all others, for it to count.
const SURE: u32 = 2;

type Site = u64;

/// The sites, and who is in them. Says what to measure and takes the answers; what places come of
/// that is asked with [`Sites::next_moved`].
#[derive(Debug, Default)]
pub(crate) struct Sites {
    peers: BTreeMap<PeerId, Peer>,
    sites: BTreeMap<Site, Members>,
    /// Sites that places are named after.
    named: BTreeSet<Site>,
    /// Who is to be asked, in turn.
    line: BTreeMap<i64, PeerId>,
    /// By when who was asked must have answered, and its question's number, in that order.
    due: VecDeque<(Time, PeerId, u64)>,
    /// When who is near none is to look again.
    again: BTreeSet<(Time, PeerId)>,
    /// Whose place may be another than it was.
    moved: BTreeSet<PeerId>,
    /// Sites and questions so far.
    counter: u64,
}

#[derive(Debug)]
struct Peer {
    addr: PeerAddr,
    site: Option<Site>,
    /// The site with a name that it is far nearer to than to any other, though it was not found near.
    guest: Option<Site>,
    /// When it looks again, and how long after that.
    again: Option<(Time, Duration)>,
    /// What it is to find out, or is finding out.
    search: Option<Box<Search>>,
    /// How many measure the way to it.
    targeted: u32,
}

/// A peer's search for its site.
#[derive(Debug, Default)]
struct Search {
    /// The way to each site that it was asked about; `None` where nothing came back.
    ways: BTreeMap<Site, Option<Duration>>,
    rounds: u32,
    /// Its place in line, while it has no question to answer.
    turn: Option<i64>,
    question: Option<Question>,
}

/// What a peer is asked.
#[derive(Debug)]
struct Question {
    number: u64,
    /// Whom to measure the way to, and the sites they stand for.
    whom: Vec<(PeerId, Site)>,
}

#[derive(Debug)]
struct Members {
    peers: BTreeSet<PeerId>,
    /// Who looks again for all.
    scout: PeerId,
    guests: BTreeSet<PeerId>,
    /// The ways from its first member to other sites.
    ways: BTreeMap<Site, Duration>,
    /// How often its scout looked again, and found it far from all others.
    sure: u32,
}

/// What comes of one look at the line.
enum Choice {
    Ask(Vec<(PeerId, Site)>),
    /// There is nothing more to ask.
    Nothing,
    /// Too many measure the way to those who could be named.
    Wait,
}

impl Sites {
    /// A peer has come.
    pub fn came(&mut self, addr: PeerAddr, now: Time, out: &mut Vec<Output>) {
        let peer = Peer {
            addr,
            site: None,
            guest: None,
            again: None,
            search: None,
            targeted: 0,
        };
        self.peers.insert(addr.id, peer);
        if self.sites.is_empty() {
            self.found(addr.id, BTreeMap::new(), now);
        } else {
            self.search(addr.id);
        }
        self.ask(now, out);
    }

    /// A peer has gone.
    pub fn gone(&mut self, peer: PeerId, now: Time, out: &mut Vec<Output>) {
        let Some(gone) = self.peers.get_mut(&peer) else {
            return;
        };
        if let Some(search) = gone.search.take() {
            search.turn.and_then(|turn| self.line.remove(&turn));
            self.release(search.question.as_ref());
        }
        self.enter(peer, None, now);
        self.lean(peer, None);
        self.look_again(peer, None);
        self.peers.remove(&peer);
        self.moved.remove(&peer);
        self.ask(now, out);
    }

    /// A peer has measured. What it was not asked for says nothing.
    pub fn answered(
        &mut self,
        peer: PeerId,
        round_trips: &[RoundTrip],
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let found = self.peers.get_mut(&peer);
        let search = found.and_then(|found| found.search.as_mut());
        let Some(question) = search.and_then(|search| search.question.take()) else {
            return;
        };
        self.release(Some(&question));
        for (target, of) in question.whom {
            let measured = round_trips.iter().filter(|trip| trip.peer == target);
            let took = measured.filter_map(|trip| trip.took).min();
            // It may be in another site by now.
            let site = self.peers.get(&target).and_then(|target| target.site);
            let found = self.peers.get_mut(&peer);
            if let Some(search) = found.and_then(|found| found.search.as_mut()) {
                let way = search.ways.entry(site.unwrap_or(of)).or_default();
                *way = took.into_iter().chain(*way).min();
            }
        }
        self.judge(peer, now);
        self.ask(now, out);
    }

    /// Time has passed: [`Sites::due`] is over.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some(&(at, peer, number)) = self.due.front()
            && at <= now
        {
            self.due.pop_front();
            let found = self.peers.get(&peer);
            let search = found.and_then(|found| found.search.as_ref());
            let asked = search.and_then(|search| search.question.as_ref());
            if asked.is_some_and(|question| question.number == number) {
                self.answered(peer, &[], now, out);
            }
        }
        while let Some(&(at, peer)) = self.again.first()
            && at <= now
        {
            let again = self.peers.get(&peer).and_then(|peer| peer.again);
            let pause = again.map_or(AGAIN, |(_, pause)| pause);
            self.look_again(peer, Some((now + pause, (pause * 2).min(AGAIN_MAX))));
            self.search(peer);
        }
        self.ask(now, out);
    }

    /// When to call [`Sites::tick`]; [`Time::NEVER`] while there is nothing to wait for.
    pub fn due(&self) -> Time {
        let answers = self.due.front().map(|due| due.0);
        let again = self.again.first().map(|again| again.0);
        answers
            .into_iter()
            .chain(again)
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// A peer whose place may have changed, and its place.
    pub fn next_moved(&mut self) -> Option<(PeerId, Place)> {
        let peer = self.moved.pop_first()?;
        let sites = self.peers.get(&peer).map(|peer| [peer.site, peer.guest]);
        let mut sites = sites.into_iter().flatten().flatten();
        let site = sites.find(|site| self.named.contains(site));
        Some((peer, site.map(Place::site).unwrap_or_default()))
    }

    /// Whether [`Sites::next_moved`] has somebody to tell of.
    pub fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// How many sites have a name.
    pub fn named(&self) -> usize {
        self.named.len()
    }

    /// A number that is another each time, to choose with: identifiers are random.
    fn draw(&mut self) -> PeerId {
        self.counter += 1;
        let mut from = [0; 16];
        // Fibonacci hashing: what follow each other are far apart.
        let spread = self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        from[..8].copy_from_slice(&spread.to_be_bytes());
        PeerId::from_bytes(from)
    }

    /// Has a peer look for its site, from the beginning.
    fn search(&mut self, peer: PeerId) {
        if let Some(found) = self.peers.get_mut(&peer)
            && found.search.is_none()
        {
            found.search = Some(Box::default());
            let last = self.line.last_key_value();
            let turn = last.map_or(0, |last| last.0 + 1);
            self.stand(peer, turn);
        }
    }

    /// Gives a peer a place in line.
    fn stand(&mut self, peer: PeerId, turn: i64) {
        let found = self.peers.get_mut(&peer);
        if let Some(search) = found.and_then(|found| found.search.as_mut()) {
            search.turn = Some(turn);
            self.line.insert(turn, peer);
        }
    }

    /// Asks those at the front of the line, as long as there is whom to name to them.
    fn ask(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some((&turn, &peer)) = self.line.first_key_value() {
            let choice = self.choose(peer);
            if matches!(choice, Choice::Wait) {
                return;
            }
            self.line.remove(&turn);
            match choice {
                Choice::Ask(whom) => self.question(peer, whom, now, out),
                Choice::Nothing | Choice::Wait => self.settle(peer, now),
            }
        }
    }

    fn question(
        &mut self,
        peer: PeerId,
        whom: Vec<(PeerId, Site)>,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let mut peers = Vec::with_capacity(whom.len());
        for (target, _) in &whom {
            if let Some(target) = self.peers.get_mut(target) {
                target.targeted += 1;
                peers.push(target.addr);
            }
        }
        self.counter += 1;
        let found = self.peers.get_mut(&peer);
        if let Some(search) = found.and_then(|found| found.search.as_mut()) {
            search.rounds += 1;
            search.turn = None;
            let number = self.counter;
            search.question = Some(Question { number, whom });
        }
        self.due.push_back((now + ANSWER, peer, self.counter));
        out.push(Output {
            to: peer,
            message: ToPeer::Measure {
                peers,
                enough: NEAR,
            },
        });
    }

    /// Whom a peer is to measure the way to: members of the sites it was not asked about, those
    /// first that are as far from the others as it is, then the largest.
    fn choose(&mut self, peer: PeerId) -> Choice {
        let Some(found) = self.peers.get(&peer) else {
            return Choice::Nothing;
        };
        let Some(search) = found
            .search
            .as_ref()
            .filter(|search| search.rounds < ROUNDS)
        else {
            return Choice::Nothing;
        };
        let unlike = |site: Site, members: &Members| {
            let both = search.ways.iter().filter_map(|(&other, way)| {
                let there = members.ways.get(&other).copied();
                let back = self
                    .sites
                    .get(&other)
                    .and_then(|other| other.ways.get(&site));
                Some(way.as_ref()?.abs_diff(there.or(back.copied())?))
            });
            both.max().unwrap_or_default()
        };
        // Where there are several only an older site is one to go to.
        let own = found.site.filter(|own| {
            let members = self.sites.get(own);
            members.is_some_and(|members| members.peers.len() > 1)
        });
        let may = |site: Site| Some(site) != found.site && own.is_none_or(|own| site < own);
        let mut sites: Vec<_> = self
            .sites
            .iter()
            .filter(|(site, _)| may(**site) && !search.ways.contains_key(site))
            .map(|(&site, members)| {
                let size = std::cmp::Reverse(members.peers.len());
                (unlike(site, members), size, site)
            })
            .collect();
        sites.sort_unstable();
        sites.truncate(TARGETS);
        // Of few sites several each: one may have much to do.
        let each = TARGETS / sites.len().max(1);
        let draw = self.draw();
        let mut targets = Vec::new();
        for (_, _, site) in sites {
            let members = self.sites.get(&site).map(|members| &members.peers);
            let looked = members
                .into_iter()
                .flat_map(|peers| after(peers, draw).take(LOOKS));
            let free = |id: &PeerId| {
                let target = self.peers.get(id);
                target.is_some_and(|target| target.targeted < TARGETED)
            };
            let before = targets.len();
            targets.extend(looked.filter(free).take(each).map(|id| (id, site)));
            if targets.len() == before {
                return Choice::Wait;
            }
        }
        match targets.is_empty() {
            true => Choice::Nothing,
            false => Choice::Ask(targets),
        }
    }

    /// A question is answered, or nobody is left to answer it.
    fn release(&mut self, question: Option<&Question>) {
        for (target, _) in question.into_iter().flat_map(|question| &question.whom) {
            if let Some(target) = self.peers.get_mut(target) {
                target.targeted = target.targeted.saturating_sub(1);
            }
        }
    }

    /// A peer has answered: it is near a site, or asked about others.
    fn judge(&mut self, peer: PeerId, now: Time) {
        let Some(found) = self.peers.get(&peer) else {
            return;
        };
        let ways = found.search.iter().flat_map(|search| &search.ways);
        let near = ways
            .filter(|(_, way)| way.is_some_and(|way| way <= NEAR))
            .map(|(&site, _)| site)
            .filter(|site| self.sites.contains_key(site));
        match near.min() {
            // The oldest: where one site was taken for two, all come together in it.
            Some(site) if found.site.is_none_or(|own| site < own) => self.join(peer, site, now),
            _ => {
                let first = self.line.first_key_value();
                let turn = first.map_or(0, |first| first.0 - 1);
                self.stand(peer, turn);
            }
        }
    }

    /// A peer is near a site, though it may have been in another.
    fn join(&mut self, peer: PeerId, site: Site, now: Time) {
        let before = self.enter(peer, Some(site), now);
        self.lean(peer, None);
        self.look_again(peer, None);
        if let Some(found) = self.peers.get_mut(&peer) {
            found.search = None;
        }
        // The others of its former site may be near that one as well.
        let others = before.and_then(|before| self.sites.get(&before));
        let others: Vec<PeerId> = others.iter().flat_map(|site| site.peers.clone()).collect();
        others.into_iter().for_each(|other| self.search(other));
    }

    /// There is nothing more to ask a peer, and it is near no older site.
    fn settle(&mut self, peer: PeerId, now: Time) {
        let found = self.peers.get_mut(&peer);
        let Some((site, search)) = found.and_then(|found| Some((found.site, found.search.take()?)))
        else {
            return;
        };
        let ways = search.ways.into_iter();
        let ways: BTreeMap<Site, Duration> = ways
            .filter_map(|(site, way)| Some((site, way?)))
            .filter(|(site, _)| self.sites.contains_key(site))
            .collect();
        // Where nothing came back nothing is known.
        if !ways.is_empty() {
            self.lean(peer, self.nearest(&ways));
            match site {
                Some(site) => {
                    if let Some(members) = self.sites.get_mut(&site)
                        && members.scout == peer
                    {
                        members.sure += 1;
                        self.name();
                    }
                }
                None => self.found(peer, ways, now),
            }
        }
        let site = self.peers.get(&peer).and_then(|found| found.site);
        let site = site.and_then(|site| self.sites.get(&site));
        if site.is_none_or(|site| site.scout == peer) {
            self.will_look_again(peer, now);
        }
    }

    /// The site with a name that is nearest by far.
    fn nearest(&self, ways: &BTreeMap<Site, Duration>) -> Option<Site> {
        let named = ways.iter().filter(|(site, _)| self.named.contains(site));
        let mut named: Vec<(Duration, Site)> = named.map(|(&site, &way)| (way, site)).collect();
        named.sort_unstable();
        match named[..] {
            [(near, site), (far, _), ..] if near + NEAR <= far => Some(site),
            _ => None,
        }
    }

    /// Who waits in front of a busy link may not be found near anybody: until it is, it is the guest of
    /// the site that it is nearest to.
    fn lean(&mut self, peer: PeerId, site: Option<Site>) {
        let Some(found) = self.peers.get_mut(&peer) else {
            return;
        };
        let before = std::mem::replace(&mut found.guest, site);
        if before == site {
            return;
        }
        if let Some(left) = before.and_then(|before| self.sites.get_mut(&before)) {
            left.guests.remove(&peer);
        }
        if let Some(members) = site.and_then(|site| self.sites.get_mut(&site)) {
            members.guests.insert(peer);
        }
        self.moved.insert(peer);
    }

    fn will_look_again(&mut self, peer: PeerId, now: Time) {
        let again = self.peers.get(&peer).map(|found| found.again);
        if again == Some(None) {
            self.look_again(peer, Some((now + AGAIN, AGAIN * 2)));
        }
    }

    /// When a peer looks for its site again, if it does, and how long after that.
    fn look_again(&mut self, peer: PeerId, again: Option<(Time, Duration)>) {
        let Some(found) = self.peers.get_mut(&peer) else {
            return;
        };
        if let Some((at, _)) = std::mem::replace(&mut found.again, again) {
            self.again.remove(&(at, peer));
        }
        if let Some((at, _)) = again {
            self.again.insert((at, peer));
        }
    }

    /// A peer is the first of a new site, unless there are too many.
    fn found(&mut self, peer: PeerId, ways: BTreeMap<Site, Duration>, now: Time) {
        if self.sites.len() == SITES_MAX {
            return;
        }
        self.counter += 1;
        let site = self.counter;
        self.sites.insert(
            site,
            Members {
                peers: BTreeSet::new(),
                scout: peer,
                guests: BTreeSet::new(),
                ways,
                sure: 0,
            },
        );
        self.enter(peer, Some(site), now);
    }

    /// Puts a peer into a site, or into none, and says in which one it was.
    fn enter(&mut self, peer: PeerId, site: Option<Site>, now: Time) -> Option<Site> {
        let found = self.peers.get_mut(&peer)?;
        let before = std::mem::replace(&mut found.site, site);
        if let Some(members) = site.and_then(|site| self.sites.get_mut(&site)) {
            members.peers.insert(peer);
        }
        if let Some(left) = before {
            self.left(peer, left, now);
        }
        self.moved.insert(peer);
        self.name();
        before
    }

    /// A peer is no member of a site any more: who is left looks again in its place.
    fn left(&mut self, peer: PeerId, site: Site, now: Time) {
        let Some(members) = self.sites.get_mut(&site) else {
            return;
        };
        members.peers.remove(&peer);
        match members.peers.first().copied() {
            Some(next) if members.scout == peer => {
                members.scout = next;
                self.will_look_again(next, now);
            }
            Some(_) => {}
            None => {
                let gone = self.sites.remove(&site);
                for guest in gone.into_iter().flat_map(|gone| gone.guests) {
                    self.lean(guest, None);
                }
                for other in self.sites.values_mut() {
                    other.ways.remove(&site);
                }
            }
        }
    }

    /// Finds out anew which sites have a name.
    fn name(&mut self) {
        let counts = |members: &Members| members.peers.len() > 1 || members.sure >= SURE;
        let sites = self.sites.iter().filter(|(_, members)| counts(members));
        let mut named: BTreeSet<Site> = sites.map(|(&site, _)| site).collect();
        if named.len() < 2 {
            named.clear();
        }
        for site in named.symmetric_difference(&self.named) {
            if let Some(members) = self.sites.get(site) {
                self.moved.extend(members.peers.union(&members.guests));
            }
        }
        self.named = named;
    }
}

/// All of a set, beginning somewhere in it.
fn after(peers: &BTreeSet<PeerId>, from: PeerId) -> impl Iterator<Item = PeerId> + '_ {
    peers.range(from..).chain(peers.range(..from)).copied()
}

#[cfg(test)]
mod tests;
