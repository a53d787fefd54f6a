//! Who goes on with a lease when its holder is gone, or the supernode that granted it.

use pantala_core::{Generation, control::ToPeer};
use pantala_swarm::{Config, Event};

use crate::lab::{Lab, TASK, content, id, p};

#[test]
fn other_contents_leases_move_on() {
    for generation in [Generation::Validators, Generation::Digest] {
        let mut lab = Lab::with(content(generation), 1);
        lab.told(2);
        lab.handle(Event::Disconnected { peer: id(1) });
        assert_eq!(lab.leases(2), [(0, None)], "{generation:?}");
    }
}

/// A supernode that lost its memory learns what is leased before it leases anything twice.
#[test]
fn a_lease_outlives_its_supernode_only_by_the_next_ones_word() {
    let meta = content(Generation::Validators);
    let mut lab = Lab::new(Config::default());
    for peer in 1..=3 {
        lab.connect(peer);
    }
    lab.resume(1, meta.clone(), 2, vec![(2, None)]);
    assert_eq!(lab.leases(1), [(2, None)], "it goes on");
    lab.resume(2, meta.clone(), 2, vec![(2, None)]);
    let told = lab.told(2);
    let ended = ToPeer::LeaseEnded {
        task: TASK,
        first: p(2),
        end: None,
    };
    assert!(told.contains(&ended), "another has it: {told:?}");
    // Others hold the beginning of it, and the end of it is leased.
    lab.resume(3, meta, 0, vec![(0, Some(6))]);
    let told = lab.told(3);
    assert!(
        !told.iter().any(|told| matches!(told, ToPeer::Lease { .. })),
        "{told:?}"
    );
    assert_eq!(lab.swarm.stats().leases, 1);
}
