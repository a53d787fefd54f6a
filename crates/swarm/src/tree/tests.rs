use proptest::prelude::*;

use super::*;

fn id(n: u8) -> PeerId {
    let mut bytes = [0; 16];
    bytes[0] = n;
    PeerId::from_bytes(bytes)
}

/// In one of three zones, in turn.
fn place(peer: PeerId) -> Place {
    let zone = peer.as_bytes()[0] % 3;
    Place::of(&[("zone".to_owned(), zone.to_string())])
}

fn join(trees: &mut Trees, peer: PeerId) {
    join_at(trees, peer, Place::default());
}

fn join_at(trees: &mut Trees, peer: PeerId, place: Place) {
    trees.add(peer, place, |_| true);
    if trees.root().is_none() {
        trees.set_root(peer);
    }
    for stripe in 0..trees.stripes() {
        trees.attach(peer, stripe, |_, _| Fit::Well);
    }
}

#[test]
fn who_loses_many_still_has_slots_for_all() {
    let mut trees = Trees::new(2, 4);
    (0..100).for_each(|n| join(&mut trees, id(n)));
    for n in (5..95).step_by(3) {
        trees.remove(id(n));
        trees.balance(ALL);
        while let Some(&(orphan, stripe)) = trees.orphans().first() {
            trees.attach(orphan, stripe, |_, _| Fit::Well);
        }
        trees.check();
        assert!(
            (0..100).all(|n| (0..2).all(|s| trees.part(id(n), s) == 1.0)),
            "after {n}"
        );
    }
}

#[test]
fn one_stripe_is_a_chain() {
    let mut trees = Trees::new(1, 0);
    (0..8).for_each(|n| join(&mut trees, id(n)));
    trees.check();
    assert_eq!(trees.depth(), 7);
    assert!((0..8).all(|n| trees.load(id(n)) <= 1));
}

#[test]
fn two_stripes_are_shallow_and_fair() {
    let mut trees = Trees::new(2, 0);
    (0..200).for_each(|n| join(&mut trees, id(n)));
    trees.check();
    assert!(trees.depth() <= 10, "depth {}", trees.depth());
    assert!(
        (0..200).all(|n| trees.load(id(n)) <= 2),
        "nobody uploads more than it receives"
    );
    assert!(trees.adrift().is_empty());
}

#[test]
fn few_are_a_chain_and_many_a_chain_with_trees_below() {
    let mut trees = Trees::new(2, 12);
    (0..12).for_each(|n| join(&mut trees, id(n)));
    assert_eq!(trees.depth(), 11);
    (12..200).for_each(|n| join(&mut trees, id(n)));
    trees.check();
    assert!(trees.depth() <= 22, "depth {}", trees.depth());
    assert!((0..200).all(|n| trees.load(id(n)) <= 2));
}

/// Edges between two zones, over all stripes.
fn crossings(trees: &Trees, peers: u8) -> usize {
    let edges = (0..peers).flat_map(|n| {
        let parents = trees.parents(id(n)).iter().flatten();
        parents.map(move |&parent| (place(parent), place(id(n))))
    });
    edges.filter(|(above, below)| above != below).count()
}

#[test]
fn a_zone_takes_each_piece_in_once() {
    for chain in [0, 12] {
        let mut trees = Trees::new(2, chain);
        for n in 0..60 {
            join_at(&mut trees, id(n), place(id(n)));
            trees.check();
        }
        // Two other zones, once for each stripe; one more may find no room of its own.
        let crossings = crossings(&trees, 60);
        assert!(
            (4..=5).contains(&crossings),
            "chain of {chain}: {crossings}"
        );
    }
}

/// They came as if all were in one place, and turn out to be in two.
#[test]
fn who_is_found_elsewhere_comes_to_its_own() {
    let elsewhere = |n: u8| Place::site(u64::from(n % 2));
    for chain in [0, 12] {
        let mut trees = Trees::new(2, chain);
        (0..60).for_each(|n| join(&mut trees, id(n)));
        for n in 0..60 {
            trees.relocate(id(n), elsewhere(n));
            trees.check();
        }
        for _ in 0..3 {
            for site in 0..2 {
                let group = elsewhere(site).named().next().unwrap_or(ALL);
                trees.balance(group);
                for stripe in 0..2 {
                    while let Some(&(orphan, stripe)) = trees.orphans().first() {
                        trees.attach(orphan, stripe, |_, _| Fit::Well);
                    }
                    for n in 0..60 {
                        if trees.is_astray(id(n), stripe) && trees.is_in(id(n), group) {
                            for other in trees.bring_home(id(n), stripe, |_, _| Fit::Well) {
                                trees.attach(other, stripe, |_, _| Fit::Well);
                            }
                            trees.check();
                        }
                    }
                }
            }
        }
        let parents = |n| trees.parents(id(n)).iter().flatten();
        let afar = |n: u8| {
            parents(n)
                .filter(|above| above.as_bytes()[0] % 2 != n % 2)
                .count()
        };
        let crossings: usize = (0..60).map(afar).sum();
        // Once for each stripe; a few more may find no room of their own.
        assert!(
            (2..=4).contains(&crossings),
            "chain of {chain}: {crossings}"
        );
        assert!(trees.adrift().is_empty());
    }
}

proptest! {
    #[test]
    fn survives_any_coming_and_going(
        stripes in 1u32..4,
        chain in 0u32..8,
        ops in prop::collection::vec((0u8..6, 0u8..24), 0..150),
    ) {
        let mut trees = Trees::new(stripes, chain);
        for (op, n) in ops {
            match op {
                0 => join_at(&mut trees, id(n), place(id(n))),
                // Where it is turns out later, or it is elsewhere.
                1 => join(&mut trees, id(n)),
                4 => trees.relocate(id(n), Place::site(u64::from(n % 2))),
                5 => {
                    for stripe in 0..stripes {
                        for peer in trees.all_astray(Place::site(1).groups().next().unwrap_or(ALL), stripe) {
                            let left = trees.bring_home(peer, stripe, |_, _| Fit::Well);
                            trees.check();
                            for other in left {
                                trees.attach(other, stripe, |_, _| Fit::Well);
                            }
                        }
                    }
                }
                2 => {
                    let orphans = trees.remove(id(n));
                    if trees.root().is_none() && let Some(&(orphan, _)) = orphans.first() {
                        trees.set_root(orphan);
                    }
                    for (orphan, stripe) in orphans {
                        trees.attach(orphan, stripe, |_, _| Fit::Well);
                    }
                }
                _ => trees.set_root(id(n)),
            }
            for (peer, stripe) in trees.adrift() {
                trees.attach(peer, stripe, |_, _| Fit::Well);
            }
            trees.check();
            if trees.root().is_some() {
                prop_assert!(trees.adrift().is_empty());
            }
        }
    }
}
