//! The scenarios that sockets and simulator have in common, as `bench/sweep` writes them: bench/README.md says what each word means.

use std::time::Duration;

use pantala_sim::{Class, Congestion, Network, PeerReport, Report, Scenario};
use serde::{Deserialize, Serialize};

/// What every report begins with: which of the daemon's rules are imitated here and which are not there. docs/simulation.md
/// has the list.
pub const IMITATED: &str = "brains: the daemons' own (window, swarm, store). Imitated, see docs/simulation.md: reports, \
    sharing of memory, order on connections, TCP. Not there: processors, TLS, classes, upload slots, jitter.";
/// What of a full frame is content: 1448 of 1514 bytes.
pub const CONTENT: f64 = 1448.0 / 1514.0;
/// What a link of the measurements passes at once after a pause, and how long its queue is.
pub const BURST: u64 = 256_000;
pub const QUEUE: Duration = Duration::from_millis(50);
/// Between any two hosts of one machine.
const NEAR: Duration = Duration::from_micros(100);
/// Within what time programs that are started at once really begin.
const STARTS: f64 = 0.02;
/// What is to be simulated block by block: more bytes take larger blocks.
const BLOCKS: u64 = 400_000;

/// A scenario: one line of JSON. What the lab writes beside, as what was measured on the machine, is not looked at here.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct One {
    #[serde(default)]
    pub scenario: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    pub peers: usize,
    /// Of each peer, and of the origin.
    pub rates_mbit: Vec<f64>,
    pub origin_mbit: f64,
    pub contents: Vec<u64>,
    pub parallel: usize,
    pub orders: Vec<Vec<u32>>,
    pub arrivals_s: Vec<f64>,
    #[serde(default)]
    pub delay_ms: f64,
    #[serde(default)]
    pub jitter_ms: f64,
    #[serde(default)]
    pub loss_percent: f64,
    #[serde(default)]
    pub cc: Option<Control>,
    /// The memory of each peer; as much as the sweep gives where nothing is said.
    #[serde(default = "memory")]
    pub memory_bytes: u64,
    /// The seed of what is drawn by lot here.
    #[serde(default = "first")]
    pub seed: u64,
    /// Parts of the model that are left out.
    #[serde(skip)]
    pub without: Vec<Switch>,
    /// What was measured on sockets.
    #[serde(default, skip_serializing)]
    pub result: Option<Measured>,
}

/// What of a measurement is held against the simulator.
#[derive(Debug, Clone, Deserialize)]
pub struct Measured {
    pub ratio: Option<f64>,
}

fn first() -> u64 {
    1
}

fn memory() -> u64 {
    512 << 20
}

/// Congestion control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    #[default]
    Bbr,
    Cubic,
}

impl From<Control> for Congestion {
    fn from(of: Control) -> Self {
        match of {
            Control::Bbr => Congestion::Bbr,
            Control::Cubic => Congestion::Cubic,
        }
    }
}

/// A part of the model that can be left out, to see what it is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// Each content has links of its own.
    SharedLinks,
    /// Connections are ideal: they carry what their links do from the first byte on.
    RampUp,
    /// Nothing is lost by chance.
    Loss,
    /// Each task has connections of its own, which take turns block by block.
    Order,
}

/// Leaves parts of the model out.
pub fn switch(network: &mut Network, without: &[Switch]) {
    for part in without {
        match part {
            Switch::SharedLinks => network.shared_links = false,
            Switch::RampUp => network.congestion = None,
            Switch::Loss => network.loss = 0.0,
            Switch::Order => network.order = false,
        }
    }
}

/// What came of one: times ÷ each peer's own floor.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The worst, and the one in the middle.
    pub ratio: f64,
    pub median: f64,
    /// Of those with the quickest links.
    pub quick: f64,
    /// Bytes from the origin ÷ all contents.
    pub origin: f64,
    /// The most that one sent ÷ what it read.
    pub sent: f64,
    /// Seconds until the last first byte, of any content, and until the first MiB.
    pub first: f64,
    pub first_mib: f64,
    /// To the supernode.
    pub messages: u64,
}

impl One {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Says which key is unknown or which value makes no sense.
    pub fn read(text: &str) -> Result<Self, String> {
        let one: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        one.check()?;
        Ok(one)
    }

    fn check(&self) -> Result<(), String> {
        let within = |order: &Vec<u32>| {
            let mut seen = order.clone();
            seen.sort_unstable();
            seen.dedup();
            let named = order.iter().all(|&at| (at as usize) < self.contents.len());
            named && seen.len() == order.len() && !order.is_empty()
        };
        let lists = [
            ("rates_mbit", self.rates_mbit.len()),
            ("orders", self.orders.len()),
            ("arrivals_s", self.arrivals_s.len()),
        ];
        if let Some((name, _)) = lists.iter().find(|(_, entries)| *entries != self.peers) {
            return Err(format!(
                "{name}: give one for each of the {} peers",
                self.peers
            ));
        }
        let rates = || self.rates_mbit.iter().chain([&self.origin_mbit]);
        let wrong = [
            (self.peers == 0, "peers: there are none"),
            (
                !rates().all(|&rate| rate > 0.0),
                "rates_mbit and origin_mbit must be more than 0: nothing is without a limit here",
            ),
            (
                self.contents.is_empty() || self.contents.contains(&0),
                "contents: give the bytes of one at least, each more than 0",
            ),
            (
                !self.orders.iter().all(within),
                "orders: each names contents by their places, one at least and none twice",
            ),
            (self.parallel == 0, "parallel must be 1 at least"),
            (
                self.arrivals_s.iter().any(|&at| at < 0.0) || self.delay_ms < 0.0,
                "arrivals_s and delay_ms must not be negative",
            ),
            (
                !(0.0..100.0).contains(&self.loss_percent),
                "loss_percent must be a part of 100, less than all",
            ),
        ];
        match wrong.iter().find(|(is, _)| *is) {
            Some((_, what)) => Err((*what).into()),
            None => Ok(()),
        }
    }

    /// Bytes that a peer reads.
    fn wanted(&self, peer: usize) -> u64 {
        let order = self.orders[peer].iter();
        order.map(|&at| self.contents[at as usize]).sum()
    }

    /// What to simulate.
    pub fn scenario(&self) -> Scenario {
        let mut draw = self.seed;
        let quickest = self.rates_mbit.iter().copied().fold(0.0, f64::max);
        let rate = |mbit: f64| mbit * 1e6 * CONTENT;
        let classes = self.rates_mbit.iter().enumerate().map(|(peer, &mbit)| {
            draw = draw
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let start = (draw >> 11) as f64 / (1u64 << 53) as f64 * STARTS;
            let arrival = self.arrivals_s[peer];
            Class {
                cache: Some(self.memory_bytes),
                delay: Duration::from_secs_f64(arrival + start),
                order: Some(self.orders[peer].as_slice().into()),
                ..Class::new(1, rate(mbit))
            }
        });
        let bytes: u64 = (0..self.peers).map(|peer| self.wanted(peer)).sum();
        // Two milliseconds' worth, and not so many that it takes minutes.
        let fine = (quickest * 1e6 / 8.0 * 0.002) as u64;
        let block = fine.max(bytes / BLOCKS).clamp(4 << 10, 256 << 10) as u32;
        let relay = fine.clamp(4 << 10, 64 << 10) as u32;
        let mut scenario = Scenario {
            contents: self.contents.clone(),
            classes: classes.collect(),
            origin_rate: rate(self.origin_mbit),
            latency: NEAR + Duration::from_secs_f64(self.delay_ms / 1e3),
            parallel: self.parallel,
            block,
            relay: relay.min(block),
            seed: self.seed,
            limit: Duration::from_secs(24 * 3600),
            network: Network {
                congestion: Some(self.cc.unwrap_or_default().into()),
                loss: self.loss_percent / 100.0,
                queue: QUEUE,
                burst: BURST,
                ..Network::default()
            },
            ..Scenario::default()
        };
        switch(&mut scenario.network, &self.without);
        scenario
    }

    /// Judges a report.
    pub fn outcome(&self, report: &Report) -> Outcome {
        let quickest = self.rates_mbit.iter().copied().fold(0.0, f64::max);
        let floor =
            |peer: usize| self.wanted(peer) as f64 * 8.0 / (self.rates_mbit[peer] * 1e6 * CONTENT);
        let took = |of: &PeerReport| of.last_byte.unwrap_or(f64::INFINITY);
        let peers = || report.peers.iter().enumerate();
        let mut ratios: Vec<f64> = peers().map(|(at, of)| took(of) / floor(at)).collect();
        let quick = peers().filter(|(at, _)| self.rates_mbit[*at] == quickest);
        let quick = quick.map(|(at, _)| ratios[at]).fold(0.0, f64::max);
        ratios.sort_by(f64::total_cmp);
        let most = |of: &dyn Fn((usize, &PeerReport)) -> f64| peers().map(of).fold(0.0, f64::max);
        Outcome {
            ratio: ratios.last().copied().unwrap_or(0.0),
            median: crate::figures::quantile(&ratios, 0.5),
            quick,
            origin: report.origin_bytes as f64 / report.distinct_bytes.max(1) as f64,
            sent: most(&|(_, of)| of.sent as f64 / of.wanted.max(1) as f64),
            first: most(&|(_, of)| of.longest_first),
            first_mib: most(&|(_, of)| of.first_mib.unwrap_or(f64::INFINITY)),
            messages: report.control_messages,
        }
    }

    /// It in a few words.
    pub fn words(&self) -> String {
        let spread = |list: &mut dyn Iterator<Item = f64>, unit: &str| {
            let (low, high) = list.fold((f64::INFINITY, 0.0f64), |(low, high), x| {
                (low.min(x), high.max(x))
            });
            match high - low < 0.05 {
                true => format!("{high:.1} {unit}"),
                false => format!("{low:.1}–{high:.1} {unit}"),
            }
        };
        let mib = |&bytes: &u64| bytes as f64 / f64::from(1 << 20);
        let mut words = vec![
            format!("{} peers", self.peers),
            spread(&mut self.rates_mbit.iter().copied(), "Mbit/s"),
            format!(
                "{} × {}",
                self.contents.len(),
                spread(&mut self.contents.iter().map(mib), "MiB")
            ),
        ];
        if self.orders.iter().any(|order| *order != self.orders[0]) {
            words.push("own orders".into());
        }
        let last = self.arrivals_s.iter().copied().fold(0.0, f64::max);
        if last > 0.0 {
            words.push(format!("within {last:.1} s"));
        }
        words.push(
            format!(
                "{:.0} ms, {} %, {:?}",
                self.delay_ms,
                self.loss_percent,
                self.cc.unwrap_or_default()
            )
            .to_lowercase(),
        );
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"scenario": "1/2", "command": "bench/netlab …", "peers": 2, "rates_mbit": [100.0, 25.0],
        "origin_mbit": 100.0, "contents": [3145728, 1048576], "parallel": 3, "orders": [[0, 1], [1]],
        "arrivals_s": [0.0, 0.5], "delay_ms": 5, "jitter_ms": 0, "loss_percent": 0.1, "cc": null,
        "result": {"ratio": 1.2, "origin_ratio": 1.0, "busy": 0.5}}"#;

    #[test]
    fn a_line_of_the_sweep_on_sockets_is_simulated_and_judged() {
        let one = One::read(LINE).unwrap_or_else(|error| panic!("{error}"));
        let scenario = one.scenario();
        assert_eq!(scenario.network.congestion, Some(Congestion::Bbr));
        assert_eq!(scenario.classes[1].down, 25e6 * CONTENT);
        assert_eq!((one.wanted(0), one.wanted(1)), (4 << 20, 1 << 20));
        let report = pantala_sim::run(scenario);
        assert!(report.complete(), "{report}");
        let outcome = one.outcome(&report);
        assert!((1.0..2.0).contains(&outcome.origin), "{outcome:?}");
        // What a link passes at once makes a small content a little quicker than its floor.
        assert!((0.5..3.0).contains(&outcome.ratio), "{outcome:?}");
        assert!(outcome.median <= outcome.ratio && outcome.quick <= outcome.ratio);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let wrong = [
            ("\"peers\": 2", "\"peers\": 3", "rates_mbit"),
            ("[1]]", "[1, 1]]", "orders"),
            ("[1]]", "[2]]", "orders"),
            ("25.0]", "0]", "rates_mbit"),
            ("\"parallel\": 3", "\"parallel\": 0", "parallel"),
            ("0.1,", "100,", "loss_percent"),
            ("null", "\"reno\"", "reno"),
        ];
        for (of, by, named) in wrong {
            let error = One::read(&LINE.replace(of, by)).err();
            let said = error.as_ref().is_some_and(|error| error.contains(named));
            assert!(said, "{by}: {error:?}");
        }
    }

    #[test]
    fn each_part_of_the_model_can_be_left_out() {
        let mut network = Network {
            congestion: Some(Congestion::Cubic),
            loss: 0.1,
            ..Network::default()
        };
        let all = [
            Switch::SharedLinks,
            Switch::RampUp,
            Switch::Loss,
            Switch::Order,
        ];
        switch(&mut network, &all);
        assert_eq!((network.congestion, network.loss), (None, 0.0));
        assert!(!network.order && !network.shared_links);
    }
}
