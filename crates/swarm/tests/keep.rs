//! What members are told so that they keep different pieces.

use std::{collections::BTreeMap, time::Duration};

use pantala_core::{
    ContentMeta, PeerId, PieceIndex, ResourceKey, TaskId, Time, Turn,
    control::{Copies, FromPeer, Hello, PeerAddr, PieceRun, Resume, ToPeer},
};
use pantala_swarm::{Config, Event, Swarm};

const TASK: TaskId = TaskId::from_bytes([5; 32]);
const PIECES: u32 = 20;

/// A supernode and what it said to each member of one swarm of twenty pieces.
struct Lab {
    swarm: Swarm,
    now: Time,
    turns: BTreeMap<u8, Turn>,
    copies: Vec<(u8, Vec<PieceRun>, Copies)>,
    messages: usize,
}

impl Lab {
    fn new() -> Self {
        Self {
            swarm: Swarm::new(Config::default()),
            now: Time::ZERO,
            turns: BTreeMap::new(),
            copies: Vec::new(),
            messages: 0,
        }
    }

    fn handle(&mut self, event: Event) {
        self.swarm.handle(self.now, event);
        while let Some(output) = self.swarm.poll_output() {
            let to = output.to.as_bytes()[0];
            match output.message {
                ToPeer::Turn { turn, .. } => {
                    self.turns.insert(to, turn);
                    self.messages += 1;
                }
                ToPeer::Copies { pieces, copies, .. } => self.copies.push((to, pieces, copies)),
                _ => {}
            }
        }
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now = self.now + Duration::from_millis(milliseconds);
        self.handle(Event::Tick);
    }

    fn say(&mut self, peer: u8, message: FromPeer) {
        let peer = PeerId::from_bytes([peer; 16]);
        self.handle(Event::Message { peer, message });
    }

    /// A peer joins with the first so many pieces.
    fn join(&mut self, peer: u8, held: u32) {
        let addr = PeerAddr {
            id: PeerId::from_bytes([peer; 16]),
            addr: ([127, 0, 0, 1], 1).into(),
        };
        let (peer_addr, labels) = (addr, Vec::new());
        self.handle(Event::Connected {
            hello: Hello {
                peer: peer_addr,
                labels,
            },
        });
        let resume = Resume {
            key: ResourceKey::from_bytes([1; 32]),
            task: TASK,
            meta: ContentMeta {
                length: Some(u64::from(PIECES) << 20),
                ..ContentMeta::default()
            },
            held: (held > 0)
                .then_some((PieceIndex::new(0), held))
                .into_iter()
                .collect(),
            digests: Vec::new(),
            resources: Vec::new(),
            position: PieceIndex::new(0),
            leases: Vec::new(),
            shown: String::new(),
        };
        self.say(peer, FromPeer::Resume(resume));
    }

    fn have(&mut self, peer: u8, gained: &[u32], lost: &[u32], position: u32) {
        let runs = |pieces: &[u32]| pieces.iter().map(|&i| (PieceIndex::new(i), 1)).collect();
        let message = FromPeer::Have {
            task: TASK,
            gained: runs(gained),
            lost: runs(lost),
            position: PieceIndex::new(position),
            in_flight: 0,
            reader_bound: false,
        };
        self.say(peer, message);
    }

    fn told(&mut self) -> Vec<(u8, Vec<PieceRun>, Copies)> {
        std::mem::take(&mut self.copies)
    }
}

fn run(first: u32, count: u32) -> Vec<PieceRun> {
    vec![(PieceIndex::new(first), count)]
}

#[test]
fn each_reader_has_a_turn_of_its_own() {
    let mut lab = Lab::new();
    (1..=5).for_each(|peer| lab.join(peer, 0));
    let dealt = |lab: &Lab, of: u32| {
        let mut at: Vec<u32> = lab.turns.values().map(|turn| turn.at()).collect();
        at.sort_unstable();
        at.into_iter().eq(0..of) && lab.turns.values().all(|turn| turn.of() == of)
    };
    assert!(dealt(&lab, 5), "{:?}", lab.turns);
    lab.say(2, FromPeer::Leave { task: TASK });
    lab.turns.remove(&2);
    assert!(dealt(&lab, 4), "{:?}", lab.turns);
    // Who has read all keeps its turn, and so do those in step with it.
    let before = lab.turns.clone();
    lab.have(1, &[], &[], PIECES);
    lab.have(3, &[], &[], PIECES);
    assert_eq!(lab.turns, before);
    // The next one shares what comes with those that still read.
    lab.join(6, 0);
    assert_eq!((lab.turns[&1], lab.turns[&3]), (before[&1], before[&3]));
    lab.turns.retain(|peer, _| [4, 5, 6].contains(peer));
    assert!(dealt(&lab, 3), "{:?}", lab.turns);
}

#[test]
fn a_swarm_that_grows_is_not_told_each_time() {
    let mut lab = Lab::new();
    (0..200).for_each(|peer| lab.join(peer, 0));
    assert!(lab.messages < 200 * 7, "{}", lab.messages);
    let of = lab.turns[&0].of();
    assert!(
        lab.turns.values().all(|turn| turn.of() == of) && (160..=200).contains(&of),
        "{of}"
    );
}

#[test]
fn who_holds_the_last_copy_is_told() {
    let mut lab = Lab::new();
    (1..=3).for_each(|peer| lab.join(peer, 8));
    assert_eq!(lab.told(), []);
    lab.have(1, &[], &[2, 3], 8);
    assert_eq!(lab.told(), [], "two copies are left");
    lab.have(3, &[], &[3, 4], 8);
    assert_eq!(lab.told(), [(2, run(3, 1), Copies::Sole)]);
    lab.say(1, FromPeer::Leave { task: TASK });
    let said = lab.told();
    assert_eq!(
        said,
        [(2, run(4, 1), Copies::Sole),],
        "of 2 there is the one at 2 and the one at 3"
    );
}

#[test]
fn who_gets_what_another_keeps_is_told() {
    let mut lab = Lab::new();
    (1..=2).for_each(|peer| lab.join(peer, 8));
    lab.have(2, &[], &[5], 8);
    assert_eq!(lab.told(), [(1, run(5, 1), Copies::Sole)]);
    (3..=5).for_each(|peer| lab.join(peer, 0));
    lab.have(3, &[5], &[], 8);
    assert_eq!(lab.told(), [(3, run(5, 1), Copies::Kept)]);
    lab.have(4, &[5], &[], 8);
    assert_eq!(lab.told(), [(4, run(5, 1), Copies::Kept)]);
    // Who was told to keep it has no room: another is told.
    lab.have(1, &[], &[5], 8);
    assert_eq!(lab.told(), [(3, run(5, 1), Copies::Sole)]);
    lab.have(3, &[], &[5], 8);
    assert_eq!(lab.told(), [(4, run(5, 1), Copies::Sole)]);
}

#[test]
fn what_comes_alone_is_told_only_if_it_stays_alone() {
    let mut lab = Lab::new();
    (1..=2).for_each(|peer| lab.join(peer, 0));
    lab.have(1, &[0, 1], &[], 1);
    lab.wait(100);
    lab.have(2, &[0], &[], 1);
    assert_eq!(lab.told(), [], "the other may be on its way");
    lab.wait(300);
    assert_eq!(lab.told(), [(1, run(1, 1), Copies::Sole)]);
}
