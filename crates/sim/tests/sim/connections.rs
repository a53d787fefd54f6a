//! Connections with congestion control, and what each part of the model is there for: the rows below were measured on
//! sockets (docs/performance.md), and without the part that explains it a row is wrong.

use std::{sync::Arc, time::Duration};

use pantala_sim::{Class, Congestion, Flow, Network, Report, Scenario, flow, run};

const MIB: u64 = 1 << 20;
/// What of a full frame is content.
const CONTENT: f64 = 1448.0 / 1514.0;
const BBR: Congestion = Congestion::Bbr;
const CUBIC: Congestion = Congestion::Cubic;

/// 32 MiB at 50 Mbit/s, ÷ what they take over the link: the median of five draws.
fn alone(congestion: Congestion, way: f64, loss: f64) -> f64 {
    let (rate, size) = (50e6 * CONTENT, 32 << 20);
    let took = |seed| {
        flow(&Flow {
            congestion,
            size,
            rate,
            latency: Duration::from_secs_f64(way / 1e3),
            loss,
            queue: Duration::from_millis(50),
            burst: 256_000,
            seed,
        })
    };
    let mut times: Vec<f64> = (1..=5).map(took).collect();
    times.sort_by(f64::total_cmp);
    times[2] / (f64::from(size) * 8.0 / rate)
}

/// One curl from nginx, on sockets: `bench/netlab --mode curl --peers 1 --rate 50 --size 32 --delay … --loss … --cc …`.
#[test]
fn one_connection_alone_takes_as_long_as_a_real_one() {
    let measured = [
        (BBR, 0.1, 0.0, 1.00),
        (BBR, 10.0, 0.0, 1.01),
        (BBR, 40.0, 0.0, 1.09),
        (BBR, 10.0, 0.001, 1.01),
        (BBR, 40.0, 0.001, 1.09),
        (BBR, 10.0, 0.01, 1.03),
        (BBR, 40.0, 0.01, 1.15),
        (CUBIC, 10.0, 0.0, 1.01),
        (CUBIC, 40.0, 0.0, 1.10),
        (CUBIC, 10.0, 0.001, 2.0),
        (CUBIC, 40.0, 0.001, 7.7),
        (CUBIC, 10.0, 0.01, 7.6),
        (CUBIC, 40.0, 0.01, 27.0),
    ];
    let mut wrong = Vec::new();
    for (cc, way, loss, real) in measured {
        let simulated = alone(cc, way, loss);
        if (simulated / real - 1.0).abs() > 0.15 {
            wrong.push(format!(
                "{cc:?} {way} ms {loss}: {simulated:.2}, really {real}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Where losses are few and the way is long, CUBIC has what the older congestion control has: √(3 / 2p) segments a round trip
/// on average (RFC 9438, 4.3). Where nothing is lost a flow that begins with ten segments doubles them until the way is full.
#[test]
fn flows_follow_what_can_be_worked_out() {
    for (way, loss) in [(10.0f64, 0.01f64), (20.0, 0.01), (40.0, 0.01)] {
        let segments = (1.5 / loss).sqrt();
        let rate = segments * 1448.0 * 8.0 / (2.0 * way / 1e3);
        let expected = 50e6 * CONTENT / rate;
        let simulated = alone(CUBIC, way, loss);
        let off = (simulated / expected - 1.0).abs();
        assert!(off < 0.2, "{way} ms: {simulated:.2} for {expected:.2}");
    }
    for (cc, way) in [(BBR, 20.0f64), (BBR, 40.0), (CUBIC, 20.0), (CUBIC, 40.0)] {
        let (trip, rate) = (2.0 * way / 1e3, 50e6 * CONTENT / 8.0);
        // Doubling from ten segments until a round trip's worth is under way: each of those round trips is not full.
        let full = rate * trip;
        let doublings = (full / 14480.0).log2().ceil();
        let lost: f64 = (0..doublings as i32)
            .map(|round| trip * (1.0 - 14480.0 * 2f64.powi(round) / full))
            .sum();
        // And two to connect and to ask, less the link's burst.
        let floor = 32.0 * 1048576.0 / rate;
        let expected = (floor + lost + 2.0 * trip - 256e3 / rate) / floor;
        let simulated = alone(cc, way, 0.0);
        let off = (simulated - expected).abs();
        assert!(
            off < 0.05,
            "{cc:?} {way} ms: {simulated:.3} for {expected:.3}"
        );
    }
}

/// Eight peers with links of so many Mbit/s each, as the lab has them.
struct Row {
    peers: u32,
    mbit: f64,
    contents: Vec<u64>,
    every: f64,
    way: f64,
    loss: f64,
    cc: Congestion,
}

impl Row {
    fn scenario(&self, seed: u64, change: impl Fn(&mut Network)) -> Scenario {
        let rate = self.mbit * 1e6 * CONTENT;
        let order: Arc<[u32]> = (0..self.contents.len() as u32).collect();
        let class = |peer: u32| Class {
            cache: Some(512 * MIB),
            delay: Duration::from_secs_f64(f64::from(peer) * self.every),
            order: Some(order.clone()),
            ..Class::new(1, rate)
        };
        let mut network = Network {
            congestion: Some(self.cc),
            loss: self.loss,
            burst: 256_000,
            ..Network::default()
        };
        change(&mut network);
        let block = (self.mbit * 1e6 / 8.0 * 0.002) as u32;
        Scenario {
            contents: self.contents.clone(),
            classes: (0..self.peers).map(class).collect(),
            origin_rate: rate,
            latency: Duration::from_secs_f64(1e-4 + self.way / 1e3),
            parallel: 3,
            block,
            relay: block,
            network,
            seed,
            ..Scenario::default()
        }
    }

    /// The worst peer ÷ its floor: the median of three draws.
    fn ratio(&self, change: impl Fn(&mut Network)) -> f64 {
        let floor = self.contents.iter().sum::<u64>() as f64 * 8.0 / (self.mbit * 1e6 * CONTENT);
        let worst = |seed| {
            let report: Report = run(self.scenario(seed, &change));
            assert!(report.complete(), "{report}");
            report.slowest() / floor
        };
        let mut ratios: Vec<f64> = (1..=3).map(worst).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[1]
    }
}

fn near(contents: Vec<u64>, every: f64) -> Row {
    Row {
        peers: 8,
        mbit: 200.0,
        contents,
        every,
        way: 0.0,
        loss: 0.0,
        cc: BBR,
    }
}

fn far(way: f64, loss: f64, cc: Congestion) -> Row {
    Row {
        peers: 8,
        mbit: 50.0,
        contents: vec![32 * MIB],
        every: 0.0,
        way,
        loss,
        cc,
    }
}

fn as_it_is(_: &mut Network) {}

/// Three contents of 72 MiB side by side, a node every half second, take 1.46–1.93 × each node's own floor: all that two
/// hosts have in common goes over one connection, one piece after the other, so that each task stands still for as long as two
/// pieces of others take, its members call each other slow, and the remedies load one uplink twice. Where each task had
/// connections of its own and these took turns block by block, nothing of that would be seen: what this simulator once said.
#[test]
fn what_tasks_share_a_connection_for_is_seen() {
    let row = near(vec![72 * MIB; 3], 0.5);
    let real = row.ratio(as_it_is);
    assert!((1.4..2.0).contains(&real), "{real:.3}");
    let ideal = row.ratio(|it| it.congestion = None);
    assert!(ideal > 1.3, "with ideal connections {ideal:.3}");
    let apart = row.ratio(|it| (it.congestion, it.order) = (None, false));
    assert!(apart < 1.05, "without order {apart:.3}");
}

/// Three contents have one link each way between them: with links of their own they would take a third of the time.
#[test]
fn contents_share_a_host_s_links() {
    let row = near(vec![72 * MIB; 3], 0.0);
    let (real, apart) = (row.ratio(as_it_is), row.ratio(|it| it.shared_links = false));
    assert!((1.0..1.25).contains(&real), "{real:.3}");
    assert!(apart < 0.6, "without shared links {apart:.3}");
}

/// Eight peers 20 ms from each other take 1.15–1.27 × the floor.
#[test]
fn a_connection_has_to_find_out_what_it_may_send() {
    let row = far(20.0, 0.0, BBR);
    let (real, at_once) = (row.ratio(as_it_is), row.ratio(|it| it.congestion = None));
    assert!((1.1..1.35).contains(&real), "{real:.3}");
    assert!(at_once < 1.09, "without ramp-up {at_once:.3}");
}

/// With CUBIC, 10 ms one way and one packet in a hundred lost, one transfer alone takes 7.6 × the floor, and eight peers little
/// less.
#[test]
fn losses_hold_up_what_minds_them() {
    let row = far(10.0, 0.01, CUBIC);
    let (real, none) = (row.ratio(as_it_is), row.ratio(|it| it.loss = 0.0));
    assert!((4.0..8.5).contains(&real), "{real:.3}");
    assert!(none < 1.3, "without loss {none:.3}");
}

/// A second task on a connection that stands needs no handshake, and what a host asks another for goes over one.
#[test]
fn all_the_same_with_the_same_seed() {
    let row = far(10.0, 0.001, BBR);
    assert_eq!(
        run(row.scenario(7, as_it_is)),
        run(row.scenario(7, as_it_is))
    );
    assert_ne!(
        run(row.scenario(7, as_it_is)),
        run(row.scenario(8, as_it_is))
    );
}

/// A peer reads as many contents at a time as it is told, in its own order.
#[test]
fn contents_are_read_some_at_a_time_in_their_order() {
    let mut scenario = near(vec![4 * MIB; 6], 0.0).scenario(1, as_it_is);
    let waits = |scenario: &Scenario| {
        let report = run(scenario.clone());
        assert!(report.complete(), "{report}");
        let waits = report.peers.iter().map(|peer| peer.longest_first);
        (waits.fold(0.0, f64::max), report.slowest())
    };
    scenario.parallel = 1;
    let (one, took) = waits(&scenario);
    scenario.parallel = 6;
    let (six, all) = waits(&scenario);
    // Each piece comes first where there is one content at a time, and among six where there are six.
    assert!(one < six, "{one:.3} {six:.3}");
    assert!(took < 1.6 * all && all < 1.6 * took, "{took:.3} {all:.3}");
    for (at, class) in scenario.classes.iter_mut().enumerate() {
        class.order = Some((0..2).map(|step| ((at + step) % 6) as u32).collect());
    }
    let report = run(scenario);
    assert!(report.complete(), "{report}");
    assert!(report.peers.iter().all(|peer| peer.taken == 8 * MIB));
}
