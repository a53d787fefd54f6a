//! Whole swarms on the virtual clock: exact, and the same every time.
use std::time::Duration;

use pantala_sim::{Scenario, run};

#[test]
fn explore() {
    for stripes in [1, 2, 3] {
        let mut s = Scenario::default();
        s.swarm.stripes = stripes;
        s.limit = Duration::from_secs(60);
        let floor = s.floor(200e6);
        let r = run(s);
        eprintln!(
            "stripes {stripes} floor {floor:.3} ratio {:.3} {r} events {}",
            r.finish() / floor,
            r.happenings
        );
        for p in &r.peers {
            eprintln!("{p:?}");
        }
    }
}
