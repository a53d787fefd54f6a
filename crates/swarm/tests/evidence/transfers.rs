//! Contents that must come from the one transfer that began them: whose it is, and what becomes of
//! those who need it when it is over.

use pantala_core::{
    Generation, TaskId,
    control::{FromPeer, ToPeer},
};
use pantala_swarm::{Config, Event};
use proptest::prelude::*;

use crate::lab::{KEY, Lab, TASK, content, digest, id, p};

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
                stale: None,
                ..
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
