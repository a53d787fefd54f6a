//! Whose word counts for what: who says what a content is, where it ends, that it is wrong, and what
//! becomes of what contradicts that.

use std::collections::BTreeMap;

use pantala_core::{
    ContentMeta, Generation, Geometry, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId, Time,
    control::{
        FromPeer, Hello, Known, KnownResource, Learned, PeerAddr, Register, Resume, ToPeer, Trouble,
    },
};
use pantala_swarm::{Config, Event, Swarm};
use proptest::prelude::*;

const KEY: ResourceKey = ResourceKey::from_bytes([1; 32]);
const TASK: TaskId = TaskId::from_bytes([2; 32]);
const MIB: u64 = 1 << 20;

fn id(peer: u8) -> PeerId {
    PeerId::from_bytes([peer; 16])
}

fn p(piece: u32) -> PieceIndex {
    PieceIndex::new(piece)
}

fn digest(byte: u8) -> PieceDigest {
    PieceDigest::from_bytes([byte; 32])
}

/// Content of eight pieces that is named as told.
fn content(generation: Generation) -> ContentMeta {
    ContentMeta {
        length: Some(8 * MIB),
        ranges: true,
        generation,
        ..ContentMeta::default()
    }
}

/// A supernode, and all that it has said to each peer.
struct Lab {
    swarm: Swarm,
    now: Time,
    said: BTreeMap<u8, Vec<ToPeer>>,
}

impl Lab {
    fn new(config: Config) -> Self {
        Self {
            swarm: Swarm::new(config),
            now: Time::ZERO,
            said: BTreeMap::new(),
        }
    }

    /// A supernode, the first peer as the one that learned the content, and more as its readers.
    fn with(meta: ContentMeta, readers: u8) -> Self {
        let mut lab = Self::new(Config::default());
        lab.register(1);
        lab.learned(1, TASK, meta);
        for peer in 2..2 + readers {
            lab.register(peer);
        }
        lab
    }

    fn handle(&mut self, event: Event) {
        self.swarm.handle(self.now, event);
        while let Some(output) = self.swarm.poll_output() {
            let to = output.to.as_bytes()[0];
            self.said.entry(to).or_default().push(output.message);
        }
    }

    fn say(&mut self, peer: u8, message: FromPeer) {
        let peer = id(peer);
        self.handle(Event::Message { peer, message });
    }

    fn wait(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(20) {
            self.now = self.now + std::time::Duration::from_millis(20);
            self.handle(Event::Tick);
        }
    }

    fn connect(&mut self, peer: u8) {
        let addr = ([127, 0, 0, 1], u16::from(peer)).into();
        let peer = PeerAddr { id: id(peer), addr };
        let labels = Vec::new();
        self.handle(Event::Connected {
            hello: Hello { peer, labels },
        });
    }

    fn register(&mut self, peer: u8) {
        self.connect(peer);
        self.ask_again(peer);
    }

    /// A peer that is connected asks for the content.
    fn ask_again(&mut self, peer: u8) {
        self.say(
            peer,
            FromPeer::Register(Register {
                key: KEY,
                shown: String::new(),
                start: 0,
                content: None,
            }),
        );
    }

    fn learned(&mut self, peer: u8, task: TaskId, meta: ContentMeta) {
        let learned = Learned::Content { task, meta };
        self.say(peer, FromPeer::Learned { key: KEY, learned });
    }

    fn sealed(&mut self, peer: u8, piece: u32, digest: PieceDigest) {
        self.say(
            peer,
            FromPeer::Sealed {
                task: TASK,
                piece: p(piece),
                digest,
            },
        );
    }

    fn have(&mut self, peer: u8, first: u32, count: u32, position: u32) {
        self.say(
            peer,
            FromPeer::Have {
                task: TASK,
                gained: (count > 0)
                    .then_some((p(first), count))
                    .into_iter()
                    .collect(),
                lost: Vec::new(),
                position: p(position),
                in_flight: 0,
                reader_bound: false,
            },
        );
    }

    fn asks(&mut self, peer: u8, piece: u32) {
        self.say(
            peer,
            FromPeer::AskLease {
                task: TASK,
                piece: p(piece),
                late: false,
            },
        );
    }

    fn accuses(&mut self, by: u8, of: u8, piece: u32) {
        self.say(
            by,
            FromPeer::Trouble {
                task: TASK,
                peer: id(of),
                trouble: Trouble::Corrupt { piece: p(piece) },
            },
        );
    }

    fn resume(&mut self, peer: u8, meta: ContentMeta, held: u32, leases: Vec<(u32, Option<u32>)>) {
        let leases = leases.into_iter();
        self.say(
            peer,
            FromPeer::Resume(Resume {
                key: KEY,
                task: TASK,
                resources: vec![KnownResource {
                    key: KEY,
                    meta: ContentMeta {
                        fresh_for: Some(std::time::Duration::from_secs(60)),
                        ..meta.clone()
                    },
                }],
                meta,
                held: (held > 0).then_some((p(0), held)).into_iter().collect(),
                digests: (0..held).map(|piece| (p(piece), digest(1))).collect(),
                position: p(held),
                leases: leases.map(|(first, end)| (p(first), end.map(p))).collect(),
                shown: String::new(),
            }),
        );
    }

    /// What a peer was told since this was asked last.
    fn told(&mut self, peer: u8) -> Vec<ToPeer> {
        self.said.remove(&peer).unwrap_or_default()
    }

    /// The leases that a peer was granted since its words were looked at last.
    fn leases(&mut self, peer: u8) -> Vec<(u32, Option<u32>)> {
        let leases = self
            .told(peer)
            .into_iter()
            .filter_map(|message| match message {
                ToPeer::Lease { first, end, .. } => Some((first.get(), end.map(PieceIndex::get))),
                _ => None,
            });
        leases.collect()
    }

    fn known(&mut self, peer: u8) -> Known {
        let known = self
            .told(peer)
            .into_iter()
            .rev()
            .find_map(|message| match message {
                ToPeer::Known { known, .. } => Some(known),
                _ => None,
            });
        known.expect("it is told what there is")
    }
}

#[test]
fn a_single_transfer_never_moves() {
    for end in ["leaves", "is silent", "gives it back"] {
        let mut lab = Lab::with(content(Generation::Transfer), 2);
        assert_eq!(lab.leases(1), [(0, None)]);
        lab.sealed(1, 0, digest(1));
        lab.have(1, 0, 1, 1);
        match end {
            "leaves" => lab.handle(Event::Disconnected { peer: id(1) }),
            "is silent" => {}
            _ => lab.say(
                1,
                FromPeer::ReturnLease {
                    task: TASK,
                    first: p(1),
                    end: None,
                },
            ),
        }
        lab.wait(10_000);
        for _ in 0..8 {
            for peer in [2, 3] {
                lab.asks(peer, 1);
            }
            lab.wait(500);
        }
        for peer in [2, 3] {
            let told = lab.told(peer);
            let leased = told.iter().any(|told| matches!(told, ToPeer::Lease { .. }));
            assert!(!leased, "{end}: {told:?}");
            let over = ToPeer::Unobtainable {
                task: TASK,
                piece: p(1),
            };
            // Who holds it may only be busy.
            assert_eq!(told.contains(&over), end != "is silent", "{end}: {told:?}");
        }
    }
}

#[test]
fn who_comes_after_a_single_transfer_broke_learns_anew() {
    let mut lab = Lab::with(content(Generation::Transfer), 1);
    lab.sealed(1, 0, digest(1));
    lab.have(2, 0, 1, 1);
    lab.register(3);
    assert_eq!(lab.known(3).task, TASK, "the transfer goes on");
    lab.handle(Event::Disconnected { peer: id(1) });
    // The first piece is there; the second never will be.
    lab.register(4);
    let told = lab.told(4);
    let learns = |told: &ToPeer| {
        matches!(
            told,
            ToPeer::Learn {
                key: KEY,
                stale: None
            }
        )
    };
    assert!(told.iter().any(learns), "{told:?}");
    let other = TaskId::from_bytes([3; 32]);
    lab.learned(4, other, content(Generation::Transfer));
    lab.ask_again(2);
    assert_eq!(lab.known(2).task, other);
}

#[test]
fn a_single_transfer_that_came_whole_is_as_good_as_any() {
    let mut lab = Lab::with(content(Generation::Transfer), 1);
    for piece in 0..8 {
        lab.sealed(1, piece, digest(1));
    }
    lab.have(2, 0, 8, 8);
    lab.handle(Event::Disconnected { peer: id(1) });
    lab.register(3);
    assert_eq!(lab.known(3).task, TASK);
}

#[test]
fn other_contents_leases_move_on() {
    for generation in [Generation::Validators, Generation::Digest] {
        let mut lab = Lab::with(content(generation), 1);
        lab.told(2);
        lab.handle(Event::Disconnected { peer: id(1) });
        assert_eq!(lab.leases(2), [(0, None)], "{generation:?}");
    }
}

#[test]
fn a_digest_is_never_overwritten() {
    let mut lab = Lab::with(content(Generation::Validators), 2);
    lab.sealed(1, 0, digest(1));
    lab.handle(Event::Disconnected { peer: id(1) });
    let holder = if lab.leases(2).is_empty() { 3 } else { 2 };
    let other = 5 - holder;
    // Nobody holds the first piece any more.
    lab.asks(holder, 0);
    lab.told(holder);
    lab.told(other);
    // The origin gave it something else under the same name, or it lies.
    lab.sealed(holder, 0, digest(2));
    let digests = |told: Vec<ToPeer>| -> Vec<PieceDigest> {
        let digests = told.into_iter().filter_map(|message| match message {
            ToPeer::Digests { digests, .. } => Some(digests),
            _ => None,
        });
        digests.flatten().map(|(_, digest)| digest).collect()
    };
    let told = lab.told(holder);
    let ended = |told: &ToPeer| matches!(told, ToPeer::LeaseEnded { .. });
    assert!(told.iter().any(ended), "it brings no more: {told:?}");
    assert_eq!(digests(told), [digest(1)]);
    let told = lab.told(other);
    let leased = |told: &ToPeer| matches!(told, ToPeer::Lease { .. });
    assert!(told.iter().any(leased), "somebody else does: {told:?}");
    assert!(digests(told).is_empty());
    lab.register(9);
    assert_eq!(lab.known(9).digests, [(p(0), digest(1))]);
}

/// The length alone does not say what a content was cut into.
#[test]
fn newcomers_cut_content_as_those_who_began_with_it() {
    let endless = ContentMeta {
        length: None,
        ..content(Generation::Validators)
    };
    let mut lab = Lab::with(endless.clone(), 0);
    let begun = Geometry::of(&endless);
    let length = 3 << 30;
    let pieces = begun.ended(length).pieces().unwrap();
    for piece in 0..pieces {
        lab.sealed(1, piece, digest(1));
    }
    lab.say(1, FromPeer::Ended { task: TASK, length });
    lab.register(2);
    let known = lab.known(2);
    assert_eq!(known.meta.length, Some(length));
    assert_eq!(Geometry::of(&known.meta), begun.ended(length));
    // And after a restart of the supernode.
    let mut lab = Lab::new(Config::default());
    lab.connect(2);
    lab.resume(2, known.meta, 4, Vec::new());
    lab.register(3);
    assert_eq!(Geometry::of(&lab.known(3).meta), begun.ended(length));
}

#[test]
fn the_end_is_what_the_lease_holder_says() {
    let endless = ContentMeta {
        length: None,
        ..content(Generation::Validators)
    };
    let ended = |length| FromPeer::Ended { task: TASK, length };
    let heard = |lab: &mut Lab| {
        let told = lab.told(2);
        told.iter().any(|told| matches!(told, ToPeer::Ended { .. }))
    };
    let mut lab = Lab::with(endless.clone(), 2);
    lab.connect(9);
    lab.sealed(1, 0, digest(1));
    for liar in [3, 9] {
        lab.say(liar, ended(MIB));
        assert!(!heard(&mut lab), "{liar} may not say so");
    }
    // Others hold what lies beyond.
    lab.have(3, 4, 1, 0);
    lab.say(1, ended(MIB + 1));
    assert!(!heard(&mut lab), "somebody holds more");
    let granted = [lab.leases(2), lab.leases(3)].concat();
    assert!(!granted.is_empty(), "somebody else looks where it ends");

    let mut lab = Lab::with(endless, 2);
    lab.sealed(1, 0, digest(1));
    lab.sealed(1, 1, digest(1));
    lab.say(1, ended(MIB + 1));
    assert!(heard(&mut lab));
}

#[test]
fn wrong_as_a_whole_says_who_has_read_it() {
    let poison = FromPeer::Poison { task: TASK };
    let heard = |lab: &mut Lab| {
        let told = lab.told(1);
        told.iter()
            .any(|told| matches!(told, ToPeer::Poisoned { .. }))
    };
    let mut lab = Lab::with(content(Generation::Digest), 2);
    lab.connect(9);
    for peer in [2, 9] {
        lab.say(peer, poison.clone());
        assert!(!heard(&mut lab), "{peer} cannot know");
    }
    lab.have(2, 0, 8, 8);
    lab.say(2, poison.clone());
    assert!(heard(&mut lab));
    // What has no digest in its name cannot be held against one.
    let mut lab = Lab::with(content(Generation::Validators), 1);
    lab.have(2, 0, 8, 8);
    lab.say(2, poison);
    assert!(!heard(&mut lab));
}

/// A supernode that lost its memory learns what is leased before it leases anything twice.
#[test]
fn a_lease_outlives_its_supernode_only_by_the_next_ones_word() {
    let meta = content(Generation::Validators);
    let mut lab = Lab::new(Config::default());
    for peer in 1..=3 {
        lab.connect(peer);
    }
    lab.resume(1, meta.clone(), 2, vec![(2, None)]);
    assert_eq!(lab.leases(1), [(2, None)], "it goes on");
    lab.resume(2, meta.clone(), 2, vec![(2, None)]);
    let told = lab.told(2);
    let ended = ToPeer::LeaseEnded {
        task: TASK,
        first: p(2),
        end: None,
    };
    assert!(told.contains(&ended), "another has it: {told:?}");
    // Others hold the beginning of it, and the end of it is leased.
    lab.resume(3, meta, 0, vec![(0, Some(6))]);
    let told = lab.told(3);
    assert!(
        !told.iter().any(|told| matches!(told, ToPeer::Lease { .. })),
        "{told:?}"
    );
    assert_eq!(lab.swarm.stats().leases, 1);
}

#[test]
fn a_single_transfer_goes_on_after_the_supernode_came_back() {
    let meta = content(Generation::Transfer);
    let mut lab = Lab::new(Config::default());
    lab.connect(1);
    lab.connect(2);
    lab.resume(2, meta.clone(), 2, Vec::new());
    lab.asks(2, 3);
    assert!(lab.leases(2).is_empty(), "it has no transfer");
    lab.resume(1, meta, 3, vec![(3, None)]);
    assert_eq!(lab.leases(1), [(3, None)]);
}

#[test]
fn one_accuser_disarms_one() {
    let mut lab = Lab::with(content(Generation::Validators), 21);
    lab.sealed(1, 0, digest(1));
    for peer in 2..=21 {
        lab.have(peer, 0, 1, 1);
    }
    lab.handle(Event::Disconnected { peer: id(1) });
    let accuser = 22;
    for peer in 2..=21 {
        lab.accuses(accuser, peer, 0);
        lab.accuses(accuser, peer, 0);
    }
    lab.register(30);
    lab.told(30);
    lab.asks(30, 0);
    let told = lab.told(30);
    let leased = |told: &ToPeer| matches!(told, ToPeer::Lease { .. });
    assert!(!told.iter().any(leased), "19 still hold it: {told:?}");
    // Two accusers are believed: whoever lies to many is found out by many.
    lab.accuses(23 - 18, 7, 0);
    lab.told(30);
    lab.register(31);
    lab.told(31);
    for _ in 0..3 {
        lab.asks(31, 0);
    }
    let named: Vec<PeerId> = lab.told(31).into_iter().flat_map(parents).collect();
    assert!(!named.contains(&id(7)), "{named:?}");
}

fn parents(message: ToPeer) -> Vec<PeerId> {
    match message {
        ToPeer::Parents { parents, .. } => {
            let preferred = parents.preferred.into_iter().flatten();
            preferred
                .chain(parents.others)
                .map(|addr| addr.id)
                .collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_peer_with_too_many_tasks_is_told_so() {
    let config = Config {
        tasks_per_peer: 3,
        ..Config::default()
    };
    let mut lab = Lab::new(config);
    lab.connect(1);
    for n in 0..6 {
        let task = TaskId::from_bytes([n; 32]);
        let resume = Resume {
            key: ResourceKey::from_bytes([n + 50; 32]),
            task,
            meta: content(Generation::Validators),
            resources: Vec::new(),
            held: vec![(p(0), 1)],
            digests: vec![(p(0), digest(1))],
            position: p(1),
            leases: Vec::new(),
            shown: String::new(),
        };
        lab.say(1, FromPeer::Resume(resume));
        let told = lab.told(1);
        let unlisted = told.contains(&ToPeer::Unlisted { task });
        assert_eq!(unlisted, n >= 3, "{n}: {told:?}");
    }
    // And a reader goes to the origin on its own.
    lab.ask_again(1);
    assert!(lab.told(1).contains(&ToPeer::Direct { key: KEY }));
    assert_eq!(lab.swarm.stats().members, 3);
}

/// Costs are counted in pieces that the brain looked at: a message that names more is heard as far as
/// one message may cost.
#[test]
fn one_message_speaks_of_so_many_pieces() {
    let endless = ContentMeta {
        length: None,
        ..content(Generation::Validators)
    };
    let mut lab = Lab::with(endless, 1);
    let before = lab.swarm.stats().pieces_heard;
    for _ in 0..20 {
        lab.say(
            2,
            FromPeer::Have {
                task: TASK,
                gained: vec![(p(0), u32::MAX); 60],
                lost: vec![(p(1), u32::MAX - 1); 60],
                position: p(0),
                in_flight: 0,
                reader_bound: false,
            },
        );
    }
    let heard = lab.swarm.stats().pieces_heard - before;
    assert!(heard <= 20 * 4096, "{heard}");
    // What is within the bound is heard to its last piece.
    lab.have(2, 8192, 4096, 0);
    assert_eq!(lab.swarm.stats().pieces_heard - before, heard + 4096);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever its members do and say, a single transfer is leased once, to who began it.
    #[test]
    fn a_single_transfer_is_leased_once(
        steps in prop::collection::vec((0u8..8, 1u8..6, 0u32..8), 0..80),
    ) {
        let mut lab = Lab::with(content(Generation::Transfer), 4);
        for (what, peer, n) in steps {
            match what {
                0 => lab.sealed(peer, n, digest(peer)),
                1 => lab.have(peer, n, 1, n),
                2 => lab.asks(peer, n),
                3 => lab.wait(u64::from(n) * 300),
                4 => lab.say(peer, FromPeer::ReturnLease { task: TASK, first: p(n), end: None }),
                5 => lab.say(peer, FromPeer::OfferLease { task: TASK, first: p(n), end: None }),
                6 => lab.accuses(peer, n as u8, n),
                _ => lab.handle(Event::Disconnected { peer: id(peer) }),
            }
        }
        let mut granted = Vec::new();
        for peer in 1..6 {
            granted.extend(lab.leases(peer).into_iter().map(|lease| (peer, lease)));
        }
        prop_assert_eq!(granted, [(1, (0, None))]);
    }
}

/// What it costs, in members looked at, that one of a swarm has a slow reader, complains, asks and
/// leaves, while all others have what they want.
fn cost_of_one(members: u32) -> u64 {
    let name = |n: u32| {
        let digest = PieceDigest::of(&n.to_be_bytes());
        PeerId::try_from(&digest.as_bytes()[..16]).unwrap()
    };
    let mut swarm = Swarm::new(Config::default());
    let mut now = Time::ZERO;
    let tell = |swarm: &mut Swarm, now: Time, event| {
        swarm.handle(now, event);
        while swarm.poll_output().is_some() {}
    };
    for n in 0..members {
        let addr = ([127, 0, 0, 1], 1).into();
        let peer = PeerAddr { id: name(n), addr };
        let labels = Vec::new();
        tell(
            &mut swarm,
            now,
            Event::Connected {
                hello: Hello { peer, labels },
            },
        );
        let held = if n == 7 { 3 } else { 8 };
        let resume = Resume {
            key: KEY,
            task: TASK,
            resources: Vec::new(),
            meta: content(Generation::Validators),
            held: vec![(p(0), held)],
            digests: Vec::new(),
            position: p(held),
            leases: Vec::new(),
            shown: String::new(),
        };
        let message = FromPeer::Resume(resume);
        tell(
            &mut swarm,
            now,
            Event::Message {
                peer: name(n),
                message,
            },
        );
    }
    // Until nothing is to be seen of how they came.
    for _ in 0..200 {
        now = now + std::time::Duration::from_millis(20);
        tell(&mut swarm, now, Event::Tick);
    }
    let before = swarm.stats().members_looked_at;
    let task = TASK;
    let reader_bound = |reader_bound| FromPeer::Have {
        task,
        gained: Vec::new(),
        lost: Vec::new(),
        position: p(3),
        in_flight: 0,
        reader_bound,
    };
    let words = [
        reader_bound(true),
        FromPeer::AskLease {
            task,
            piece: p(3),
            late: true,
        },
        FromPeer::Trouble {
            task,
            peer: name(5),
            trouble: Trouble::Slow,
        },
        FromPeer::Trouble {
            task,
            peer: name(5),
            trouble: Trouble::Gone,
        },
        reader_bound(false),
        FromPeer::Leave { task },
    ];
    for message in words {
        for _ in 0..50 {
            now = now + std::time::Duration::from_millis(20);
            tell(&mut swarm, now, Event::Tick);
        }
        tell(
            &mut swarm,
            now,
            Event::Message {
                peer: name(7),
                message,
            },
        );
    }
    swarm.stats().members_looked_at - before
}

#[test]
fn one_member_costs_as_much_in_a_large_swarm() {
    let (small, large) = (cost_of_one(1200), cost_of_one(4800));
    assert!(
        large <= 2 * small + 1000,
        "{small} in a small swarm, {large} in a large one"
    );
}
