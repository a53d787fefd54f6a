//! The supernode's brain against peers that say anything at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pantala_core::{
    ContentMeta, Error, Generation, Kind, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId,
    Time, Who,
    control::{
        FromPeer, Hello, KnownResource, Learned, PeerAddr, Register, Resume, RoundTrip, Serial,
        ToPeer, Trouble,
    },
};
use pantala_swarm::{Config, Event, Locality, Shape, Swarm};
use proptest::prelude::*;

const LENGTH: u64 = 20 << 20;

fn id(n: u8) -> PeerId {
    PeerId::from_bytes([n; 16])
}

fn key(n: u32) -> ResourceKey {
    ResourceKey::from_bytes([n as u8 % 2; 32])
}

fn task(n: u32) -> TaskId {
    TaskId::from_bytes([n as u8 % 3; 32])
}

fn meta(known: bool, n: u32) -> ContentMeta {
    const GENERATIONS: [Generation; 3] = [
        Generation::Validators,
        Generation::Transfer,
        Generation::Digest,
    ];
    ContentMeta {
        length: known.then_some(LENGTH),
        generation: GENERATIONS[n as usize / 19 % 3],
        ..ContentMeta::default()
    }
}

/// Piece numbers that make sense, and some that do not.
fn piece(n: u32) -> PieceIndex {
    PieceIndex::new(match n % 11 {
        9 => u32::MAX - n % 3,
        10 => n,
        _ => n / 11 % 24,
    })
}

fn end(n: u32) -> Option<PieceIndex> {
    (!n.is_multiple_of(3)).then(|| piece(n / 3))
}

fn message(what: u8, n: u32) -> FromPeer {
    let task = task(n);
    let corrupt = Trouble::Corrupt {
        piece: PieceIndex::new(n / 3 % 16),
    };
    let troubles = [Trouble::Slow, Trouble::Gone, Trouble::Unreachable, corrupt];
    let trouble = troubles[n as usize / 5 % 4];
    match what % 14 {
        0 | 1 => FromPeer::Register(Register {
            key: key(n),
            serial: Serial::new(u64::from(n % 4)),
            shown: String::new(),
            start: u64::from(n / 7) << 12,
            content: n.is_multiple_of(5).then_some(task),
        }),
        2 => FromPeer::Learned {
            key: key(n),
            serial: Serial::new(u64::from(n / 3 % 4)),
            learned: match n / 2 % 6 {
                0 => Learned::Unshareable,
                1 => Learned::Unchanged {
                    task,
                    meta: meta(true, n),
                },
                more => Learned::Content {
                    task,
                    meta: meta(more > 2, n),
                },
            },
        },
        3 | 4 => FromPeer::Have {
            task,
            gained: vec![(piece(n), 1 + n / 13 % 40), (piece(n / 2), u32::MAX)]
                .into_iter()
                .take(1 + n as usize / 17 % 2)
                .collect(),
            lost: vec![(piece(n / 5), n / 3 % 4)],
            position: piece(n / 7),
            in_flight: (u64::from(n) * u64::from(n)).wrapping_mul(u64::from(n % 11)),
            reader_bound: n.is_multiple_of(9),
        },
        5 => FromPeer::Sealed {
            task,
            piece: piece(n),
            digest: PieceDigest::from_bytes([n as u8; 32]),
        },
        6 => FromPeer::Ended {
            task,
            length: u64::from(n),
        },
        7 => FromPeer::AskLease {
            task,
            piece: piece(n / 3),
            late: n.is_multiple_of(2),
        },
        8 if n.is_multiple_of(2) => FromPeer::OfferLease {
            task,
            first: piece(n / 11),
            end: end(n),
        },
        8 if n.is_multiple_of(5) => FromPeer::OriginFailed {
            task,
            first: piece(n / 3),
            end: end(n / 5),
            error: match n % 3 {
                0 => Error::new(Who::Origin, Kind::Unreachable, "it is down"),
                1 => Error::new(Who::Origin, Kind::Denied, "not to this one"),
                _ => Error::new(Who::Origin, Kind::Status(503), "not now")
                    .retry_after(Duration::from_secs(u64::from(n % 7))),
            },
        },
        8 => FromPeer::ReturnLease {
            task,
            first: piece(n / 3),
            end: end(n / 5),
        },
        9 => FromPeer::Pulse {
            task,
            bytes: u64::from(n % 2),
        },
        10 => FromPeer::Trouble {
            task,
            peer: id((n / 3 % 8) as u8),
            trouble,
        },
        11 => FromPeer::Leave { task },
        13 => FromPeer::RoundTrips {
            round_trips: (0..8)
                .map(|peer| RoundTrip {
                    peer: id(peer),
                    took: (n >> peer & 1 == 0)
                        .then(|| Duration::from_micros(u64::from(n >> (2 * peer)))),
                })
                .collect(),
        },
        _ => FromPeer::Resume(Resume {
            key: key(n),
            task,
            meta: meta(true, n),
            resources: n
                .is_multiple_of(3)
                .then(|| KnownResource {
                    key: key(n / 2),
                    meta: meta(n.is_multiple_of(2), n),
                })
                .into_iter()
                .collect(),
            held: vec![(piece(n), n % 30)],
            digests: vec![(piece(n), PieceDigest::from_bytes([n as u8 / 2; 32]))],
            position: piece(n / 3),
            leases: (0..n % 3)
                .map(|at| (piece(n / (2 + at)), end(n / 7)))
                .collect(),
            shown: String::new(),
        }),
    }
}

/// What the swarm said, for the checks at the end.
#[derive(Default)]
struct Heard {
    /// Unanswered registrations.
    waiting: BTreeMap<(PeerId, ResourceKey), BTreeSet<Serial>>,
    /// Who was told to learn, and for which request.
    learning: BTreeSet<(ResourceKey, PeerId, Serial)>,
}

fn hear(swarm: &mut Swarm, heard: &mut Heard) -> usize {
    let mut outputs = 0;
    while let Some(output) = swarm.poll_output() {
        outputs += 1;
        let to = output.to;
        match output.message {
            ToPeer::Learn { key, serial, .. } => {
                // Its reader is answered by the origin.
                heard.answered(to, key, |asked| asked == serial);
                heard.learning.insert((key, to, serial));
            }
            ToPeer::Known { key, serial, .. }
            | ToPeer::Direct { key, serial }
            | ToPeer::Refused { key, serial, .. } => {
                heard.answered(to, key, |asked| asked <= serial);
            }
            _ => {}
        }
    }
    outputs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_breaks_nothing(
        stripes in 0u32..4,
        shape in prop::sample::select(vec![Shape::Trees, Shape::Mesh, Shape::PerPiece]),
        lease_pieces in 0u32..3,
        events in prop::collection::vec((0u8..20, 0u8..8, any::<u32>()), 0..200),
    ) {
        let locality = if lease_pieces == 0 { Locality::Measured } else { Locality::Labels };
        let mut swarm = Swarm::new(Config { stripes, shape, lease_pieces, locality, ..Config::default() });
        let (mut now, mut heard) = (Time::ZERO, Heard::default());
        for (what, peer, n) in events {
            let peer = id(peer);
            let event = match what {
                0..=12 | 18 => Event::Message { peer, message: message(what.min(13), n) },
                19 => Event::Message { peer, message: FromPeer::Changed { key: key(n) } },
                13 | 14 => Event::Connected { hello: hello(peer) },
                15 => Event::Disconnected { peer },
                _ => {
                    now = now + Duration::from_millis(u64::from(n % 3000));
                    Event::Tick
                }
            };
            swarm.handle(now, event);
            let outputs = hear(&mut swarm, &mut heard);
            prop_assert!(outputs < 400, "{outputs} messages for one event");
        }
        for n in 0..8 {
            swarm.handle(now, Event::Disconnected { peer: id(n) });
            hear(&mut swarm, &mut heard);
        }
        let stats = swarm.stats();
        prop_assert_eq!(stats.peers, 0);
        prop_assert_eq!(stats.members, 0, "a member that has gone");
        prop_assert_eq!(stats.leases, 0, "a lease of nobody");
        now = now + Duration::from_secs(1000);
        swarm.handle(now, Event::Tick);
        swarm.handle(now + Duration::from_secs(1), Event::Tick);
        prop_assert_eq!(swarm.stats().tasks, 0, "a task of nobody");
    }

    #[test]
    fn every_registration_is_answered_when_peers_behave(
        events in prop::collection::vec((0u8..6, 0u8..8, any::<u32>()), 0..100),
    ) {
        let mut swarm = Swarm::new(Config::default());
        let (mut now, mut heard) = (Time::ZERO, Heard::default());
        let mut connected = [false; 8];
        let mut serial = Serial::NONE;
        for (what, peer, n) in events {
            let at = usize::from(peer);
            let peer = id(peer);
            match what {
                0 => {
                    swarm.handle(now, Event::Disconnected { peer });
                    connected[at] = false;
                    heard.waiting.retain(|(waiting, _), _| *waiting != peer);
                }
                1 => {
                    if let Some((key, peer, serial)) = heard.learning.pop_first() {
                        learn(&mut swarm, now, peer, serial, key);
                    }
                }
                2 if connected[at] => {
                    swarm.handle(now, Event::Message { peer, message: FromPeer::Changed { key: key(n) } });
                }
                _ => {
                    if !connected[at] {
                        swarm.handle(now, Event::Connected { hello: hello(peer) });
                        connected[at] = true;
                    }
                    let FromPeer::Register(mut register) = message(0, n) else { unreachable!() };
                    serial = serial.next();
                    register.serial = serial;
                    heard.waiting.entry((peer, register.key)).or_default().insert(serial);
                    swarm.handle(now, Event::Message { peer, message: FromPeer::Register(register) });
                }
            }
            now = now + Duration::from_millis(u64::from(n % 50));
            hear(&mut swarm, &mut heard);
        }
        // Whoever learns says what; a learner that has gone is replaced.
        for _ in 0..40 {
            for (key, peer, serial) in std::mem::take(&mut heard.learning) {
                learn(&mut swarm, now, peer, serial, key);
            }
            hear(&mut swarm, &mut heard);
            now = now + Duration::from_secs(1);
            swarm.handle(now, Event::Tick);
            hear(&mut swarm, &mut heard);
        }
        prop_assert!(heard.waiting.is_empty(), "no answer for {:?}", heard.waiting);
    }
}

fn hello(peer: PeerId) -> Hello {
    Hello {
        peer: PeerAddr {
            id: peer,
            addr: ([127, 0, 0, 1], 1).into(),
        },
        labels: Vec::new(),
    }
}

impl Heard {
    /// Those requests of a peer need no further answer.
    fn answered(&mut self, peer: PeerId, key: ResourceKey, which: impl Fn(Serial) -> bool) {
        let waiting = self.waiting.entry((peer, key)).or_default();
        waiting.retain(|asked| !which(*asked));
        if waiting.is_empty() {
            self.waiting.remove(&(peer, key));
        }
    }
}

fn learn(swarm: &mut Swarm, now: Time, peer: PeerId, serial: Serial, key: ResourceKey) {
    let learned = Learned::Content {
        task: TaskId::from_bytes(*key.as_bytes()),
        meta: meta(true, 0),
    };
    let message = FromPeer::Learned {
        key,
        serial,
        learned,
    };
    swarm.handle(now, Event::Message { peer, message });
}
