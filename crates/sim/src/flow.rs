//! One connection alone: what is to be held against one real transfer, and against what can be worked out on paper.

use std::time::Duration;

use crate::{Class, Congestion, Network, Scenario, queue::Nanos, socket::Segment, world::World};

/// One transfer over one connection between two hosts.
#[derive(Debug, Clone)]
pub struct Flow {
    /// What the sender's kernel runs.
    pub congestion: Congestion,
    /// Bytes that are sent.
    pub size: u32,
    /// Content bits a second of both hosts' links.
    pub rate: f64,
    /// One way.
    pub latency: Duration,
    /// The part of the packets that are lost.
    pub loss: f64,
    /// What a link's queue has room for.
    pub queue: Duration,
    /// Bytes that a link passes at once after a pause.
    pub burst: u64,
    /// Draws what is lost.
    pub seed: u64,
}

/// Seconds from when the receiver begins to connect to when it has the last byte, as a download takes: one round trip to
/// connect, and one to ask.
pub fn flow(of: &Flow) -> f64 {
    let mut world = World::new(Scenario {
        size: 1,
        classes: vec![Class {
            delay: Duration::from_secs(1 << 20),
            ..Class::new(1, of.rate)
        }],
        origin_rate: of.rate,
        latency: of.latency,
        block: 4 << 10,
        relay: 4 << 10,
        seed: of.seed,
        network: Network {
            congestion: Some(of.congestion),
            loss: of.loss,
            queue: of.queue,
            burst: of.burst,
            ..Network::default()
        },
        ..Scenario::default()
    });
    world.now = 3 * of.latency.as_nanos() as Nanos;
    let conn = world.connect(None, 0);
    world.write(conn, Segment::Plain { bytes: of.size });
    while world.plain_bytes < u64::from(of.size)
        && let Some((at, what)) = world.queue.pop()
    {
        world.now = at;
        world.happen(what);
    }
    world.now as f64 / 1e9
}
