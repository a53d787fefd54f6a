//! Contents that must come from the one transfer that began them: whose it is, and what becomes of
//! those who need it when it is over.

use std::ops::Range;

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

/// The holder's readers need no more. It is told to stop when no other member reads on, whichever way the
/// last one ends, and nobody is sent to it afterwards.
#[test]
fn a_single_transfer_ends_when_nobody_needs_more_of_it() {
    for end in ["has read all", "leaves", "was never there"] {
        let others = if end == "was never there" { 0 } else { 1 };
        let mut lab = Lab::with(content(Generation::Transfer), others);
        lab.sealed(1, 0, digest(1));
        lab.have(1, 0, 1, 1);
        lab.say(
            1,
            FromPeer::OfferLease {
                task: TASK,
                first: p(1),
                end: None,
            },
        );
        let over = ToPeer::LeaseEnded {
            task: TASK,
            first: p(1),
            end: None,
        };
        if others > 0 {
            assert!(!lab.told(1).contains(&over), "{end}: the other needs it");
            lab.register(4);
            assert_eq!(lab.known(4).task, TASK, "{end}: it goes on");
            lab.handle(Event::Disconnected { peer: id(4) });
            assert!(!lab.told(1).contains(&over), "{end}: the first still does");
        }
        match end {
            "has read all" => lab.have(2, 0, 1, 8),
            "leaves" => lab.handle(Event::Disconnected { peer: id(2) }),
            _ => {}
        }
        assert!(lab.told(1).contains(&over), "{end}");
        lab.register(5);
        assert!(learns(&lab.told(5)), "{end}: it is over");
    }
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

/// A member, and the pieces that it holds.
type Holder = (u8, Range<u32>);

/// A supernode that lost its memory, and members that come back to it with the pieces that each holds.
/// One may still have the transfer, and fetches on.
fn came_back(members: &[Holder], fetches: Option<u8>) -> Lab {
    let mut lab = Lab::new(Config::default());
    for (peer, held) in members {
        lab.connect(*peer);
        let leases = (fetches == Some(*peer)).then_some((held.end, None));
        let leases = leases.into_iter().collect();
        lab.resume_with(*peer, content(Generation::Transfer), held.clone(), leases);
    }
    lab
}

fn learns(told: &[ToPeer]) -> bool {
    told.iter()
        .any(|told| matches!(told, ToPeer::Learn { stale: None, .. }))
}

/// Content that nobody can bring the rest of is not offered by a supernode that lost its memory, to
/// the members no more than to others, however fresh its members say it is.
#[test]
fn after_a_restart_one_transfers_content_is_offered_only_where_all_of_it_can_be_had() {
    let cases: [(&[Holder], Option<u8>, bool); 6] = [
        (&[(1, 0..7)], None, false),
        (&[(1, 0..8)], None, true),
        (&[(1, 0..4), (2, 4..8)], None, true),
        (&[(1, 0..4), (2, 5..8)], None, false),
        (&[(1, 0..3)], Some(1), true),
        // The transfer goes on, but what it began with is gone.
        (&[(1, 1..4)], Some(1), false),
    ];
    for (members, fetches, offered) in cases {
        let mut lab = came_back(members, fetches);
        let fresh = lab.known(1).meta.fresh_for.unwrap_or_default();
        lab.register(5);
        let told = lab.told(5);
        assert_eq!(learns(&told), !offered, "{members:?} {fetches:?}: {told:?}");
        // The first of two did not hold all of it when it was told what stands there.
        let stands = members.len() == 1 && offered;
        assert_eq!(!fresh.is_zero(), stands, "{members:?} {fetches:?}");
    }
}

/// A reader that waits while the origin is asked is not sent to what nobody can bring the rest of.
#[test]
fn who_waits_for_the_origin_is_not_sent_to_a_transfer_that_is_over() {
    let mut lab = Lab::new(Config::default());
    lab.register(4);
    lab.register(5);
    assert!(learns(&lab.told(4)));
    lab.connect(1);
    lab.resume(1, content(Generation::Transfer), 7, Vec::new());
    let told = lab.told(5);
    assert!(told.is_empty(), "{told:?}");
    let other = TaskId::from_bytes([3; 32]);
    lab.learned(4, other, content(Generation::Transfer));
    assert_eq!(lab.known(5).task, other);
}
