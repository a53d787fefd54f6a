//! The scenarios of the measurements, simulated: one line each. `scan [NAME-PART] [STRIPES]`.

use std::time::Duration;

use pantala_sim::{Arrivals, Class, Fault, Scenario, run};

const RATE: f64 = 200e6;
const MIB: u64 = 1 << 20;
const HALF: Duration = Duration::from_millis(1300);

fn peers(count: usize) -> Scenario {
    Scenario {
        classes: vec![Class::new(count, RATE)],
        limit: Duration::from_secs(200),
        ..Scenario::default()
    }
}

/// Seven fast ones and a special one at a place in the order of arrival.
fn among(at: usize, special: Class) -> Scenario {
    let mut scenario = peers(8);
    scenario.classes = vec![Class::new(at, RATE), special, Class::new(7 - at, RATE)];
    scenario
}

fn fault(fault: Fault) -> Scenario {
    Scenario {
        faults: vec![fault],
        ..peers(8)
    }
}

fn every(pause: u64, scenario: Scenario) -> Scenario {
    Scenario {
        arrivals: Arrivals::Every(Duration::from_millis(pause)),
        ..scenario
    }
}

fn scenarios() -> Vec<(String, Scenario, Vec<usize>)> {
    let mut all: Vec<(String, Scenario, Vec<usize>)> = Vec::new();
    let mut add = |name: &str, scenario: Scenario| all.push((name.into(), scenario, Vec::new()));
    for n in [2, 4, 8, 12, 13, 16, 24, 32, 64, 100, 500] {
        add(&format!("once-{n}"), peers(n));
    }
    for n in [8, 16, 32, 100] {
        add(&format!("stagger-{n}"), every(300, peers(n)));
    }
    add("stagger-500-5ms", every(5, peers(500)));
    add("stagger-100-30ms", every(30, peers(100)));
    add("every-2s", every(2000, peers(8)));
    add(
        "once-8-256",
        Scenario {
            size: 256 * MIB,
            ..peers(8)
        },
    );
    for at in [0, 2, 5, 7] {
        all.push((
            format!("slow10-at{at}"),
            among(at, Class::new(1, 10e6)),
            vec![at],
        ));
    }
    let mut hundred = peers(100);
    hundred.classes = vec![
        Class::new(7, RATE),
        Class::new(1, 10e6),
        Class::new(60, RATE),
        Class::new(4, 10e6),
        Class::new(28, RATE),
    ];
    all.push(("slow10-5of100".into(), hundred, vec![7, 68, 69, 70, 71]));
    for at in [0, 2, 5] {
        for rate in [20e6, 50e6] {
            let class = Class {
                reader_rate: Some(rate),
                ..Class::new(1, RATE)
            };
            all.push((
                format!("reader{}-at{at}", rate / 1e6),
                among(at, class),
                vec![at],
            ));
        }
    }
    let mut add = |name: &str, scenario: Scenario| all.push((name.into(), scenario, Vec::new()));
    add(
        "origin400-holder20",
        Scenario {
            origin_rate: 400e6,
            ..among(0, Class::new(1, 20e6))
        },
    );
    if let Some(last) = all.last_mut() {
        last.2 = vec![0];
    }
    let mut add = |name: &str, scenario: Scenario| all.push((name.into(), scenario, Vec::new()));
    add(
        "origin50",
        Scenario {
            origin_rate: 50e6,
            ..peers(8)
        },
    );
    add(
        "origin400",
        Scenario {
            origin_rate: 400e6,
            ..peers(8)
        },
    );
    add(
        "origin1000",
        Scenario {
            origin_rate: 1000e6,
            ..peers(8)
        },
    );
    add("freeze-holder", fault(Fault::FreezeHolder { at: HALF }));
    add("kill-holder", fault(Fault::KillHolder { at: HALF }));
    add("kill-parent", fault(Fault::KillParent { at: HALF }));
    add("freeze-3", fault(Fault::Freeze { at: HALF, peer: 3 }));
    let mut big = fault(Fault::KillParent { at: HALF });
    big.classes = vec![Class::new(100, RATE)];
    add("kill-parent-100", big);
    add("supernode-down", fault(Fault::SupernodeDown { at: HALF }));
    let mut back = fault(Fault::SupernodeDown { at: HALF });
    back.faults.push(Fault::SupernodeUp {
        at: HALF + Duration::from_secs(1),
    });
    add("supernode-back", back);
    let mut late = peers(8);
    late.classes.push(Class {
        delay: Duration::from_millis(1500),
        ..Class::new(1, RATE)
    });
    add("late-joiner", late);
    let mut liar = peers(8);
    liar.classes = vec![
        Class::new(3, RATE),
        Class {
            corrupt: true,
            ..Class::new(1, RATE)
        },
        Class::new(4, RATE),
    ];
    add("liar", liar);
    let mut part = peers(4);
    part.classes = vec![
        Class {
            range: Some((0, 16 * MIB)),
            ..Class::new(1, RATE)
        },
        Class::new(3, RATE),
    ];
    add("part", part);
    let mut cache = peers(4);
    cache.classes = vec![Class {
        cache: Some(16 * MIB),
        ..Class::new(4, RATE)
    }];
    add("small-caches", cache);
    for rate in [20e6, 50e6, 100e6] {
        let name = format!("all-with-link{}-at2", rate / 1e6);
        add(&name, among(2, Class::new(1, rate)));
    }
    for rate in [10e6, 1000e6] {
        let mut all = peers(8);
        all.origin_rate = rate;
        all.classes = vec![Class::new(8, rate)];
        add(&format!("all-{}", rate / 1e6), all);
    }
    add(
        "latency-20ms",
        Scenario {
            latency: Duration::from_millis(20),
            ..peers(8)
        },
    );
    add(
        "b500-128",
        Scenario {
            size: 128 * MIB,
            ..peers(500)
        },
    );
    all
}

fn main() {
    let mut args = std::env::args().skip(1);
    let part = args.next().unwrap_or_default();
    let stripes = args.next().and_then(|text| text.parse().ok());
    println!(
        "{:<20} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>5}",
        "scenario", "worst", "finish", "1stMiB", "stall", "origin", "wasted", "moved"
    );
    for (name, mut scenario, apart) in scenarios() {
        if !name.contains(&part) {
            continue;
        }
        if let Some(stripes) = stripes {
            scenario.swarm.stripes = stripes;
        }
        let floor = scenario.floor(RATE);
        let report = run(scenario);
        let others = || {
            report
                .peers
                .iter()
                .enumerate()
                .filter(|(at, peer)| !apart.contains(at) && !peer.lost)
                .map(|(_, peer)| peer)
        };
        let worst =
            |figure: fn(&pantala_sim::PeerReport) -> f64| others().map(figure).fold(0.0, f64::max);
        println!(
            "{name:<20} {:>7.3} {:>7.3} {:>7.3} {:>7.3} {:>8.1} {:>7.1} {:>5}",
            worst(|peer| peer.last_byte.unwrap_or(f64::INFINITY)) / floor,
            report.finish() / floor,
            worst(|peer| peer.first_mib.unwrap_or(f64::INFINITY)),
            worst(|peer| peer.longest_stall),
            report.origin_bytes as f64 / MIB as f64,
            report.wasted_bytes as f64 / MIB as f64,
            report.leases_moved,
        );
    }
}
