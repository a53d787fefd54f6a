//! What stands behind a URL: who asks the origin, who waits for it, and which of two answers counts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use pantala_core::{
    Class, ContentMeta, Error, Generation, Kind, PeerId, PieceIndex, ResourceKey, TaskId, Time,
    Validators, Who,
    control::{
        FromPeer, Hello, KnownResource, Learned, PeerAddr, Register, Resume, Serial, ToPeer,
    },
};
use pantala_swarm::{Config, Event, Swarm};
use proptest::prelude::*;

const OLD: TaskId = TaskId::from_bytes([5; 32]);
const NEW: TaskId = TaskId::from_bytes([6; 32]);

/// A supernode and what it said to whom, first things first.
struct Lab {
    swarm: Swarm,
    now: Time,
    said: VecDeque<(u8, ToPeer)>,
    /// The last request of any peer.
    asked: Serial,
    /// The requests for which peers were told to learn, and have not said what they did.
    learning: BTreeMap<(u8, ResourceKey), VecDeque<Serial>>,
}

fn key(class: Class) -> ResourceKey {
    ResourceKey::of_url("http://origin.example/f", b"", class)
}

fn meta(age: u64, fresh_for: u64) -> ContentMeta {
    ContentMeta {
        length: Some(8 << 20),
        validators: Validators {
            etag: Some("\"a\"".into()),
            ..Validators::default()
        },
        age: Duration::from_secs(age),
        fresh_for: Some(Duration::from_secs(fresh_for)),
        ..ContentMeta::default()
    }
}

impl Lab {
    fn new(peers: u8) -> Self {
        let mut lab = Self {
            swarm: Swarm::new(Config::default()),
            now: Time::ZERO,
            said: VecDeque::new(),
            asked: Serial::NONE,
            learning: BTreeMap::new(),
        };
        (0..peers).for_each(|peer| lab.connect(peer));
        lab
    }

    fn handle(&mut self, event: Event) {
        self.swarm.handle(self.now, event);
        while let Some(output) = self.swarm.poll_output() {
            let about_resources = matches!(
                output.message,
                ToPeer::Known { .. }
                    | ToPeer::Learn { .. }
                    | ToPeer::Direct { .. }
                    | ToPeer::Refused { .. }
                    | ToPeer::Changed { .. }
            );
            if about_resources {
                let to = output.to.as_bytes()[0];
                if let ToPeer::Learn { key, serial, .. } = &output.message {
                    let learning = self.learning.entry((to, *key)).or_default();
                    learning.push_back(*serial);
                }
                self.said.push_back((to, output.message));
            }
        }
    }

    fn connect(&mut self, peer: u8) {
        let hello = Hello {
            peer: PeerAddr {
                id: PeerId::from_bytes([peer; 16]),
                addr: ([127, 0, 0, 1], 1000 + u16::from(peer)).into(),
            },
            labels: Vec::new(),
        };
        self.handle(Event::Connected { hello });
    }

    fn say(&mut self, peer: u8, message: FromPeer) {
        let peer = PeerId::from_bytes([peer; 16]);
        self.handle(Event::Message { peer, message });
    }

    fn asks(&mut self, peer: u8, class: Class) {
        self.asked = self.asked.next();
        let register = Register {
            key: key(class),
            serial: self.asked,
            shown: String::new(),
            start: 0,
            content: None,
        };
        self.say(peer, FromPeer::Register(register));
    }

    /// A peer says what it learned for the first request for which it was told to.
    fn learned(&mut self, peer: u8, class: Class, learned: Learned) {
        let key = key(class);
        let learning = self.learning.get_mut(&(peer, key));
        let serial = learning.and_then(VecDeque::pop_front).unwrap_or_default();
        let message = FromPeer::Learned {
            key,
            serial,
            learned,
        };
        self.say(peer, message);
    }

    fn resumes(&mut self, peer: u8, task: TaskId, class: Class, meta: ContentMeta) {
        let resume = Resume {
            key: key(class),
            task,
            meta: meta.clone(),
            resources: vec![KnownResource {
                key: key(class),
                meta,
            }],
            held: Vec::new(),
            digests: Vec::new(),
            position: PieceIndex::new(0),
            leases: Vec::new(),
            shown: String::new(),
        };
        self.say(peer, FromPeer::Resume(resume));
    }

    fn waits(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(500);
            self.handle(Event::Tick);
        }
    }

    fn said(&mut self) -> Vec<(u8, ToPeer)> {
        self.said.drain(..).collect()
    }

    /// Whom it asked to learn since it was last looked, and about which content known before.
    fn learners(&mut self) -> Vec<(u8, Option<TaskId>)> {
        let learn = |(to, message)| match message {
            ToPeer::Learn { stale, .. } => Some((to, stale.map(|(task, _)| task))),
            _ => None,
        };
        self.said().into_iter().filter_map(learn).collect()
    }

    /// Whom it told what stands there, with what is left of its freshness.
    fn told(&mut self) -> Vec<(u8, TaskId, u64)> {
        let known = |(to, message)| match message {
            ToPeer::Known { known, .. } => {
                let left = known.meta.fresh_for.unwrap_or_default();
                Some((to, known.task, left.as_secs()))
            }
            _ => None,
        };
        self.said().into_iter().filter_map(known).collect()
    }
}

fn content(task: TaskId) -> Learned {
    let meta = meta(0, 60);
    Learned::Content { task, meta }
}

fn failed(who: Who, kind: Kind) -> Learned {
    let error = Error::new(who, kind, "it did not work");
    Learned::Failed { error }
}

#[test]
fn a_slow_origin_is_asked_once_for_as_long_as_it_takes() {
    let mut lab = Lab::new(3);
    (0..3).for_each(|peer| lab.asks(peer, Class::Anonymous));
    lab.waits(Duration::from_secs(120));
    assert_eq!(lab.learners(), [(0, None)]);
    lab.learned(0, Class::Anonymous, content(NEW));
    assert_eq!(lab.told(), [(0, NEW, 60), (1, NEW, 60), (2, NEW, 60)]);
}

#[test]
fn a_late_answer_is_an_answer_to_all_who_wait() {
    let mut lab = Lab::new(4);
    (0..4).for_each(|peer| lab.asks(peer, Class::Anonymous));
    // Its connection breaks, so the next one asks; then its answer comes all the same.
    lab.connect(0);
    assert_eq!(lab.learners(), [(0, None), (1, None)]);
    lab.learned(0, Class::Anonymous, content(NEW));
    assert_eq!(lab.told(), [(0, NEW, 60), (2, NEW, 60), (3, NEW, 60)]);
    // The other one's reader gets what it asked for, and what stands there stays.
    lab.learned(1, Class::Anonymous, content(OLD));
    assert!(
        lab.told()
            .iter()
            .any(|(to, task, _)| (*to, *task) == (1, OLD))
    );
    lab.asks(3, Class::Anonymous);
    assert_eq!(lab.told(), [(3, NEW, 60)]);
}

#[test]
fn a_peer_that_comes_back_answers_those_who_wait() {
    let mut lab = Lab::new(4);
    (0..3).for_each(|peer| lab.asks(peer, Class::Anonymous));
    lab.said();
    lab.resumes(3, OLD, Class::Anonymous, meta(10, 50));
    let told = lab.told();
    assert!(
        told.contains(&(1, OLD, 50)) && told.contains(&(2, OLD, 50)),
        "{told:?}"
    );
    // Who was asking the origin has its answer too.
    lab.learned(0, Class::Anonymous, content(NEW));
    assert!(lab.told().contains(&(0, NEW, 60)));
}

#[test]
fn the_youngest_answer_counts_in_whatever_order_peers_come_back() {
    for old_first in [true, false] {
        let mut lab = Lab::new(3);
        let versions = [(0, OLD, meta(500, 3100)), (1, NEW, meta(20, 40))];
        let mut versions = versions.to_vec();
        if !old_first {
            versions.reverse();
        }
        for (peer, task, meta) in versions {
            lab.resumes(peer, task, Class::Anonymous, meta);
        }
        lab.said();
        lab.waits(Duration::from_secs(10));
        lab.asks(2, Class::Anonymous);
        assert_eq!(lab.told(), [(2, NEW, 30)], "old first: {old_first}");
        // Its time is over: the origin is asked about the young one.
        lab.waits(Duration::from_secs(31));
        lab.asks(2, Class::Anonymous);
        assert_eq!(lab.learners(), [(2, Some(NEW))]);
    }
}

#[test]
fn a_version_that_stands_behind_nothing_is_nobodys_answer() {
    let mut lab = Lab::new(2);
    let mut resume = Resume {
        key: key(Class::Anonymous),
        task: OLD,
        meta: meta(0, 3600),
        resources: Vec::new(),
        held: vec![(PieceIndex::new(0), 8)],
        digests: Vec::new(),
        position: PieceIndex::new(8),
        leases: Vec::new(),
        shown: String::new(),
    };
    resume.meta.fresh_for = None;
    lab.say(0, FromPeer::Resume(resume));
    // It may be shared by those who read it still, and is not taken for fresh.
    assert_eq!(lab.told(), [(0, OLD, 0)]);
    lab.asks(1, Class::Anonymous);
    assert_eq!(lab.learners(), [(1, None)]);
}

#[test]
fn what_the_origin_fails_to_say_is_passed_on_and_not_repeated() {
    for (who, kind, class, passed_on) in [
        (Who::Origin, Kind::Timeout, Class::Credentialed, true),
        (Who::Origin, Kind::Status(503), Class::Credentialed, true),
        (Who::Origin, Kind::NotFound, Class::Anonymous, true),
        (Who::Origin, Kind::Denied, Class::Anonymous, true),
        // Others' credentials may be better.
        (Who::Origin, Kind::Denied, Class::Credentialed, false),
        (Who::Origin, Kind::NotFound, Class::Credentialed, false),
        // Others may have another way there.
        (Who::Origin, Kind::Unreachable, Class::Anonymous, false),
        (Who::Us, Kind::NoMemory, Class::Anonymous, false),
    ] {
        let mut lab = Lab::new(3);
        (0..3).for_each(|peer| lab.asks(peer, class));
        lab.said();
        lab.learned(0, class, failed(who, kind));
        let said = lab.said();
        let refused = |(_, message): &(u8, ToPeer)| matches!(message, ToPeer::Refused { .. });
        let refused = said.iter().filter(|said| refused(said)).count();
        let learners = said.len() - refused;
        let expected = if passed_on { (2, 0) } else { (0, 1) };
        assert_eq!((refused, learners), expected, "{who:?} {kind:?} {class:?}");
    }
}

#[test]
fn one_class_is_never_answered_with_what_the_other_learned() {
    for (first, second) in [
        (Class::Anonymous, Class::Credentialed),
        (Class::Credentialed, Class::Anonymous),
    ] {
        let mut lab = Lab::new(2);
        lab.asks(0, first);
        lab.learned(0, first, content(NEW));
        lab.said();
        lab.asks(1, second);
        // The origin is asked whether it is the same.
        assert_eq!(lab.learners(), [(1, Some(NEW))]);
        let meta = meta(0, 60);
        lab.learned(1, second, Learned::Unchanged { task: NEW, meta });
        let known = lab.said().pop().unwrap().1;
        let ToPeer::Known { known, .. } = known else {
            panic!("{known:?}");
        };
        assert_eq!(known.task, NEW);
        assert_eq!(known.meta.private, second == Class::Credentialed);
    }
}

impl Lab {
    /// Whom it told that what stands there was changed.
    fn warned(&mut self) -> Vec<u8> {
        let changed = |(to, message)| matches!(message, ToPeer::Changed { .. }).then_some(to);
        self.said().into_iter().filter_map(changed).collect()
    }

    fn writes(&mut self, peer: u8) {
        let key = key(Class::Credentialed);
        self.say(peer, FromPeer::Changed { key });
    }
}

#[test]
fn a_write_ends_an_answer_at_all_who_know_it() {
    let mut lab = Lab::new(4);
    (0..3).for_each(|peer| lab.asks(peer, Class::Anonymous));
    lab.learned(0, Class::Anonymous, content(NEW));
    assert_eq!(lab.told().len(), 3);
    // Through a peer that knew nothing of it, by whoever may write.
    lab.writes(3);
    assert_eq!(lab.warned(), [0, 1, 2]);
    lab.writes(3);
    assert_eq!(lab.warned(), [], "they know");
    lab.asks(3, Class::Anonymous);
    assert_eq!(lab.learners(), [(3, Some(NEW))]);
    lab.learned(3, Class::Anonymous, content(OLD));
    lab.asks(1, Class::Anonymous);
    assert!(lab.told().contains(&(1, OLD, 60)));
}

#[test]
fn what_was_asked_before_a_write_is_nobodys_answer_after_it() {
    let mut lab = Lab::new(3);
    lab.asks(0, Class::Anonymous);
    lab.writes(1);
    lab.learned(0, Class::Anonymous, content(OLD));
    assert_eq!(lab.told(), [(0, OLD, 0)]);
    lab.asks(2, Class::Anonymous);
    assert_eq!(lab.learners(), [(2, Some(OLD))]);
}

#[test]
fn who_asks_after_a_write_does_not_wait_for_what_was_asked_before() {
    let mut lab = Lab::new(3);
    lab.asks(0, Class::Anonymous);
    lab.asks(2, Class::Anonymous);
    lab.writes(1);
    lab.said();
    lab.asks(1, Class::Anonymous);
    assert_eq!(lab.learners(), [(1, None)]);
    // What stood there before is its own reader's answer, and nobody else's.
    lab.learned(0, Class::Anonymous, content(OLD));
    assert_eq!(lab.told(), [(0, OLD, 0)]);
    lab.learned(1, Class::Anonymous, content(NEW));
    assert_eq!(lab.told(), [(1, NEW, 60), (2, NEW, 60)]);
}

#[test]
fn a_peers_own_later_request_is_not_answered_by_its_earlier_one() {
    let mut lab = Lab::new(1);
    lab.asks(0, Class::Anonymous);
    lab.writes(0);
    lab.asks(0, Class::Anonymous);
    assert_eq!(lab.learners(), [(0, None), (0, None)]);
    lab.learned(0, Class::Anonymous, content(OLD));
    assert_eq!(lab.told(), [(0, OLD, 0)]);
    lab.learned(0, Class::Anonymous, content(NEW));
    assert_eq!(lab.told(), [(0, NEW, 60)]);
    lab.asks(0, Class::Anonymous);
    assert_eq!(lab.told(), [(0, NEW, 60)]);
}

#[test]
fn who_learns_is_told_of_a_write() {
    let mut lab = Lab::new(2);
    lab.asks(0, Class::Anonymous);
    lab.writes(1);
    assert_eq!(lab.warned(), [0]);
}

#[test]
fn after_a_write_only_the_origin_makes_an_answer_fresh_again() {
    let mut lab = Lab::new(4);
    lab.asks(0, Class::Anonymous);
    lab.learned(0, Class::Anonymous, content(OLD));
    lab.writes(1);
    lab.said();
    // One that was away when all were told, with an answer that is younger than the one known here.
    lab.resumes(2, OLD, Class::Anonymous, meta(0, 3600));
    assert_eq!(lab.said.len(), 2, "{:?}", lab.said);
    assert_eq!(lab.warned(), [2]);
    lab.asks(3, Class::Anonymous);
    assert_eq!(lab.learners(), [(3, Some(OLD))]);
    lab.resumes(2, OLD, Class::Anonymous, meta(0, 3600));
    assert_eq!(lab.warned(), [2]);
    // Nor does one who asked in vain make others' words good.
    lab.asks(1, Class::Anonymous);
    lab.learned(3, Class::Anonymous, failed(Who::Us, Kind::NoMemory));
    assert_eq!(lab.learners().len(), 1);
    lab.resumes(2, OLD, Class::Anonymous, meta(0, 3600));
    assert_eq!(lab.warned(), [2]);
    lab.learned(1, Class::Anonymous, content(NEW));
    assert_eq!(lab.told(), [(1, NEW, 60)]);
}

/// A peer that has many readers of one resource is answered in a bounded number of messages, and each
/// of its readers has its answer.
#[test]
fn many_readers_of_one_peer_are_answered_by_few_messages() {
    let mut lab = Lab::new(2);
    lab.asks(0, Class::Anonymous);
    for _ in 0..100 {
        lab.asks(1, Class::Anonymous);
    }
    let last = lab.asked;
    lab.said();
    lab.learned(0, Class::Anonymous, content(NEW));
    let answered: Vec<Serial> = lab
        .said()
        .into_iter()
        .filter_map(|(to, message)| match message {
            ToPeer::Known { serial, .. } if to == 1 => Some(serial),
            _ => None,
        })
        .collect();
    assert!(answered.len() <= 16, "{}", answered.len());
    assert_eq!(answered.iter().max(), Some(&last));
}

#[test]
fn a_peer_that_waits_and_goes_is_not_asked_to_learn() {
    let mut lab = Lab::new(4);
    lab.asks(0, Class::Anonymous);
    lab.asks(1, Class::Anonymous);
    lab.asks(0, Class::Anonymous);
    lab.asks(2, Class::Anonymous);
    // The first learner's turn passes to the next, while another of its readers waits.
    lab.learned(0, Class::Anonymous, failed(Who::Us, Kind::NoMemory));
    lab.said();
    let gone = PeerId::from_bytes([0; 16]);
    lab.handle(Event::Disconnected { peer: gone });
    lab.learned(1, Class::Anonymous, failed(Who::Us, Kind::NoMemory));
    assert_eq!(lab.learners(), [(2, None)]);
}

/// What a registry names by a digest, as the answer of this length has it.
fn named(task: TaskId, length: u64) -> Learned {
    let meta = ContentMeta {
        length: Some(length),
        generation: Generation::Digest,
        headers: vec![("x-length".into(), length.to_string())],
        ..meta(0, 60)
    };
    Learned::Content { task, meta }
}

impl Lab {
    /// A peer asks for the name in one of the places where it stands.
    fn asks_at(&mut self, peer: u8, place: ResourceKey) -> Serial {
        self.asked = self.asked.next();
        let register = Register {
            key: place,
            serial: self.asked,
            shown: String::new(),
            start: 0,
            content: Some(NEW),
        };
        self.say(peer, FromPeer::Register(register));
        self.asked
    }

    fn learned_at(&mut self, peer: u8, key: ResourceKey, serial: Serial, learned: Learned) {
        let message = FromPeer::Learned {
            key,
            serial,
            learned,
        };
        self.say(peer, message);
    }

    /// The answers that were given since this was looked at last: to whom, the length of the content, and
    /// the length that the answer's headers are of.
    fn lengths(&mut self) -> Vec<(u8, u64, String)> {
        let known = |(to, message)| match message {
            ToPeer::Known { known, .. } => {
                let (_, said) = known.meta.headers.first().cloned().unwrap_or_default();
                Some((to, known.meta.length.unwrap_or_default(), said))
            }
            _ => None,
        };
        self.said().into_iter().filter_map(known).collect()
    }
}

/// Two places of one registry, two peers that learn at the same moment, and two contents under one
/// digest: one of them lies, or is broken.
#[test]
fn answers_of_two_lengths_under_one_digest_are_never_mixed() {
    const SHORT: u64 = 5 << 20;
    const LONG: u64 = 8 << 20;
    let place = |n: u8| ResourceKey::from_bytes([n; 32]);
    let mut lab = Lab::new(6);
    let first = lab.asks_at(0, place(10));
    let second = lab.asks_at(1, place(20));
    lab.asks_at(2, place(20));
    assert_eq!(lab.learners(), [(0, None), (1, None)]);
    lab.learned_at(0, place(10), first, named(NEW, LONG));
    assert_eq!(lab.lengths(), [(0, LONG, LONG.to_string())]);
    lab.learned_at(1, place(20), second, named(NEW, SHORT));
    let said = lab.said();
    let known = |(to, message): &(u8, ToPeer)| matches!(message, ToPeer::Known { .. }) || *to == 1;
    assert!(!said.iter().any(known), "it has its own answer: {said:?}");
    assert!(
        said.iter()
            .any(|(to, message)| *to == 2 && matches!(message, ToPeer::Learn { .. })),
        "the next asks: {said:?}"
    );
    // It comes back, with what it has.
    let resume = Resume {
        key: place(20),
        task: NEW,
        meta: ContentMeta {
            length: Some(SHORT),
            ..meta(0, 60)
        },
        resources: vec![KnownResource {
            key: place(20),
            meta: ContentMeta {
                length: Some(SHORT),
                ..meta(0, 60)
            },
        }],
        held: vec![(PieceIndex::new(0), 5)],
        digests: Vec::new(),
        position: PieceIndex::new(5),
        leases: Vec::new(),
        shown: String::new(),
    };
    lab.say(1, FromPeer::Resume(resume));
    assert_eq!(lab.lengths(), []);
    lab.asks_at(3, place(20));
    lab.asks_at(4, place(10));
    for (_, length, said) in lab.lengths() {
        assert_eq!(length.to_string(), said);
    }
    assert_eq!(
        lab.swarm.stats().members,
        2,
        "each of those who have the long one"
    );
}

/// Longer than any history takes: only a write ends what is known.
const FRESH: u64 = 3600;

/// An origin whose file is written through peers, and what each peer and the supernode know of it.
struct Writes {
    lab: Lab,
    version: u8,
    /// The version at the time of each request.
    asked: BTreeMap<Serial, u8>,
    /// Which version each peer that was told to learn will say: the origin answers at once.
    learning: Vec<(u8, Serial, u8)>,
    /// What each peer keeps, and when it learned that.
    kept: BTreeMap<u8, (u8, Time)>,
    away: BTreeSet<u8>,
}

impl Writes {
    fn version_of(task: TaskId) -> u8 {
        task.as_bytes()[0]
    }

    /// Takes in what the supernode said; gives an answer that is older than its request.
    fn hear(&mut self) -> Option<(u8, Serial, u8)> {
        let mut wrong = None;
        for (to, message) in self.lab.said() {
            match message {
                ToPeer::Learn { serial, .. } => self.learning.push((to, serial, self.version)),
                ToPeer::Known { serial, known, .. } => {
                    let version = Self::version_of(known.task);
                    let asked = self.asked.get(&serial).copied().unwrap_or_default();
                    if version < asked {
                        wrong = wrong.or(Some((to, serial, version)));
                    }
                    if known.meta.fresh_for.is_some_and(|left| !left.is_zero()) {
                        self.kept.insert(to, (version, self.lab.now));
                    }
                }
                ToPeer::Changed { .. } => {
                    self.kept.remove(&to);
                }
                _ => {}
            }
        }
        wrong
    }

    fn step(&mut self, what: u8, peer: u8) {
        let there = !self.away.contains(&peer);
        match what {
            0..=3 if there => {
                self.lab.asks(peer, Class::Anonymous);
                self.asked.insert(self.lab.asked, self.version);
            }
            4 | 5 if there => {
                self.version += 1;
                self.kept.remove(&peer);
                self.lab.writes(peer);
            }
            6..=8 if !self.learning.is_empty() => {
                let (peer, serial, version) = self.learning.remove(0);
                let task = TaskId::from_bytes([version; 32]);
                let key = key(Class::Anonymous);
                let meta = meta(0, FRESH);
                self.lab
                    .learned_at(peer, key, serial, Learned::Content { task, meta });
            }
            9 if there => {
                let gone = PeerId::from_bytes([peer; 16]);
                self.lab.handle(Event::Disconnected { peer: gone });
                self.away.insert(peer);
            }
            10 | 11 if !there => {
                self.away.remove(&peer);
                self.lab.connect(peer);
                if let Some((version, since)) = self.kept.get(&peer).copied() {
                    let age = self.lab.now.since(since).as_secs();
                    let task = TaskId::from_bytes([version; 32]);
                    let meta = meta(age, FRESH - age);
                    self.lab.resumes(peer, task, Class::Anonymous, meta);
                }
            }
            _ => self.lab.waits(Duration::from_secs(2)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever learns when, goes, comes back and offers what it knows: no request is answered with what
    /// stood there before a write that the supernode had heard of by then.
    #[test]
    fn no_request_is_answered_with_what_was_replaced_before_it(
        steps in prop::collection::vec((0u8..13, 0u8..4), 0..60),
    ) {
        let mut writes = Writes {
            lab: Lab::new(4),
            version: 0,
            asked: BTreeMap::new(),
            learning: Vec::new(),
            kept: BTreeMap::new(),
            away: BTreeSet::new(),
        };
        // A peer reads it first, so that the supernode knows the file at each write.
        for (what, peer) in [(0, 0), (6, 0)].into_iter().chain(steps) {
            writes.step(what, peer);
            prop_assert_eq!(writes.hear(), None, "to whom, for which request, which version");
        }
    }
}
