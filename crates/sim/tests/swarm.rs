use pantala_sim::*;
use std::time::Duration;
fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
fn show(name: &str, s: Scenario) {
    if let Ok(only) = std::env::var("ONLY")
        && !name.contains(&only)
    {
        return;
    }
    let floor = s.floor(200e6);
    #[allow(clippy::disallowed_methods)]
    let t = std::time::Instant::now();
    let r = std::panic::catch_unwind(|| run(s));
    match r {
        Ok(r) => {
            eprintln!(
                "{name}: ratio {:.3} complete {} {r}   events {} wall {:?} ctl {}",
                r.finish() / floor,
                r.complete(),
                r.happenings,
                t.elapsed(),
                r.control_messages
            );
            if r.peers.len() <= 10 {
                for p in &r.peers {
                    eprintln!(
                        "    start {:.2} first {:.3} last {:.3} stall {:.3} origin {:.1} peers {:.1} sent {:.1} asked {} lost {}",
                        p.started,
                        p.first_mib.unwrap_or(-1.),
                        p.last_byte.unwrap_or(-1.),
                        p.longest_stall,
                        p.from_origin as f64 / 1048576.,
                        p.from_peers as f64 / 1048576.,
                        p.sent as f64 / 1048576.,
                        p.asked_most,
                        p.lost
                    );
                }
            }
        }
        Err(_) => eprintln!("{name}: PANIC"),
    }
}
#[test]
fn explore() {
    let d = || Scenario {
        limit: Duration::from_secs(60),
        ..Scenario::default()
    };
    for stripes in [1, 2] {
        eprintln!("=========== stripes {stripes}");
        let d = || {
            let mut s = d();
            s.swarm.stripes = stripes;
            s
        };
        show(
            "kill parent",
            Scenario {
                faults: vec![Fault::KillParent { at: ms(1300) }],
                ..d()
            },
        );
        show(
            "freeze 3",
            Scenario {
                faults: vec![Fault::Freeze {
                    at: ms(1300),
                    peer: 3,
                }],
                ..d()
            },
        );
        show(
            "freeze holder",
            Scenario {
                faults: vec![Fault::FreezeHolder { at: ms(1300) }],
                ..d()
            },
        );
        show(
            "kill holder",
            Scenario {
                faults: vec![Fault::KillHolder { at: ms(1300) }],
                ..d()
            },
        );
        show(
            "supernode down",
            Scenario {
                faults: vec![Fault::SupernodeDown { at: ms(1300) }],
                ..d()
            },
        );
        show(
            "supernode down up",
            Scenario {
                faults: vec![
                    Fault::SupernodeDown { at: ms(1300) },
                    Fault::SupernodeUp { at: ms(2300) },
                ],
                ..d()
            },
        );
        show(
            "late joiner",
            Scenario {
                classes: vec![
                    Class::new(8, 200e6),
                    Class {
                        delay: ms(1500),
                        ..Class::new(1, 200e6)
                    },
                ],
                ..d()
            },
        );
        show(
            "late joiner after",
            Scenario {
                classes: vec![
                    Class::new(8, 200e6),
                    Class {
                        delay: ms(5000),
                        ..Class::new(1, 200e6)
                    },
                ],
                ..d()
            },
        );
        show(
            "every 2s",
            Scenario {
                arrivals: Arrivals::Every(ms(2000)),
                ..d()
            },
        );
        show(
            "slow peer last",
            Scenario {
                classes: vec![Class::new(7, 200e6), Class::new(1, 10e6)],
                limit: Duration::from_secs(120),
                ..d()
            },
        );
        show(
            "slow peer first",
            Scenario {
                classes: vec![Class::new(1, 10e6), Class::new(7, 200e6)],
                limit: Duration::from_secs(120),
                ..d()
            },
        );
        show(
            "slow peer middle",
            Scenario {
                classes: vec![
                    Class::new(2, 200e6),
                    Class::new(1, 10e6),
                    Class::new(5, 200e6),
                ],
                limit: Duration::from_secs(120),
                ..d()
            },
        );
        show(
            "slow reader first",
            Scenario {
                classes: vec![
                    Class {
                        reader_rate: Some(20e6),
                        ..Class::new(1, 200e6)
                    },
                    Class::new(7, 200e6),
                ],
                ..d()
            },
        );
        show(
            "slow reader mid",
            Scenario {
                classes: vec![
                    Class::new(2, 200e6),
                    Class {
                        reader_rate: Some(20e6),
                        ..Class::new(1, 200e6)
                    },
                    Class::new(5, 200e6),
                ],
                ..d()
            },
        );
        show(
            "small cache",
            Scenario {
                classes: vec![
                    Class {
                        cache: Some(16 << 20),
                        ..Class::new(4, 200e6)
                    },
                    Class {
                        cache: Some(16 << 20),
                        delay: ms(6000),
                        ..Class::new(1, 200e6)
                    },
                ],
                ..d()
            },
        );
        show(
            "liar",
            Scenario {
                classes: vec![
                    Class::new(3, 200e6),
                    Class {
                        corrupt: true,
                        ..Class::new(1, 200e6)
                    },
                    Class::new(4, 200e6),
                ],
                ..d()
            },
        );
        show(
            "range",
            Scenario {
                classes: vec![
                    Class {
                        range: Some((0, 16 << 20)),
                        ..Class::new(1, 200e6)
                    },
                    Class::new(3, 200e6),
                ],
                ..d()
            },
        );
        show(
            "range late",
            Scenario {
                classes: vec![
                    Class {
                        range: Some((32 << 20, 40 << 20)),
                        ..Class::new(1, 200e6)
                    },
                    Class::new(3, 200e6),
                ],
                ..d()
            },
        );
        show(
            "8x256",
            Scenario {
                size: 256 << 20,
                ..d()
            },
        );
        show(
            "100",
            Scenario {
                classes: vec![Class::new(100, 200e6)],
                ..d()
            },
        );
        show(
            "origin fast",
            Scenario {
                origin_rate: 400e6,
                classes: vec![Class::new(1, 20e6), Class::new(7, 200e6)],
                ..d()
            },
        );
    }
}
