//! What a content is: its digests, how it is cut, where it ends and whether it is wrong as a whole. Who
//! may say so, and who is believed about others.

use pantala_core::{
    ContentMeta, Generation, Geometry, PeerId, PieceDigest,
    control::{FromPeer, ToPeer},
};
use pantala_swarm::{Config, Event};

use crate::lab::{Lab, MIB, TASK, content, digest, id, p};

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
    // Its URL may name a digest though the task does not.
    let mut lab = Lab::with(content(Generation::Validators), 1);
    lab.say(2, poison.clone());
    assert!(!heard(&mut lab));
    lab.have(2, 0, 8, 8);
    lab.say(2, poison);
    assert!(heard(&mut lab));
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
