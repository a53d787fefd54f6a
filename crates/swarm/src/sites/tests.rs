use proptest::prelude::*;

use super::*;

fn id(n: u32) -> PeerId {
    let mut bytes = [0; 16];
    // Identifiers are random: those of one site must not be neighbours.
    bytes[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn number(id: PeerId) -> u32 {
    let bytes = id.as_bytes();
    u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])
}

/// Peers that are where `place` says, in milliseconds east and north of somewhere; two at one place
/// are in one data centre. Each try waits in queues for up to `queue` milliseconds.
struct Lab {
    sites: Sites,
    now: Time,
    place: fn(u32) -> (f64, f64),
    queue: f64,
    /// From this one on each waits for 5 ms in front of its own link.
    busy: u32,
    seed: u64,
    /// Questions so far.
    asked: u32,
    places: BTreeMap<PeerId, Place>,
    /// How often somebody's place was another than before.
    moves: u32,
}

impl Lab {
    fn new(place: fn(u32) -> (f64, f64)) -> Self {
        Self {
            sites: Sites::default(),
            now: Time::ZERO,
            place,
            queue: 0.0,
            busy: u32::MAX,
            seed: 1,
            asked: 0,
            places: BTreeMap::new(),
            moves: 0,
        }
    }

    /// In [0, 1).
    fn random(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The least of three tries, of what is 0.1 to 1 ms in a data centre.
    fn round_trip(&mut self, from: PeerId, to: PeerId) -> Duration {
        let (a, b) = ((self.place)(number(from)), (self.place)(number(to)));
        let busy = [from, to].into_iter().filter(|&id| number(id) >= self.busy);
        let way = (a.0 - b.0).hypot(a.1 - b.1) + 5.0 * busy.count() as f64;
        let tries = (0..3).map(|_| way + 0.1 + 0.9 * self.random() + self.queue * self.random());
        let least = tries.fold(f64::INFINITY, f64::min);
        Duration::from_secs_f64(least / 1000.0)
    }

    /// Answers everything that is asked, until nobody is asked.
    fn answer(&mut self, mut out: Vec<Output>) {
        while !out.is_empty() {
            let mut next = Vec::new();
            for Output { to, message } in out {
                let ToPeer::Measure { peers, enough } = message else {
                    panic!("{message:?}");
                };
                assert!(!peers.is_empty() && peers.len() <= TARGETS && enough == NEAR);
                self.asked += 1;
                let round_trips: Vec<RoundTrip> = peers
                    .iter()
                    .map(|peer| RoundTrip {
                        peer: peer.id,
                        took: Some(self.round_trip(to, peer.id)),
                    })
                    .collect();
                self.sites.answered(to, &round_trips, self.now, &mut next);
                self.sites.check();
            }
            out = next;
        }
        while let Some((peer, place)) = self.sites.next_moved() {
            self.moves +=
                u32::from(self.places.insert(peer, place.clone()).unwrap_or_default() != place);
        }
    }

    fn come(&mut self, n: u32) {
        let mut out = Vec::new();
        self.sites.came(addr(n), self.now, &mut out);
        self.answer(out);
    }

    fn go(&mut self, n: u32) {
        let mut out = Vec::new();
        self.sites.gone(id(n), self.now, &mut out);
        self.places.remove(&id(n));
        self.answer(out);
        self.sites.check();
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.sites.due() <= until {
            self.now = self.now.max(self.sites.due());
            let mut out = Vec::new();
            self.sites.tick(self.now, &mut out);
            self.answer(out);
        }
        self.now = until;
    }

    fn place_of(&self, n: u32) -> &Place {
        &self.places[&id(n)]
    }
}

fn addr(n: u32) -> PeerAddr {
    PeerAddr {
        id: id(n),
        addr: ([10, 0, (n >> 8) as u8, n as u8], 65002).into(),
    }
}

impl Sites {
    /// The module's invariants.
    fn check(&self) {
        let mut targeted: BTreeMap<PeerId, u32> = BTreeMap::new();
        for (id, peer) in &self.peers {
            if let Some(site) = peer.site {
                assert!(
                    self.sites[&site].peers.contains(id),
                    "in a site that lacks it"
                );
            }
            if let Some(guest) = peer.guest {
                assert!(self.sites[&guest].guests.contains(id), "nobody's guest");
            }
            let again = peer
                .again
                .is_some_and(|(at, _)| self.again.contains(&(at, *id)));
            assert_eq!(again, peer.again.is_some());
            assert!(peer.targeted <= TARGETED, "asked by too many");
            let Some(search) = &peer.search else { continue };
            assert_eq!(
                search.question.is_none(),
                search.turn.is_some(),
                "asked, or in line"
            );
            assert!(search.rounds <= ROUNDS);
            if let Some(turn) = search.turn {
                assert_eq!(self.line.get(&turn), Some(id));
            }
            for (target, _) in search.question.iter().flat_map(|question| &question.whom) {
                *targeted.entry(*target).or_default() += 1;
            }
        }
        for (id, count) in targeted {
            let target = self.peers.get(&id);
            assert!(
                target.is_none_or(|target| target.targeted <= count),
                "not released"
            );
        }
        for (site, members) in &self.sites {
            assert!(members.peers.contains(&members.scout), "its scout has gone");
            let all = members.peers.iter().map(|peer| self.peers[peer].site);
            assert!(all.into_iter().all(|of| of == Some(*site)));
            let all = members.guests.iter().map(|peer| self.peers[peer].guest);
            assert!(all.into_iter().all(|of| of == Some(*site)));
            assert!(
                members
                    .ways
                    .keys()
                    .all(|other| self.sites.contains_key(other))
            );
        }
        assert!(self.sites.len() <= SITES_MAX);
        assert!(self.named.iter().all(|site| self.sites.contains_key(site)));
        assert!(self.line.values().all(|peer| self.peers.contains_key(peer)));
        assert!(
            self.again
                .iter()
                .all(|(_, peer)| self.peers.contains_key(peer))
        );
        assert!(self.moved.iter().all(|peer| self.peers.contains_key(peer)));
    }
}

/// Two data centres, 4 ms from each other, in turn.
fn two(n: u32) -> (f64, f64) {
    (f64::from(n % 2) * 4.0, 0.0)
}

fn one(_: u32) -> (f64, f64) {
    (0.0, 0.0)
}

#[test]
fn two_data_centres_are_found() {
    let mut lab = Lab::new(two);
    (0..20).for_each(|n| lab.come(n));
    assert_eq!(lab.sites.named(), 2);
    let (a, b) = (lab.place_of(0).clone(), lab.place_of(1).clone());
    assert!(a != b && !a.is_nowhere() && !b.is_nowhere());
    for n in 0..20 {
        assert_eq!(lab.place_of(n), if n % 2 == 0 { &a } else { &b });
    }
    // Nobody is asked more than it takes: one question, and who comes before its site is there two.
    assert!(lab.asked <= 25, "{} questions", lab.asked);
}

#[test]
fn one_data_centre_is_none() {
    let mut lab = Lab::new(one);
    (0..500).for_each(|n| lab.come(n));
    lab.wait(Duration::from_secs(3600));
    assert_eq!((lab.sites.named(), lab.moves), (0, 0));
    assert_eq!(lab.asked, 499, "nobody is asked twice");
}

/// Half of what is measured waits for 25 ms and more in front of busy links.
#[test]
fn a_busy_data_centre_comes_together_again() {
    for seed in 1..20 {
        let mut lab = Lab::new(one);
        (lab.queue, lab.seed) = (50.0, seed);
        for n in 0..40 {
            lab.come(n);
            lab.wait(Duration::from_millis(50));
        }
        // While that lasts some may be taken for others that are far away; then no more.
        lab.wait(Duration::from_secs(60));
        lab.queue = 0.0;
        lab.wait(AGAIN_MAX);
        assert_eq!((lab.sites.named(), lab.sites.sites.len()), (0, 1), "{seed}");
        assert!(lab.places.values().all(Place::is_nowhere));
    }
}

/// What is busy is far from everybody: then it is the guest of whom it is nearest to.
#[test]
fn who_is_busy_is_a_guest_where_it_is_nearest() {
    let mut lab = Lab::new(two);
    (0..20).for_each(|n| lab.come(n));
    lab.busy = 20;
    (20..30).for_each(|n| lab.come(n));
    for n in 20..30 {
        assert_eq!(lab.place_of(n), lab.place_of(n % 2), "{n}");
    }
    lab.busy = u32::MAX;
    lab.wait(Duration::from_secs(5));
    assert_eq!(lab.sites.sites.len(), 2, "all have been found near");
}

#[test]
fn who_is_far_from_all_counts_when_that_is_sure() {
    let mut lab = Lab::new(|n| (if n == 9 { 30.0 } else { 0.0 }, 0.0));
    (0..10).for_each(|n| lab.come(n));
    assert_eq!(lab.moves, 0, "it may only have been busy");
    lab.wait(AGAIN * 4);
    assert_eq!(lab.sites.named(), 2);
    assert_ne!(lab.place_of(9), lab.place_of(0));
    // When it has gone all is one again.
    lab.go(9);
    assert_eq!(lab.sites.named(), 0);
    assert!(lab.places.values().all(Place::is_nowhere));
}

#[test]
fn who_stood_for_a_site_is_not_missed() {
    let mut lab = Lab::new(two);
    (0..20).for_each(|n| lab.come(n));
    let places = [lab.place_of(0).clone(), lab.place_of(1).clone()];
    (0..16).for_each(|n| lab.go(n));
    (20..40).for_each(|n| lab.come(n));
    for n in 16..40 {
        assert_eq!(*lab.place_of(n), places[n as usize % 2]);
    }
    lab.wait(Duration::from_secs(60));
    assert_eq!(lab.sites.named(), 2);
}

/// Thirty data centres all over a continent: more than a peer is asked about at once.
#[test]
fn many_sites_are_found_by_their_distances() {
    let mut lab = Lab::new(|n| (f64::from(n % 6) * 9.0, f64::from(n / 6 % 5) * 9.0));
    (0..300).for_each(|n| lab.come(n));
    for n in 30..300 {
        assert_eq!(lab.place_of(n), lab.place_of(n % 30), "{n}");
    }
    assert_eq!(lab.sites.named(), 30);
    let before = lab.asked;
    (300..400).for_each(|n| lab.come(n));
    let each = f64::from(lab.asked - before) / 100.0;
    assert!(each < 2.5, "{each} questions each");
}

/// All come before anybody has answered: nobody is asked by all.
#[test]
fn who_comes_first_is_not_overrun() {
    let mut lab = Lab::new(two);
    let mut out = Vec::new();
    for n in 0..5000 {
        lab.sites.came(addr(n), lab.now, &mut out);
    }
    assert!(out.len() <= TARGETED as usize);
    lab.answer(out);
    assert_eq!(lab.sites.named(), 2);
    assert!(lab.places.values().all(|place| !place.is_nowhere()));
    assert!(lab.sites.line.is_empty());
}

/// Where nothing comes back nothing is known: nobody is far from who is out of reach.
#[test]
fn silence_says_nothing() {
    let mut sites = Sites::default();
    let (mut now, mut out) = (Time::ZERO, Vec::new());
    (0..4).for_each(|n| sites.came(addr(n), now, &mut out));
    for round in 0..20 {
        for Output { to, message } in std::mem::take(&mut out) {
            let ToPeer::Measure { peers, .. } = message else {
                panic!("{message:?}");
            };
            let trip = |peer: &PeerAddr| RoundTrip {
                peer: peer.id,
                took: None,
            };
            let trips: Vec<RoundTrip> = peers.iter().map(trip).collect();
            // Or not even that.
            if round % 2 == 0 {
                sites.answered(to, &trips, now, &mut out);
            }
        }
        now = now.max(sites.due());
        sites.tick(now, &mut out);
        sites.check();
    }
    assert_eq!(sites.sites.len(), 1);
}

proptest! {
    /// Whatever peers claim, what is kept of them is bounded and goes with them.
    #[test]
    fn nonsense_is_bounded(
        ops in prop::collection::vec((0u8..8, 0u32..40, any::<u32>()), 0..400),
    ) {
        let mut sites = Sites::default();
        let (mut now, mut out) = (Time::ZERO, Vec::new());
        for (op, n, value) in ops {
            match op {
                0 | 1 => sites.gone(id(n), now, &mut out),
                2 => {
                    now = now + Duration::from_millis(u64::from(value % 2000));
                    sites.tick(now, &mut out);
                }
                3 => {
                    // Nobody asked for that.
                    let trips: Vec<RoundTrip> = (0..16)
                        .map(|more| RoundTrip {
                            peer: id(value.wrapping_add(more) % 40),
                            took: Some(Duration::ZERO),
                        })
                        .collect();
                    sites.answered(id(n), &trips, now, &mut out);
                }
                4 if !out.is_empty() => {
                    let Output { to, message } = out.remove(value as usize % out.len());
                    let ToPeer::Measure { peers, .. } = message else {
                        panic!("{message:?}");
                    };
                    let claim = |(at, peer): (usize, PeerAddr)| RoundTrip {
                        peer: peer.id,
                        took: (value >> at & 1 == 0)
                            .then(|| Duration::from_micros(u64::from(value >> (at % 20)))),
                    };
                    let trips: Vec<RoundTrip> = peers.into_iter().enumerate().map(claim).collect();
                    sites.answered(to, &trips, now, &mut out);
                }
                _ => {
                    sites.gone(id(n), now, &mut out);
                    sites.came(addr(n), now, &mut out);
                }
            }
            while op == 5 && sites.next_moved().is_some() {}
            sites.check();
        }
        (0..40).for_each(|n| sites.gone(id(n), now, &mut out));
        sites.tick(now + ANSWER, &mut out);
        prop_assert!(sites.peers.is_empty() && sites.sites.is_empty() && sites.named.is_empty());
        prop_assert!(sites.line.is_empty() && sites.due.is_empty() && sites.again.is_empty());
        prop_assert!(!sites.has_moved());
    }
}
