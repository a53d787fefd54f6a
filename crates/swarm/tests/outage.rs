//! An origin that fails, or asks for a pause: what one member met all are told, and nobody asks.

use std::{collections::VecDeque, time::Duration};

use pantala_core::{
    Class, ContentMeta, Error, Kind, PeerId, PieceIndex, ResourceKey, TaskId, Time, Who,
    control::{FromPeer, Hello, Learned, PeerAddr, Register, Serial, ToPeer, Trouble},
};
use pantala_swarm::{Config, Event, Swarm};

const TASK: TaskId = TaskId::from_bytes([5; 32]);

/// A supernode and what it said to whom, first things first.
struct Lab {
    swarm: Swarm,
    now: Time,
    said: VecDeque<(u8, ToPeer)>,
}

fn key() -> ResourceKey {
    ResourceKey::of_url("http://origin.example/f", b"", Class::Anonymous)
}

fn id(peer: u8) -> PeerId {
    PeerId::from_bytes([peer; 16])
}

fn refused() -> Error {
    Error::new(Who::Origin, Kind::Unreachable, "refused the connection")
}

fn busy(seconds: u64) -> Error {
    Error::new(Who::Origin, Kind::Status(429), "answered 429")
        .retry_after(Duration::from_secs(seconds))
}

impl Lab {
    fn new(peers: u8) -> Self {
        let mut lab = Self {
            swarm: Swarm::new(Config::default()),
            now: Time::ZERO,
            said: VecDeque::new(),
        };
        for peer in 0..peers {
            let addr = ([127, 0, 0, 1], 1000 + u16::from(peer)).into();
            let hello = Hello {
                peer: PeerAddr { id: id(peer), addr },
                labels: Vec::new(),
            };
            lab.handle(Event::Connected { hello });
            lab.asks(peer);
        }
        lab
    }

    /// A swarm whose member 0 has the lease for everything.
    fn reading(peers: u8) -> Self {
        let mut lab = Self::new(peers);
        let meta = ContentMeta {
            length: Some(64 << 20),
            ..ContentMeta::default()
        };
        let learned = Learned::Content { task: TASK, meta };
        lab.say(
            0,
            FromPeer::Learned {
                key: key(),
                serial: Serial::new(1),
                learned,
            },
        );
        assert_eq!(lab.leased(), Some(0));
        lab
    }

    fn handle(&mut self, event: Event) {
        self.swarm.handle(self.now, event);
        while let Some(output) = self.swarm.poll_output() {
            self.said
                .push_back((output.to.as_bytes()[0], output.message));
        }
    }

    fn say(&mut self, peer: u8, message: FromPeer) {
        let peer = id(peer);
        self.handle(Event::Message { peer, message });
    }

    fn asks(&mut self, peer: u8) {
        let register = Register {
            key: key(),
            serial: Serial::new(1),
            shown: String::new(),
            start: 0,
            content: None,
        };
        self.say(peer, FromPeer::Register(register));
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    fn fails(&mut self, peer: u8, error: Error) {
        let message = FromPeer::OriginFailed {
            task: TASK,
            first: PieceIndex::new(0),
            end: None,
            error,
        };
        self.say(peer, message);
    }

    fn lacks(&mut self, peer: u8, piece: u32) {
        let ask = FromPeer::AskLease {
            task: TASK,
            piece: PieceIndex::new(piece),
            late: false,
        };
        self.say(peer, ask);
    }

    /// Who got a lease; forgets what else was said before.
    fn leased(&mut self) -> Option<u8> {
        let mut said = self.said.drain(..);
        said.find_map(|(to, message)| matches!(message, ToPeer::Lease { .. }).then_some(to))
    }

    /// Who was told that the origin fails; forgets what else was said before.
    fn told(&mut self) -> Vec<u8> {
        let said = self.said.drain(..);
        let told = said.filter(|(_, message)| matches!(message, ToPeer::OriginFailed { .. }));
        told.map(|(to, _)| to).collect()
    }

    /// Who was refused, and who is to ask the origin; forgets what else was said before.
    fn answered(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut refused, mut learn) = (Vec::new(), Vec::new());
        for (to, message) in self.said.drain(..) {
            match message {
                ToPeer::Refused { .. } => refused.push(to),
                ToPeer::Learn { .. } => learn.push(to),
                _ => {}
            }
        }
        (refused, learn)
    }
}

#[test]
fn a_lease_moves_until_three_have_failed_and_then_all_are_told() {
    let mut lab = Lab::reading(4);
    let mut holder = 0;
    for _ in 0..2 {
        lab.pass(2000);
        lab.fails(holder, refused());
        let next = lab.leased();
        assert!(next.is_some_and(|next| next != holder));
        holder = next.unwrap_or_default();
    }
    lab.pass(2000);
    lab.fails(holder, refused());
    assert_eq!(lab.told(), [0, 1, 2, 3]);
    // Whoever asks now is told as well; later one of them may try.
    lab.lacks(2, 0);
    assert_eq!(lab.told(), [2]);
    lab.pass(1001);
    lab.lacks(2, 0);
    assert_eq!(lab.leased(), Some(2));
    lab.pass(2000);
    lab.fails(2, refused());
    assert_eq!(lab.told(), [0, 1, 2, 3]);
}

#[test]
fn a_pause_that_the_origin_asked_for_binds_all() {
    let mut lab = Lab::reading(4);
    lab.fails(0, busy(7));
    assert_eq!(lab.told(), [0, 1, 2, 3]);
    for peer in 0..4 {
        lab.pass(1000);
        lab.lacks(peer, 0);
        assert_eq!(lab.told(), [peer]);
    }
    lab.pass(3001);
    lab.lacks(3, 0);
    assert_eq!(lab.leased(), Some(3));
}

#[test]
fn who_is_refused_alone_passes_its_lease_on() {
    let mut lab = Lab::reading(3);
    let denied = Error::new(Who::Origin, Kind::Denied, "answered 401");
    lab.fails(0, denied.clone());
    let next = lab.leased().expect("somebody else tries");
    assert_ne!(next, 0);
    // Of a single member that is refused, only that one ends.
    let mut lab = Lab::reading(1);
    lab.fails(0, denied);
    assert_eq!(lab.told(), [0]);
}

#[test]
fn who_waits_for_metadata_is_told_of_a_pause_and_asks_nobody() {
    let mut lab = Lab::new(4);
    assert_eq!(lab.answered(), (vec![], vec![0]));
    let learned = Learned::Failed { error: busy(60) };
    lab.say(
        0,
        FromPeer::Learned {
            key: key(),
            serial: Serial::new(1),
            learned,
        },
    );
    assert_eq!(lab.answered(), (vec![1, 2, 3], vec![]));
    lab.pass(59_000);
    lab.asks(2);
    assert_eq!(lab.answered(), (vec![2], vec![]));
    lab.pass(1001);
    lab.asks(2);
    assert_eq!(lab.answered(), (vec![], vec![2]));
}

#[test]
fn three_find_out_that_an_origin_is_dead_and_all_know() {
    let mut lab = Lab::new(8);
    for peer in 0..3 {
        assert_eq!(lab.answered(), (vec![], vec![peer]));
        lab.pass(1000);
        let learned = Learned::Failed { error: refused() };
        lab.say(
            peer,
            FromPeer::Learned {
                key: key(),
                serial: Serial::new(1),
                learned,
            },
        );
    }
    assert_eq!(lab.answered(), (vec![3, 4, 5, 6, 7], vec![]));
}

#[test]
fn who_reaches_nobody_gets_leases_that_grow() {
    let mut lab = Lab::reading(2);
    let unreachable = FromPeer::Trouble {
        task: TASK,
        peer: id(0),
        trouble: Trouble::Unreachable,
    };
    lab.say(1, unreachable);
    let mut first = 0;
    for pieces in [1, 2, 4, 8] {
        lab.lacks(1, first);
        let lease = lab.said.drain(..).find_map(|(to, message)| match message {
            ToPeer::Lease { first, end, .. } => Some((to, first.get(), end?.get())),
            _ => None,
        });
        assert_eq!(lease, Some((1, first, first + pieces)));
        first += pieces;
    }
    // The other's lease is still its own.
    lab.fails(0, refused());
    assert!(lab.leased().is_some());
}
