//! The figures of a run: what the table shows and the JSON holds.

use pantala_sim::{PeerReport, Report, Scenario};
use serde::Serialize;

use crate::file::{Figure, Goal};

/// All of a run. Times are in seconds of the virtual clock where nothing else is said.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub scenario: String,
    pub about: String,
    pub seed: u64,
    pub classes: Vec<Readers>,
    pub all: Readers,
    pub distinct_bytes: u64,
    pub origin_bytes: u64,
    pub origin_ratio: f64,
    pub across_bytes: u64,
    pub across_ratio: f64,
    pub wasted_bytes: u64,
    pub evicted_pieces: u64,
    pub leases_moved: u64,
    pub control_messages: u64,
    pub virtual_seconds: f64,
    pub wall_seconds: f64,
    pub happenings: u64,
    pub goals: Vec<Met>,
}

/// The readers of a class, or all.
#[derive(Debug, Serialize)]
pub struct Readers {
    pub name: String,
    pub readers: usize,
    /// Their peers were killed.
    pub lost: usize,
    /// They had not everything when the time was over.
    pub undone: usize,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub last: f64,
    /// The most that a reader took ÷ what its bytes take over its link.
    pub last_ratio: f64,
    pub first_mib_p50: f64,
    pub first_mib_last: f64,
    pub stall_last: f64,
}

/// A goal, and what came of it.
#[derive(Debug, Serialize)]
pub struct Met {
    pub figure: String,
    pub at_most: f64,
    pub measured: f64,
    pub met: bool,
}

/// What of `sorted` this part is at most.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The times of readers that were not lost, ascending; infinite for those not done.
pub fn times<'a>(
    peers: impl Iterator<Item = &'a PeerReport>,
    time: impl Fn(&PeerReport) -> Option<f64>,
) -> Vec<f64> {
    let living = peers.filter(|peer| !peer.lost);
    let mut times: Vec<f64> = living
        .map(|peer| time(peer).unwrap_or(f64::INFINITY))
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

impl Readers {
    fn of(name: &str, peers: &[&PeerReport], scenario: &Scenario) -> Self {
        let all = || peers.iter().copied();
        let last = times(all(), |peer| peer.last_byte);
        let first = times(all(), |peer| peer.first_mib);
        let ratios = times(all(), |peer| {
            let rate = scenario.classes[peer.class].floor_rate();
            let floor = peer.wanted as f64 * 8.0 / rate;
            peer.last_byte.map(|last| last / floor)
        });
        let stalls = times(all(), |peer| Some(peer.longest_stall));
        Self {
            name: name.to_owned(),
            readers: peers.len(),
            lost: all().filter(|peer| peer.lost).count(),
            undone: last.iter().filter(|last| last.is_infinite()).count(),
            p50: quantile(&last, 0.5),
            p99: quantile(&last, 0.99),
            p999: quantile(&last, 0.999),
            last: quantile(&last, 1.0),
            last_ratio: quantile(&ratios, 1.0),
            first_mib_p50: quantile(&first, 0.5),
            first_mib_last: quantile(&first, 1.0),
            stall_last: quantile(&stalls, 1.0),
        }
    }
}

impl Figures {
    /// Works the figures of a run out.
    pub fn new(
        name: &str,
        file: &crate::file::File,
        scenario: &Scenario,
        report: &Report,
        wall: std::time::Duration,
    ) -> Self {
        let of = |class: Option<usize>| {
            let peers = report.peers.iter();
            let found = peers.filter(|peer| class.is_none_or(|class| peer.class == class));
            found.collect::<Vec<_>>()
        };
        let names = file.classes();
        let distinct = report.distinct_bytes.max(1) as f64;
        let mut figures = Self {
            scenario: name.to_owned(),
            about: file.about.clone(),
            seed: scenario.seed,
            classes: names
                .iter()
                .enumerate()
                .map(|(class, name)| Readers::of(name, &of(Some(class)), scenario))
                .collect(),
            all: Readers::of("all", &of(None), scenario),
            distinct_bytes: report.distinct_bytes,
            origin_bytes: report.origin_bytes,
            origin_ratio: report.origin_bytes as f64 / distinct,
            across_bytes: report.across_bytes,
            across_ratio: report.across_bytes as f64 / distinct,
            wasted_bytes: report.wasted_bytes,
            evicted_pieces: report.evicted_pieces,
            leases_moved: report.leases_moved,
            control_messages: report.control_messages,
            virtual_seconds: report.ended,
            wall_seconds: wall.as_secs_f64(),
            happenings: report.happenings,
            goals: Vec::new(),
        };
        figures.goals = file.goal.iter().map(|goal| figures.met(goal)).collect();
        figures
    }

    fn met(&self, goal: &Goal) -> Met {
        let all = &self.all;
        let (name, measured) = match goal.figure {
            Figure::P50 => ("p50, s", all.p50),
            Figure::P99 => ("p99, s", all.p99),
            Figure::P999 => ("p99.9, s", all.p999),
            Figure::Last => ("last, s", all.last),
            Figure::LastRatio => ("last ÷ (S/B)", all.last_ratio),
            Figure::FirstMib => ("first MiB, s", all.first_mib_last),
            Figure::Stall => ("longest stall, s", all.stall_last),
            Figure::OriginRatio => ("origin ÷ S", self.origin_ratio),
            Figure::AcrossRatio => ("across ÷ S", self.across_ratio),
        };
        Met {
            figure: name.to_owned(),
            at_most: goal.at_most,
            measured,
            met: measured <= goal.at_most,
        }
    }
}
