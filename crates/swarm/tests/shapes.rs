//! Swarms without lasting trees: who is told of whom, and who gets leases.

use std::collections::{BTreeMap, BTreeSet};

use pantala_core::{
    ContentMeta, PeerId, PieceIndex, ResourceKey, TaskId, Time,
    control::{FromPeer, Hello, Parents, PeerAddr, Resume, ToPeer},
};
use pantala_swarm::{Config, Event, Shape, Swarm};

const TASK: TaskId = TaskId::from_bytes([5; 32]);
const PIECES: u32 = 64;

/// Identifiers are drawn by lot, so they lie anywhere; the last byte says which it is.
fn id(peer: u8) -> PeerId {
    let spread = (u128::from(peer) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
    let mut bytes = spread.to_be_bytes();
    bytes[15] = peer;
    PeerId::from_bytes(bytes)
}

fn number(id: PeerId) -> u8 {
    id.as_bytes()[15]
}

/// A supernode, and what its members were told last.
struct Lab {
    swarm: Swarm,
    told: BTreeMap<u8, Parents>,
    leases: Vec<(u8, PieceIndex, Option<PieceIndex>)>,
}

impl Lab {
    /// So many members that hold nothing.
    fn new(config: Config, members: u8) -> Self {
        let mut lab = Self {
            swarm: Swarm::new(config),
            told: BTreeMap::new(),
            leases: Vec::new(),
        };
        for peer in 0..members {
            lab.join(peer);
        }
        lab
    }

    fn handle(&mut self, event: Event) {
        self.swarm.handle(Time::ZERO, event);
        while let Some(output) = self.swarm.poll_output() {
            let to = number(output.to);
            match output.message {
                ToPeer::Known { known, .. } => {
                    self.told.insert(to, known.parents);
                }
                ToPeer::Parents { parents, .. } => {
                    self.told.insert(to, parents);
                }
                ToPeer::Lease { first, end, .. } => self.leases.push((to, first, end)),
                _ => {}
            }
        }
    }

    fn join(&mut self, peer: u8) {
        let hello = Hello {
            peer: PeerAddr {
                id: id(peer),
                addr: ([127, 0, 0, 1], 1).into(),
            },
            labels: Vec::new(),
        };
        self.handle(Event::Connected { hello });
        let resume = Resume {
            key: ResourceKey::from_bytes([1; 32]),
            task: TASK,
            meta: ContentMeta {
                length: Some(u64::from(PIECES) << 20),
                ..ContentMeta::default()
            },
            held: Vec::new(),
            digests: Vec::new(),
            resources: Vec::new(),
            position: PieceIndex::new(0),
            leases: Vec::new(),
            shown: String::new(),
        };
        self.say(peer, FromPeer::Resume(resume));
    }

    fn say(&mut self, peer: u8, message: FromPeer) {
        let peer = id(peer);
        self.handle(Event::Message { peer, message });
    }

    fn ask(&mut self, peer: u8, piece: u32) {
        let (task, piece) = (TASK, PieceIndex::new(piece));
        let late = false;
        self.say(peer, FromPeer::AskLease { task, piece, late });
    }

    fn neighbours(&self, peer: u8) -> BTreeSet<u8> {
        let others = self.told[&peer].others.iter();
        others.map(|addr| number(addr.id)).collect()
    }
}

fn mesh(others: usize, lease_pieces: u32) -> Config {
    Config {
        shape: Shape::Mesh,
        others,
        lease_pieces,
        ..Config::default()
    }
}

#[test]
fn neighbours_know_each_other_and_nobody_is_preferred() {
    let lab = Lab::new(mesh(4, 0), 40);
    let mut one_sided = 0;
    for peer in 0..40 {
        assert!(lab.told[&peer].preferred.is_empty());
        let own = lab.neighbours(peer);
        assert!(own.len() <= 8 && !own.contains(&peer), "{peer}: {own:?}");
        assert!(peer < 4 || own.len() >= 3, "{peer}: {own:?}");
        // Who has all it may have is told of nobody else.
        let strangers = own
            .iter()
            .filter(|&&of| !lab.neighbours(of).contains(&peer));
        one_sided += strangers
            .filter(|&&of| lab.neighbours(of).len() < 8)
            .count();
    }
    assert_eq!(one_sided, 0);
}

#[test]
fn who_has_few_neighbours_left_gets_others() {
    let mut lab = Lab::new(mesh(4, 0), 40);
    let own = lab.neighbours(20);
    for &gone in &own {
        lab.handle(Event::Disconnected { peer: id(gone) });
    }
    let now = lab.neighbours(20);
    assert!(now.len() >= 3 && now.is_disjoint(&own), "{own:?} {now:?}");
}

#[test]
fn short_leases_are_spread_over_who_asks() {
    let mut lab = Lab::new(mesh(4, 2), 6);
    for peer in 0..6 {
        lab.ask(peer, 0);
    }
    let leases: Vec<(u8, u32, Option<u32>)> = lab
        .leases
        .iter()
        .map(|&(peer, first, end)| (peer, first.get(), end.map(PieceIndex::get)))
        .collect();
    let expected: Vec<_> = (0..6u8)
        .map(|peer| (peer, u32::from(peer) * 2, Some(u32::from(peer) * 2 + 2)))
        .collect();
    assert_eq!(leases, expected);
}

#[test]
fn each_piece_has_a_tree_of_who_asks_for_it() {
    let config = Config {
        shape: Shape::PerPiece,
        others: 1,
        lease_pieces: 1,
        ..Config::default()
    };
    let mut lab = Lab::new(config, 12);
    let mut fed = [0; 12];
    for piece in 0..4 {
        let mut children = [0; 12];
        lab.ask(piece as u8, piece);
        assert_eq!(lab.leases.last().map(|lease| lease.0), Some(piece as u8));
        for peer in (0..12).filter(|&peer| peer != piece as u8) {
            lab.ask(peer, piece);
            let parent = number(lab.told[&peer].others[0].id);
            children[usize::from(parent)] += 1;
            fed[usize::from(parent)] += 1;
        }
        assert!(children.iter().all(|&count| count <= 2), "{children:?}");
    }
    assert!(fed.iter().all(|&count| count <= 6), "{fed:?}");
}
