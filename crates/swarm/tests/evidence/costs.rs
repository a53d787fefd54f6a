//! What one member may cost: how many tasks it may have, how many pieces one message speaks of, and that
//! one member of a large swarm costs no more than one of a small one. Costs are counted, not timed.

use std::time::Duration;

use pantala_core::{
    ContentMeta, Generation, PeerId, PieceDigest, ResourceKey, TaskId, Time,
    control::{FromPeer, Hello, PeerAddr, Resume, ToPeer, Trouble},
};
use pantala_swarm::{Config, Event, Swarm};

use crate::lab::{KEY, Lab, REQUEST, TASK, content, digest, p};

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
    assert!(lab.told(1).contains(&ToPeer::Direct {
        key: KEY,
        serial: REQUEST
    }));
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
        now = now + Duration::from_millis(20);
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
            now = now + Duration::from_millis(20);
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
