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
    /// What decides who pulls from whom.
    pub shape: Shape,
    /// The most pieces of one source lease; 0: up to what others hold or have leases for, so that one
    /// transfer from the origin brings all. In a mesh who asks for a piece that another has the lease
    /// for then gets the next ones, so that leases are spread over the members.
    pub lease_pieces: u32,
    /// Whether a member that does not keep up becomes a leaf, so that nobody waits for it.
    pub make_leaves: bool,
    /// Whether a lease holder that brings little is held against somebody else at the origin.
    pub probe: bool,
    /// Tasks that one peer may be a member of: a hostile one must not fill our memory. Who has more is
    /// told that no account is kept of the rest.
    pub tasks_per_peer: usize,
    /// Tasks without a member are forgotten after this long.
    pub forget_after: Duration,
    /// Who is near whom.
    pub locality: Locality,
    /// Seed of the only randomness there is: which other parents a peer is told.
    pub seed: u64,
}

/// What decides who pulls from whom. Trees are best (`docs/performance.md`); the others are what they
/// are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Trees that last, as many as stripes: each member has a preferred parent in each.
    #[default]
    Trees,
    /// No parent is preferred: each member is told [`Config::others`] neighbours by lot, which are told
    /// of it as well, and pulls what those have.
    Mesh,
    /// A tree for each piece, made of who asks for it: each member asks for every piece and is told
    /// whom to wait for.
    PerPiece,
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
            shape: Shape::Trees,
            lease_pieces: 0,
            make_leaves: true,
            probe: true,
            tasks_per_peer: 1 << 17,
            forget_after: Duration::from_secs(600),
            locality: Locality::default(),
            seed: 0,
        }
    }
}

/// How it is found out who is near whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locality {
    /// The operator's labels say so, and nothing else.
    #[default]
    Labels,
    /// Peers without labels are asked to measure the round trips to others.
    Measured,
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
    /// Pieces that messages of peers have spoken of and that were looked at: what hearing them costs.
    pub pieces_heard: u64,
    /// Members that were looked at, to see how they get on or to find somebody a parent: what watching
    /// costs.
    pub members_looked_at: u64,
    /// Data centres found from round trips; 0 where all is one.
    pub sites: usize,
}
