//! How soon readers end when their origin dies: several peers with a supernode's brain between them, each
//! of them with the brain of a reader, against one peer on its own. The clock is the test's.

use std::{collections::BTreeSet, time::Duration};

use pantala_core::{
    Class, ContentMeta, Error, Kind, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId, Time,
    Who,
    control::{FromPeer, Hello, Learned, Parents, PeerAddr, Register, Serial, ToPeer},
};
use pantala_swarm::{Config, Event, Swarm};
use pantala_window::{Action, Event as Happened, ParentId, Picker, ReaderId, RunId};

const TASK: TaskId = TaskId::from_bytes([5; 32]);
const PIECE: u64 = 1 << 20;
const PIECES: u32 = 16;
/// The pieces that came before the origin died; all peers have them.
const HELD: u32 = 8;
const STEP: Duration = Duration::from_millis(5);
/// How often a peer that asks the origin says that it lives.
const PULSE: u32 = 20;
/// The pauses between an origin client's attempts, half of each by lot.
const PAUSES: Duration = Duration::from_millis(1500);

fn id(peer: usize) -> PeerId {
    PeerId::from_bytes([peer as u8; 16])
}

fn p(piece: u32) -> PieceIndex {
    PieceIndex::new(piece)
}

fn dead() -> Error {
    Error::new(Who::Origin, Kind::Unreachable, "refused the connection")
}

struct Peer {
    picker: Picker,
    /// Transfers under way, and when each fails.
    runs: Vec<(RunId, Time)>,
    known: BTreeSet<PeerId>,
    ended: Option<Time>,
}

struct Lab {
    swarm: Swarm,
    now: Time,
    peers: Vec<Peer>,
    lot: u64,
}

impl Lab {
    /// So many peers at the moment in which their origin dies.
    fn new(count: usize, seed: u64) -> Self {
        let peer = |number: usize| {
            let config = pantala_window::Config {
                seed: seed.wrapping_add(number as u64),
                ..pantala_window::Config::default()
            };
            Peer {
                picker: Picker::new(config, PIECE, Time::ZERO),
                runs: Vec::new(),
                known: BTreeSet::new(),
                ended: None,
            }
        };
        let mut lab = Self {
            swarm: Swarm::new(Config {
                seed,
                ..Config::default()
            }),
            now: Time::ZERO,
            peers: (0..count).map(peer).collect(),
            lot: seed,
        };
        for number in 0..count {
            lab.begin(number);
        }
        for number in 0..count {
            lab.has_read(number);
        }
        lab
    }

    fn begin(&mut self, number: usize) {
        let addr = ([127, 0, 0, 1], 1000 + number as u16).into();
        let peer = id(number);
        let hello = Hello {
            peer: PeerAddr { id: peer, addr },
            labels: Vec::new(),
        };
        self.swarm.handle(self.now, Event::Connected { hello });
        let key = ResourceKey::of_url("http://origin.example/f", b"", Class::Anonymous);
        let serial = Serial::new(1);
        let register = Register {
            serial,
            key,
            shown: String::new(),
            start: 0,
            content: None,
        };
        self.say(number, FromPeer::Register(register));
        let picker = &mut self.peers[number].picker;
        picker.handle(self.now, Happened::Ended { pieces: PIECES });
        let (reader, first, end) = (ReaderId(1), p(0), None);
        picker.handle(self.now, Happened::ReaderOpened { reader, first, end });
        for piece in (0..HELD).map(p) {
            picker.handle(self.now, Happened::Sealed { piece });
        }
        let next = p(HELD);
        picker.handle(self.now, Happened::ReaderTook { reader, next });
        if number == 0 {
            let meta = ContentMeta {
                length: Some(u64::from(PIECES) * PIECE),
                ranges: true,
                ..ContentMeta::default()
            };
            let learned = Learned::Content { task: TASK, meta };
            self.say(
                0,
                FromPeer::Learned {
                    serial,
                    key,
                    learned,
                },
            );
        }
    }

    fn has_read(&mut self, number: usize) {
        if number == 0 {
            for piece in (0..HELD).map(p) {
                let (task, digest) = (TASK, PieceDigest::of(&piece.get().to_le_bytes()));
                self.say(
                    0,
                    FromPeer::Sealed {
                        task,
                        piece,
                        digest,
                    },
                );
            }
        }
        self.say(
            number,
            FromPeer::Have {
                task: TASK,
                gained: vec![(p(0), HELD)],
                lost: Vec::new(),
                position: p(HELD),
                in_flight: 0,
                reader_bound: false,
            },
        );
    }

    fn say(&mut self, number: usize, message: FromPeer) {
        let peer = id(number);
        self.swarm
            .handle(self.now, Event::Message { peer, message });
        while let Some(output) = self.swarm.poll_output() {
            self.hear(usize::from(output.to.as_bytes()[0]), output.message);
        }
    }

    fn hear(&mut self, number: usize, message: ToPeer) {
        let (now, peer) = (self.now, &mut self.peers[number]);
        match message {
            ToPeer::Lease { first, end, .. } => peer
                .picker
                .handle(now, Happened::LeaseGranted { first, end }),
            ToPeer::LeaseEnded { first, end, .. } => {
                peer.picker.handle(now, Happened::LeaseEnded { first, end });
            }
            ToPeer::OriginFailed { .. } => peer.picker.handle(now, Happened::OriginFailed),
            ToPeer::Parents { parents, .. } => peer.parents(now, &parents),
            ToPeer::Known { known, .. } => peer.parents(now, &known.parents),
            _ => {}
        }
    }

    /// A time that an origin client takes until it gives up.
    fn attempt(&mut self) -> Duration {
        self.lot = self.lot.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.lot ^ (self.lot >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        PAUSES.mul_f64(0.5 + 0.5 * (mixed >> 40) as f64 / (1u64 << 24) as f64)
    }

    fn step(&mut self, steps: u32) {
        self.now = self.now + STEP;
        for number in 0..self.peers.len() {
            if self.peers[number].ended.is_some() {
                continue;
            }
            let now = self.now;
            let (failed, runs) = { std::mem::take(&mut self.peers[number].runs) }
                .into_iter()
                .partition(|&(_, at)| at <= now);
            self.peers[number].runs = runs;
            let failed: Vec<(RunId, Time)> = failed;
            for (run, _) in failed {
                let (fatal, rest) = (false, Duration::ZERO);
                let failed = Happened::RunFailed { run, fatal, rest };
                self.peers[number].picker.handle(now, failed);
            }
            if steps.is_multiple_of(PULSE) && !self.peers[number].runs.is_empty() {
                let (task, bytes) = (TASK, 0);
                self.say(number, FromPeer::Pulse { task, bytes });
            }
            self.peers[number].picker.handle(now, Happened::Tick);
            self.carry_out(number);
        }
        self.swarm.handle(self.now, Event::Tick);
        while let Some(output) = self.swarm.poll_output() {
            self.hear(usize::from(output.to.as_bytes()[0]), output.message);
        }
    }

    fn carry_out(&mut self, number: usize) {
        let task = TASK;
        while let Some(action) = self.peers[number].picker.poll_action() {
            match action {
                Action::OpenRun { run, .. } => {
                    let fails = self.now + self.attempt();
                    self.peers[number].runs.push((run, fails));
                }
                Action::StopRun { run } => {
                    self.peers[number].runs.retain(|&(other, _)| other != run);
                }
                Action::AskLease { piece, late } => {
                    self.say(number, FromPeer::AskLease { task, piece, late });
                }
                Action::ReturnLease { first, end } => {
                    self.say(number, FromPeer::ReturnLease { task, first, end });
                }
                Action::OfferLease { first, end } => {
                    self.say(number, FromPeer::OfferLease { task, first, end });
                }
                Action::BlameOrigin { first, end } => {
                    let error = dead();
                    self.say(
                        number,
                        FromPeer::OriginFailed {
                            task,
                            first,
                            end,
                            error,
                        },
                    );
                }
                Action::GiveUp => {
                    self.peers[number].ended = Some(self.now);
                    let peer = id(number);
                    self.swarm.handle(self.now, Event::Disconnected { peer });
                    return;
                }
                _ => {}
            }
        }
    }

    /// When the last reader has ended.
    fn end(mut self) -> Duration {
        for steps in 0..20_000 {
            if self.peers.iter().all(|peer| peer.ended.is_some()) {
                return self.now.since(Time::ZERO);
            }
            self.step(steps);
        }
        panic!("a reader waits for ever");
    }
}

impl Peer {
    /// All parents can be reached, and have what came before the origin died.
    fn parents(&mut self, now: Time, parents: &Parents) {
        let name = |id: PeerId| ParentId(u64::from(id.as_bytes()[0]));
        let preferred = parents.preferred.iter().flatten();
        for addr in preferred.chain(&parents.others) {
            if self.known.insert(addr.id) {
                let (parent, first, count) = (name(addr.id), p(0), HELD);
                self.picker.handle(now, Happened::ParentUp { parent });
                let holds = Happened::ParentHolds {
                    parent,
                    first,
                    count,
                };
                self.picker.handle(now, holds);
            }
        }
        let stripes = parents.preferred.iter();
        let stripes = stripes.map(|addr| addr.as_ref().map(|addr| name(addr.id)));
        let stripes = stripes.collect();
        self.picker.handle(now, Happened::Preferred { stripes });
    }
}

#[test]
fn many_end_as_soon_as_one() {
    let all: Duration = (0..40).map(|seed| Lab::new(1, seed).end()).sum();
    let alone = all / 40;
    // One alone makes three transfers, each of several attempts, and rests between them.
    assert!(alone < 4 * PAUSES, "{alone:?}");
    for count in [2, 3, 5, 12, 40] {
        for seed in 0..40 {
            let together = Lab::new(count, seed).end();
            assert!(
                together <= alone * 3 / 2,
                "{count} peers, seed {seed}: {together:?}, one alone {alone:?}"
            );
        }
    }
}
