//! What stands behind a URL: who asks the origin, who waits for it, and which of two answers counts.

use std::{collections::VecDeque, time::Duration};

use pantala_core::{
    Class, ContentMeta, Error, Kind, PeerId, PieceIndex, ResourceKey, TaskId, Time, Validators,
    Who,
    control::{FromPeer, Hello, KnownResource, Learned, PeerAddr, Register, Resume, ToPeer},
};
use pantala_swarm::{Config, Event, Swarm};

const OLD: TaskId = TaskId::from_bytes([5; 32]);
const NEW: TaskId = TaskId::from_bytes([6; 32]);

/// A supernode and what it said to whom, first things first.
struct Lab {
    swarm: Swarm,
    now: Time,
    said: VecDeque<(u8, ToPeer)>,
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
        let register = Register {
            key: key(class),
            shown: String::new(),
            start: 0,
            content: None,
        };
        self.say(peer, FromPeer::Register(register));
    }

    fn learned(&mut self, peer: u8, class: Class, learned: Learned) {
        let key = key(class);
        self.say(peer, FromPeer::Learned { key, learned });
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
