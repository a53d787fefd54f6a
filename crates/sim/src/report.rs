use std::fmt;

use crate::Sample;

/// What came of a scenario. Times are in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What each reader saw: where each peer has one, in order of the classes.
    pub peers: Vec<PeerReport>,
    /// Bytes of the contents that were asked for.
    pub distinct_bytes: u64,
    /// Bytes that the origin sent.
    pub origin_bytes: u64,
    /// Bytes that nobody had asked for any more when they came.
    pub wasted_bytes: u64,
    /// Bytes that went from one zone to another.
    pub across_bytes: u64,
    /// Pieces that left memory to make room.
    pub evicted_pieces: u64,
    /// Leases that moved on because their holder stalled or died.
    pub leases_moved: u64,
    /// Messages of the peers to the supernode.
    pub control_messages: u64,
    /// Happenings simulated.
    pub happenings: u64,
    /// When the simulation ended.
    pub ended: f64,
    /// Figures over time, if they were asked for.
    pub series: Vec<Sample>,
}

/// What one reader saw, and its peer while that was the last to come.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PeerReport {
    /// The peer's class, by number.
    pub class: usize,
    /// When its reader came.
    pub started: f64,
    /// How long its reader waited for the first MiB (or all, if that is less).
    pub first_mib: Option<f64>,
    /// The longest that it waited for the first piece of a content.
    pub longest_first: f64,
    /// How long until its reader had all.
    pub last_byte: Option<f64>,
    /// The longest time between two pieces, after the first.
    pub longest_stall: f64,
    /// Bytes its reader has taken, in order.
    pub taken: u64,
    /// Bytes its reader wants.
    pub wanted: u64,
    /// Bytes from the origin.
    pub from_origin: u64,
    /// Bytes from other peers.
    pub from_peers: u64,
    /// Bytes to other peers.
    pub sent: u64,
    /// The most pieces asked for at once.
    pub asked_most: usize,
    /// The most bytes of pieces that its host held and received at once.
    pub memory_most: u64,
    /// It was killed or frozen.
    pub lost: bool,
}

impl Report {
    /// Readers of peers that were neither killed nor frozen.
    pub fn living(&self) -> impl Iterator<Item = &PeerReport> {
        self.peers.iter().filter(|peer| !peer.lost)
    }

    /// Whether every living peer's reader got every byte.
    pub fn complete(&self) -> bool {
        self.living()
            .all(|peer| peer.last_byte.is_some() && peer.taken == peer.wanted)
    }

    /// When the last living peer was done; infinite when one was not.
    pub fn finish(&self) -> f64 {
        self.living()
            .map(|peer| {
                peer.last_byte
                    .map_or(f64::INFINITY, |last| peer.started + last)
            })
            .fold(0.0, f64::max)
    }

    /// The longest that a living peer's reader took for all.
    pub fn slowest(&self) -> f64 {
        self.living()
            .map(|peer| peer.last_byte.unwrap_or(f64::INFINITY))
            .fold(0.0, f64::max)
    }

    /// The longest wait for a first MiB.
    pub fn first_mib(&self) -> f64 {
        self.living()
            .map(|peer| peer.first_mib.unwrap_or(f64::INFINITY))
            .fold(0.0, f64::max)
    }

    /// The longest stall of a living peer.
    pub fn longest_stall(&self) -> f64 {
        self.living()
            .map(|peer| peer.longest_stall)
            .fold(0.0, f64::max)
    }

    /// The time in which this share of the living peers was done (0.5: the median).
    pub fn quantile(&self, share: f64) -> f64 {
        let mut times: Vec<f64> = self
            .living()
            .map(|peer| peer.last_byte.unwrap_or(f64::INFINITY))
            .collect();
        times.sort_by(f64::total_cmp);
        let at = (share * times.len() as f64).ceil() as usize;
        times
            .get(at.saturating_sub(1))
            .copied()
            .unwrap_or(f64::INFINITY)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "done {:.3} s, p50 {:.3} s, p99 {:.3} s, first MiB {:.3} s, longest stall {:.3} s, origin {:.1} MiB, wasted {:.1} MiB, leases moved {}",
            self.finish(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.first_mib(),
            self.longest_stall(),
            self.origin_bytes as f64 / f64::from(1 << 20),
            self.wasted_bytes as f64 / f64::from(1 << 20),
            self.leases_moved,
        )
    }
}
