//! A supernode's brain, the peers that say things to it, and all that it says to them.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use pantala_core::{
    ContentMeta, Generation, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId, Time,
    control::{
        FromPeer, Hello, Known, KnownResource, Learned, PeerAddr, Register, Resume, Serial, ToPeer,
        Trouble,
    },
};
use pantala_swarm::{Config, Event, Swarm};

pub const KEY: ResourceKey = ResourceKey::from_bytes([1; 32]);
pub const TASK: TaskId = TaskId::from_bytes([2; 32]);
/// Each peer asks once, as far as anything here depends on it.
pub const REQUEST: Serial = Serial::new(1);
pub const MIB: u64 = 1 << 20;

pub fn id(peer: u8) -> PeerId {
    PeerId::from_bytes([peer; 16])
}

pub fn p(piece: u32) -> PieceIndex {
    PieceIndex::new(piece)
}

pub fn digest(byte: u8) -> PieceDigest {
    PieceDigest::from_bytes([byte; 32])
}

/// Content of eight pieces that is named as told.
pub fn content(generation: Generation) -> ContentMeta {
    ContentMeta {
        length: Some(8 * MIB),
        ranges: true,
        generation,
        ..ContentMeta::default()
    }
}

/// A supernode, and all that it has said to each peer.
pub struct Lab {
    pub swarm: Swarm,
    pub now: Time,
    pub said: BTreeMap<u8, Vec<ToPeer>>,
}

impl Lab {
    pub fn new(config: Config) -> Self {
        Self {
            swarm: Swarm::new(config),
            now: Time::ZERO,
            said: BTreeMap::new(),
        }
    }

    /// A supernode, the first peer as the one that learned the content, and more as its readers.
    pub fn with(meta: ContentMeta, readers: u8) -> Self {
        let mut lab = Self::new(Config::default());
        lab.register(1);
        lab.learned(1, TASK, meta);
        for peer in 2..2 + readers {
            lab.register(peer);
        }
        lab
    }

    pub fn handle(&mut self, event: Event) {
        self.swarm.handle(self.now, event);
        while let Some(output) = self.swarm.poll_output() {
            let to = output.to.as_bytes()[0];
            self.said.entry(to).or_default().push(output.message);
        }
    }

    pub fn say(&mut self, peer: u8, message: FromPeer) {
        let peer = id(peer);
        self.handle(Event::Message { peer, message });
    }

    pub fn wait(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(20) {
            self.now = self.now + Duration::from_millis(20);
            self.handle(Event::Tick);
        }
    }

    pub fn connect(&mut self, peer: u8) {
        let addr = ([127, 0, 0, 1], u16::from(peer)).into();
        let peer = PeerAddr { id: id(peer), addr };
        let labels = Vec::new();
        self.handle(Event::Connected {
            hello: Hello { peer, labels },
        });
    }

    pub fn register(&mut self, peer: u8) {
        self.connect(peer);
        self.ask_again(peer);
    }

    /// A peer that is connected asks for the content.
    pub fn ask_again(&mut self, peer: u8) {
        self.say(
            peer,
            FromPeer::Register(Register {
                key: KEY,
                serial: REQUEST,
                shown: String::new(),
                start: 0,
                content: None,
            }),
        );
    }

    pub fn learned(&mut self, peer: u8, task: TaskId, meta: ContentMeta) {
        let learned = Learned::Content { task, meta };
        self.say(
            peer,
            FromPeer::Learned {
                key: KEY,
                serial: REQUEST,
                learned,
            },
        );
    }

    pub fn sealed(&mut self, peer: u8, piece: u32, digest: PieceDigest) {
        self.say(
            peer,
            FromPeer::Sealed {
                task: TASK,
                piece: p(piece),
                digest,
            },
        );
    }

    pub fn have(&mut self, peer: u8, first: u32, count: u32, position: u32) {
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

    pub fn asks(&mut self, peer: u8, piece: u32) {
        self.say(
            peer,
            FromPeer::AskLease {
                task: TASK,
                piece: p(piece),
                late: false,
            },
        );
    }

    pub fn accuses(&mut self, by: u8, of: u8, piece: u32) {
        self.say(
            by,
            FromPeer::Trouble {
                task: TASK,
                peer: id(of),
                trouble: Trouble::Corrupt { piece: p(piece) },
            },
        );
    }

    pub fn resume(
        &mut self,
        peer: u8,
        meta: ContentMeta,
        held: u32,
        leases: Vec<(u32, Option<u32>)>,
    ) {
        self.resume_with(peer, meta, 0..held, leases);
    }

    pub fn resume_with(
        &mut self,
        peer: u8,
        meta: ContentMeta,
        held: Range<u32>,
        leases: Vec<(u32, Option<u32>)>,
    ) {
        let leases = leases.into_iter();
        let run = (p(held.start), held.len() as u32);
        self.say(
            peer,
            FromPeer::Resume(Resume {
                key: KEY,
                task: TASK,
                resources: vec![KnownResource {
                    key: KEY,
                    meta: ContentMeta {
                        fresh_for: Some(Duration::from_secs(60)),
                        ..meta.clone()
                    },
                }],
                meta,
                held: (run.1 > 0).then_some(run).into_iter().collect(),
                position: p(held.end),
                digests: held.map(|piece| (p(piece), digest(1))).collect(),
                leases: leases.map(|(first, end)| (p(first), end.map(p))).collect(),
                shown: String::new(),
            }),
        );
    }

    /// What a peer was told since this was asked last.
    pub fn told(&mut self, peer: u8) -> Vec<ToPeer> {
        self.said.remove(&peer).unwrap_or_default()
    }

    /// The leases that a peer was granted since its words were looked at last.
    pub fn leases(&mut self, peer: u8) -> Vec<(u32, Option<u32>)> {
        let leases = self
            .told(peer)
            .into_iter()
            .filter_map(|message| match message {
                ToPeer::Lease { first, end, .. } => Some((first.get(), end.map(PieceIndex::get))),
                _ => None,
            });
        leases.collect()
    }

    pub fn known(&mut self, peer: u8) -> Known {
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
