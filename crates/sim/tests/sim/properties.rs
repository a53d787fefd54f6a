//! What must hold of a whole swarm, whatever comes together in it: small swarms drawn at random,
//! with everything that may go wrong.

use std::time::Duration;

use pantala_sim::{Arrivals, Between, Class, Congestion, Fault, PeerReport, Report, Scenario, run};
use proptest::{prelude::*, sample::select, test_runner::RngSeed};

const MIB: u64 = 1 << 20;
/// What every piece of these contents has.
const PIECE: u64 = MIB;
/// How long a reader may stand still for what has nothing to do with how quick the links are: who
/// asked the origin for all freezes, and its ten seconds to answer are over; then its lease.
const PAUSE: f64 = 15.0;

fn class() -> impl Strategy<Value = Class> {
    let links = select(vec![10e6, 50e6, 200e6, 200e6, 200e6, 1e9]);
    let reader = prop::option::weighted(0.2, select(vec![5e6, 20e6, 100e6]));
    let cache = prop::option::weighted(0.4, 4u64..20);
    let delay = prop_oneof![3 => Just(0), 1 => 0u64..4000];
    (1usize..10, links, reader, cache, delay, 0usize..2, 0u32..20).prop_map(
        |(count, rate, reader_rate, cache, delay, zone, corrupt)| Class {
            reader_rate,
            cache: cache.map(|pieces| pieces * PIECE),
            delay: Duration::from_millis(delay),
            zone,
            corrupt: corrupt == 0,
            ..Class::new(count, rate)
        },
    )
}

fn arrivals() -> impl Strategy<Value = Arrivals> {
    let ms = Duration::from_millis;
    prop_oneof![
        3 => Just(Arrivals::AtOnce),
        1 => (1u64..500).prop_map(move |pause| Arrivals::Every(ms(pause))),
        1 => (2usize..8, 100u64..3000).prop_map(move |(count, pause)| Arrivals::Waves {
            count,
            every: ms(pause),
        }),
    ]
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = (0u32..7, 0u64..5000, 0usize..30, 1u64..3000).prop_map(|(kind, at, peer, up)| {
        let ms = Duration::from_millis;
        let at = ms(at);
        match kind {
            0 => vec![Fault::Kill { at, peer }],
            1 => vec![Fault::Freeze { at, peer }],
            2 => vec![Fault::KillHolder { at }],
            3 => vec![Fault::FreezeHolder { at }],
            4 => vec![Fault::KillParent { at }],
            5 => vec![Fault::SupernodeDown { at }],
            _ => vec![
                Fault::SupernodeDown { at },
                Fault::SupernodeUp { at: at + ms(up) },
            ],
        }
    });
    let some = prop::collection::vec(fault, 1..4).prop_map(|faults| faults.concat());
    prop_oneof![1 => Just(Vec::new()), 1 => some]
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let contents = prop_oneof![
        3 => (2u64..24).prop_map(|size| vec![size * MIB + 12345]),
        1 => (1u64..12, 1u64..12).prop_map(|(a, b)| vec![a * MIB, b * MIB]),
    ];
    let classes = prop::collection::vec(class(), 1..4);
    let origin = select(vec![50e6, 200e6, 1e9]);
    let way = (select(vec![20e6, 100e6, 1e9]), 1u64..20, any::<bool>());
    (
        contents,
        classes,
        origin,
        way,
        arrivals(),
        faults(),
        any::<u64>(),
    )
        .prop_map(
            |(contents, mut classes, origin_rate, way, arrivals, faults, seed)| {
                // One liar: many together can keep a swarm busy for as long as they like.
                let mut liars = 0;
                for class in &mut classes {
                    liars += usize::from(class.corrupt);
                    class.corrupt &= liars == 1;
                    class.count = if class.corrupt { 1 } else { class.count };
                }
                // Somebody must be there to read.
                if classes.iter().map(|class| class.count).sum::<usize>() < 2 {
                    classes.push(Class::new(2, 200e6));
                }
                let among = |fault: &mut Fault, peers: usize| match fault {
                    Fault::Kill { peer, .. } | Fault::Freeze { peer, .. } => *peer %= peers,
                    _ => {}
                };
                let peers = classes.iter().map(|class| class.count).sum();
                let mut faults = faults;
                faults.iter_mut().for_each(|fault| among(fault, peers));
                faults.sort_by_key(|fault| match *fault {
                    Fault::SupernodeDown { at } => (at, 0),
                    Fault::SupernodeUp { at } => (at, 1),
                    _ => (Duration::MAX, 2),
                });
                let mut swarm = pantala_swarm::Config::default();
                if !way.2 {
                    swarm.locality = pantala_swarm::Locality::Measured;
                }
                Scenario {
                    contents,
                    classes,
                    origin_rate,
                    swarm,
                    between: vec![Between {
                        zones: (0, 1),
                        rate: way.0,
                        latency: Duration::from_millis(way.1),
                    }],
                    labels: way.2,
                    arrivals,
                    faults,
                    seed,
                    limit: Duration::from_secs(3600),
                    ..Scenario::default()
                }
            },
        )
}

fn peers(scenario: &Scenario) -> usize {
    scenario.classes.iter().map(|class| class.count).sum()
}

/// How long a reader may stand still: everybody takes the piece it waits for over the slowest link
/// there is, one after the other, before it does; each twice, as a late piece may be asked for.
fn patience(scenario: &Scenario) -> f64 {
    let links = scenario.classes.iter().map(|class| class.floor_rate());
    let ways = scenario.between.iter().map(|way| way.rate);
    let slowest = links
        .chain(ways)
        .chain([scenario.origin_rate])
        .fold(f64::INFINITY, f64::min);
    let tasks = scenario.sizes().len();
    PAUSE + 2.0 * (peers(scenario) * tasks) as f64 * (PIECE * 8) as f64 / slowest
}

fn stood_still(peer: &PeerReport) -> f64 {
    peer.first_mib.unwrap_or(0.0).max(peer.longest_stall)
}

/// What the origin may be asked for: everything once. Beyond that a handful of pieces where links are
/// so unequal that somebody is helped to what others have not brought in seconds, and with each
/// fault what a lease holder had and passed on to nobody. Where nobody vouches for digests, or
/// memory forgets, or a liar is in between, each may have to ask for itself.
fn egress(scenario: &Scenario) -> u64 {
    let content = scenario.distinct();
    // What is on its way when a transfer ends was sent as well.
    let every = (peers(scenario) + 1) as u64 * (content + 2 * PIECE);
    let forgets = scenario.classes.iter().any(|class| class.cache.is_some());
    let lies = scenario.classes.iter().any(|class| class.corrupt);
    let alone = |fault: &Fault| matches!(fault, Fault::SupernodeDown { .. });
    if forgets || lies || scenario.faults.iter().any(alone) {
        return every;
    }
    content + (8 + 16 * scenario.faults.len() as u64) * PIECE
}

fn check(scenario: &Scenario) -> Result<Report, TestCaseError> {
    let report = run(scenario.clone());
    for peer in report.living() {
        prop_assert_eq!(peer.taken, peer.wanted, "bytes are missing: {:?}", peer);
        prop_assert!(peer.last_byte.is_some(), "a reader starved: {:?}", peer);
        let most = patience(scenario);
        prop_assert!(
            stood_still(peer) <= most,
            "more than {most} s: {:?} {report}",
            peer
        );
    }
    for peer in &report.peers {
        if let Some(cache) = scenario.classes[peer.class].cache {
            prop_assert!(peer.memory_most <= cache, "over its memory: {:?}", peer);
        }
    }
    let most = egress(scenario);
    prop_assert!(report.origin_bytes <= most, "more than {most}: {report}");
    Ok(report)
}

proptest! {
    // The same cases with each run: a rare one that is new is found by PROPTEST_RNG_SEED and
    // PROPTEST_CASES, not by chance in somebody's unrelated work.
    #![proptest_config(ProptestConfig {
        cases: cases(),
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_comes_together_every_reader_is_fed(scenario in scenario()) {
        check(&scenario)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases() / 6,
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// How long it takes under congestion control, and what the origin then sends, is what is measured elsewhere.
    #[test]
    fn with_congestion_control_every_reader_is_fed_too(
        mut scenario in scenario(),
        congestion in select(vec![Congestion::Bbr, Congestion::Cubic]),
        loss in select(vec![0.0, 0.001, 0.01]),
        way in 0u64..40,
    ) {
        scenario.network.congestion = Some(congestion);
        scenario.network.loss = loss;
        scenario.latency += ms(way);
        let report = run(scenario.clone());
        for peer in report.living() {
            prop_assert_eq!(peer.taken, peer.wanted, "bytes are missing: {:?}", peer);
            prop_assert!(peer.last_byte.is_some(), "a reader starved: {:?}", peer);
        }
        for peer in &report.peers {
            if let Some(cache) = scenario.classes[peer.class].cache {
                prop_assert!(peer.memory_most <= cache, "over its memory: {:?}", peer);
            }
        }
    }
}

fn cases() -> u32 {
    let set = std::env::var("PROPTEST_CASES").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(600)
}

fn seed() -> u64 {
    let set = std::env::var("PROPTEST_RNG_SEED").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(1)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn far(class: Class) -> Class {
    Class { zone: 1, ..class }
}

fn narrow(rate: f64, latency: u64) -> Vec<Between> {
    vec![Between {
        zones: (0, 1),
        rate,
        latency: ms(latency),
    }]
}

/// Found above. Who alone is said to hold a piece froze before the newcomer came: it asked who has
/// the piece again and again and was told the same for ever.
#[test]
fn who_cannot_be_reached_is_not_waited_for() {
    check(&Scenario {
        contents: vec![2_109_497],
        classes: vec![Class::new(1, 10e6), Class::new(2, 200e6)],
        origin_rate: 50e6,
        arrivals: Arrivals::Waves {
            count: 2,
            every: ms(2352),
        },
        faults: vec![
            Fault::Freeze {
                at: ms(841),
                peer: 0,
            },
            Fault::Kill { at: ms(1), peer: 1 },
        ],
        ..Scenario::default()
    })
    .unwrap();
}

/// Found above. Behind a narrow link a whole data centre waited for who fetched over it, was sent
/// to the holders on the other side one by one, and then to the origin, over the same link.
#[test]
fn a_data_centre_behind_a_narrow_link_takes_each_piece_in_once() {
    let report = check(&Scenario {
        contents: vec![10 * MIB, 3 * MIB],
        classes: vec![Class::new(2, 50e6), far(Class::new(13, 200e6))],
        origin_rate: 50e6,
        between: narrow(20e6, 8),
        seed: 627,
        ..Scenario::default()
    });
    let report = report.unwrap();
    assert!(report.origin_bytes <= 17 * MIB, "{report}");
}

/// Found above. Second requests were rationed by how long pieces had taken, pauses included: each
/// wait made the next longer, while nothing came at all.
#[test]
fn where_nothing_comes_somebody_else_is_asked() {
    check(&Scenario {
        contents: vec![17_838_137],
        classes: vec![
            far(Class::new(6, 200e6)),
            Class {
                corrupt: true,
                delay: ms(957),
                reader_rate: Some(20e6),
                ..Class::new(1, 50e6)
            },
            far(Class::new(5, 10e6)),
        ],
        between: narrow(100e6, 8),
        faults: vec![
            Fault::Freeze {
                at: ms(2722),
                peer: 0,
            },
            Fault::Freeze {
                at: ms(1508),
                peer: 2,
            },
        ],
        seed: 15_812_871_646_752_676_020,
        ..Scenario::default()
    })
    .unwrap();
}

/// Found above. The supernode went while the lease holder's transfer was past a piece that another
/// had been lent: the reader waited for the end of the transfer.
#[test]
fn a_reader_does_not_wait_for_what_comes_after() {
    check(&Scenario {
        contents: vec![22_032_441],
        classes: vec![
            far(Class {
                delay: ms(3221),
                ..Class::new(2, 50e6)
            }),
            far(Class::new(7, 200e6)),
            far(Class {
                cache: Some(6 * MIB),
                ..Class::new(7, 10e6)
            }),
        ],
        origin_rate: 50e6,
        between: narrow(20e6, 11),
        faults: vec![Fault::SupernodeDown { at: ms(1739) }],
        seed: 2775,
        limit: Duration::from_secs(600),
        ..Scenario::default()
    })
    .unwrap();
}

/// Found above. Two waited for each other, each told that the other is receiving the piece, and asked
/// for two pieces by turns, so that neither question was ever seen to be one that is repeated.
#[test]
fn a_liar_a_frozen_holder_and_a_new_supernode() {
    check(&Scenario {
        contents: vec![23_081_017],
        classes: vec![
            Class::new(4, 50e6),
            far(Class {
                cache: Some(6 * MIB),
                corrupt: true,
                ..Class::new(1, 200e6)
            }),
        ],
        between: narrow(100e6, 1),
        faults: vec![
            Fault::SupernodeDown { at: ms(2597) },
            Fault::SupernodeUp { at: ms(3763) },
            Fault::FreezeHolder { at: ms(1690) },
        ],
        seed: 15_443_877_809_449_023_231,
        limit: Duration::from_secs(3600),
        ..Scenario::default()
    })
    .unwrap();
}
