use std::time::Duration;

use pantala_core::{
    PeerId,
    control::{FromPeer, Hello, ToPeer},
};

/// What an operator or a simulation may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many stripes a task's trees have: 1 is a chain, 2 or more are interior-disjoint trees
    /// (each peer passes on about as much as it receives, whatever the number). 0 chooses: a chain
    /// of [`Config::chain`] peers, and two trees below its end.
    pub stripes: u32,
    /// Where `stripes` is 0: how many peers in step make a chain before trees begin.
    pub chain: u32,
    /// How long a lease holder may be silent, or learn nothing, until its lease moves on.
    pub lease_timeout: Duration,
    /// How long a lease holder may live without a byte from the origin until its lease moves on.
    pub stall_timeout: Duration,
    /// How long metadata without explicit freshness is taken for fresh.
    pub fresh_for: Duration,
    /// How many parents besides the preferred ones a peer is told.
    pub others: usize,
    /// Tasks without a member are forgotten after this long.
    pub forget_after: Duration,
    /// Seed of the only randomness there is: which other parents a peer is told.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stripes: 0,
            chain: 12,
            lease_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(5),
            fresh_for: Duration::from_secs(10),
            others: 6,
            forget_after: Duration::from_secs(600),
            seed: 0,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "an event is taken apart at once, never stored"
)]
pub enum Event {
    /// A peer's standing connection is there. A second one of the same peer replaces the first.
    Connected {
        /// What it said of itself.
        hello: Hello,
    },
    /// A connected peer says something.
    Message {
        /// Who.
        peer: PeerId,
        /// What.
        message: FromPeer,
    },
    /// A peer's standing connection is gone, and the peer with it.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
    /// Nothing but time has passed.
    Tick,
}

/// Something to tell a peer. Messages to one peer stay in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Whom.
    pub to: PeerId,
    /// What.
    pub message: ToPeer,
}

/// Figures for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connected peers.
    pub peers: usize,
    /// Tasks known.
    pub tasks: usize,
    /// Memberships: peers of all tasks summed.
    pub members: usize,
    /// Source leases held now.
    pub leases: usize,
    /// Leases that moved on because their holder stalled or died.
    pub leases_moved: u64,
    /// Parents chosen so far.
    pub parents_chosen: u64,
}
