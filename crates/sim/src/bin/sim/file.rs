//! Scenario files. What each key means stands in docs/simulation.md.

use std::time::Duration;

use pantala_sim::{Arrivals, Between, Churn, Class, Fault, Requests, Scenario};
use pantala_store::Eviction;
use serde::Deserialize;

use crate::{
    keys::{PickerKeys, SwarmKeys, UplinkKeys},
    one::Control,
    units::{Bytes, Rate, Time},
};

/// A file: what to simulate, and what is hoped for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct File {
    /// What it is about, in a line.
    pub about: String,
    seed: Option<u64>,
    limit: Option<Time>,
    latency: Option<Time>,
    block: Option<Bytes>,
    relay: Option<Bytes>,
    cc: Option<Control>,
    loss: Option<f64>,
    parallel: Option<usize>,
    gather_news: Option<Time>,
    gather_have: Option<Time>,
    origin: Origin,
    content: Vec<Content>,
    requests: Option<Zipf>,
    #[serde(default)]
    arrivals: Coming,
    class: Vec<Peers>,
    #[serde(default)]
    between: Vec<Thin>,
    churn: Option<Leaving>,
    #[serde(default)]
    fault: Vec<Wrong>,
    labels: Option<bool>,
    #[serde(default)]
    swarm: SwarmKeys,
    #[serde(default)]
    picker: PickerKeys,
    #[serde(default)]
    uplink: UplinkKeys,
    /// Figures and what they should be at most.
    #[serde(default)]
    pub goal: Vec<Goal>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Origin {
    rate: Rate,
    zone: Option<String>,
    fresh_for: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Content {
    size: Bytes,
    #[serde(default = "one")]
    count: usize,
}

fn one() -> usize {
    1
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Zipf {
    zipf: f64,
    count: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Coming {
    every: Option<Time>,
    per_second: Option<f64>,
    wave: Option<usize>,
}

/// Which pieces leave a full cache first.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    Lru,
    #[default]
    Swarm,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Peers {
    name: String,
    count: usize,
    rate: Option<Rate>,
    up: Option<Rate>,
    down: Option<Rate>,
    reader: Option<Rate>,
    cache: Option<Bytes>,
    #[serde(default)]
    eviction: Order,
    delay: Option<Time>,
    zone: Option<String>,
    #[serde(default)]
    corrupt: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Thin {
    zones: (String, String),
    rate: Rate,
    latency: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Leaving {
    per_minute: f64,
    #[serde(default)]
    replace: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
enum Wrong {
    Kill { at: Time, peer: usize },
    Freeze { at: Time, peer: usize },
    KillHolder { at: Time },
    FreezeHolder { at: Time },
    KillParent { at: Time },
    SupernodeDown { at: Time },
    SupernodeUp { at: Time },
}

/// What a figure should be at most.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Goal {
    /// Which figure.
    pub figure: Figure,
    /// In the figure's unit.
    pub at_most: f64,
}

/// What can be hoped for: seconds, or ratios.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Seconds until half of the readers were done.
    P50,
    /// Seconds until 99 % were.
    P99,
    /// Seconds until 99.9 % were.
    #[serde(rename = "p99.9")]
    P999,
    /// Seconds until the last was.
    Last,
    /// The last one's time ÷ (S/B).
    LastRatio,
    /// Seconds until the last first MiB.
    FirstMib,
    /// The longest stall in seconds.
    Stall,
    /// Bytes from the origin ÷ distinct content.
    OriginRatio,
    /// Bytes between zones ÷ distinct content.
    AcrossRatio,
}

/// The names of zones, in the order in which they appear.
#[derive(Default)]
struct Zones(Vec<String>);

impl Zones {
    fn number(&mut self, name: Option<&String>) -> usize {
        let Some(name) = name else {
            return 0;
        };
        let found = self.0.iter().position(|known| known == name);
        found.unwrap_or_else(|| {
            self.0.push(name.clone());
            self.0.len() - 1
        })
    }
}

impl File {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Says which key is unknown or which value makes no sense, and in which line.
    pub fn read(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        file.check()?;
        Ok(file)
    }

    /// What [`File::read`] makes of a file's text, of its keys.
    ///
    /// # Errors
    /// As [`File::read`], without the line.
    pub fn of(keys: toml::Table) -> Result<Self, String> {
        let file: Self = keys
            .try_into()
            .map_err(|error: toml::de::Error| error.to_string())?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        self.picker.check()?;
        self.uplink.check()?;
        if self.loss.is_some_and(|loss| !(0.0..1.0).contains(&loss)) {
            return Err("loss must be a part of the packets, in [0, 1)".into());
        }
        if self.loss.is_some() && self.cc.is_none() {
            return Err("loss: say cc as well; ideal connections lose nothing".into());
        }
        if self.parallel == Some(0) {
            return Err("parallel must be 1 at least".into());
        }
        let coming = &self.arrivals;
        if coming.per_second.is_some() && (coming.every.is_some() || coming.wave.is_some()) {
            return Err("arrivals: either per-second, or every, or wave and every".into());
        }
        if coming.wave.is_some() && coming.every.is_none() {
            return Err("arrivals: wave says how many come at once; every must say when".into());
        }
        if coming.per_second.is_some_and(|rate| rate <= 0.0) {
            return Err("arrivals: per-second must be more than 0".into());
        }
        if self
            .churn
            .as_ref()
            .is_some_and(|churn| !(0.0..1.0).contains(&churn.per_minute))
        {
            return Err("churn: per-minute must be a part of the peers, in [0, 1)".into());
        }
        for class in &self.class {
            let both = class.up.is_some() && class.down.is_some();
            if class.rate.is_none() && !both {
                return Err(format!("class {}: give rate, or up and down", class.name));
            }
        }
        if self.class.iter().map(|class| class.count).sum::<usize>() == 0 {
            return Err("class: there are no peers".into());
        }
        if self
            .content
            .iter()
            .map(|content| content.count)
            .sum::<usize>()
            == 0
        {
            return Err("content: there is none".into());
        }
        Ok(())
    }

    /// The classes' names.
    pub fn classes(&self) -> Vec<&str> {
        self.class.iter().map(|class| class.name.as_str()).collect()
    }

    /// What to simulate.
    pub fn scenario(&self) -> Scenario {
        let mut zones = Zones::default();
        let plain = Scenario::default();
        let or = |time: &Option<Time>, otherwise: Duration| time.map_or(otherwise, |time| time.0);
        let latency = or(&self.latency, plain.latency);
        let mut scenario = Scenario {
            contents: self
                .content
                .iter()
                .flat_map(|content| std::iter::repeat_n(content.size.0, content.count))
                .collect(),
            requests: match self.requests {
                Some(Zipf { zipf, count }) => Requests::Zipf {
                    exponent: zipf,
                    count,
                },
                None => Requests::All,
            },
            origin_rate: self.origin.rate.0,
            origin_zone: zones.number(self.origin.zone.as_ref()),
            fresh_for: self.origin.fresh_for.map(|time| time.0),
            latency,
            arrivals: self.arrivals(),
            block: self.block.map_or(plain.block, |block| block.0 as u32),
            relay: self
                .relay
                .or(self.block)
                .map_or(plain.relay, |relay| relay.0 as u32),
            gather_news: or(&self.gather_news, plain.gather_news),
            gather_have: or(&self.gather_have, plain.gather_have),
            seed: self.seed.unwrap_or(plain.seed),
            limit: or(&self.limit, plain.limit),
            churn: self.churn.as_ref().map(|churn| Churn {
                per_minute: churn.per_minute,
                replace: churn.replace,
            }),
            faults: self.fault.iter().map(Wrong::fault).collect(),
            sample: true,
            ..plain
        };
        scenario.classes = self
            .class
            .iter()
            .map(|peers| peers.class(&mut zones))
            .collect();
        scenario.between = self
            .between
            .iter()
            .map(|thin| Between {
                zones: (
                    zones.number(Some(&thin.zones.0)),
                    zones.number(Some(&thin.zones.1)),
                ),
                rate: thin.rate.0,
                latency: or(&thin.latency, latency),
            })
            .collect();
        scenario.labels = self.labels.unwrap_or(scenario.labels);
        scenario.network.congestion = self.cc.map(Into::into);
        scenario.network.loss = self.loss.unwrap_or(0.0);
        scenario.parallel = self.parallel.unwrap_or(scenario.parallel);
        self.swarm.set(&mut scenario);
        self.picker.set(&mut scenario);
        self.uplink.set(&mut scenario);
        scenario
    }

    fn arrivals(&self) -> Arrivals {
        match (
            &self.arrivals.every,
            self.arrivals.per_second,
            self.arrivals.wave,
        ) {
            (Some(every), _, Some(count)) => Arrivals::Waves {
                count,
                every: every.0,
            },
            (Some(every), _, None) => Arrivals::Every(every.0),
            (None, Some(rate), _) => Arrivals::Poisson(rate),
            (None, None, _) => Arrivals::AtOnce,
        }
    }
}

impl Peers {
    fn class(&self, zones: &mut Zones) -> Class {
        let rate = |own: Option<Rate>| own.or(self.rate).map_or(0.0, |rate| rate.0);
        Class {
            up: rate(self.up),
            down: rate(self.down),
            reader_rate: self.reader.map(|rate| rate.0),
            cache: self.cache.map(|cache| cache.0),
            eviction: match self.eviction {
                Order::Lru => Eviction::Lru,
                Order::Swarm => Eviction::Swarm,
            },
            delay: self.delay.map_or(Duration::ZERO, |delay| delay.0),
            corrupt: self.corrupt,
            zone: zones.number(self.zone.as_ref()),
            ..Class::new(self.count, 0.0)
        }
    }
}

impl Wrong {
    fn fault(&self) -> Fault {
        match *self {
            Wrong::Kill { at, peer } => Fault::Kill { at: at.0, peer },
            Wrong::Freeze { at, peer } => Fault::Freeze { at: at.0, peer },
            Wrong::KillHolder { at } => Fault::KillHolder { at: at.0 },
            Wrong::FreezeHolder { at } => Fault::FreezeHolder { at: at.0 },
            Wrong::KillParent { at } => Fault::KillParent { at: at.0 },
            Wrong::SupernodeDown { at } => Fault::SupernodeDown { at: at.0 },
            Wrong::SupernodeUp { at } => Fault::SupernodeUp { at: at.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        about = "eight"
        origin = { rate = "200Mbit/s" }
        content = [{ size = "64MiB" }]
        class = [{ name = "all", count = 8, rate = "200Mbit/s" }]
    "#;

    #[test]
    fn a_small_file_is_the_default_scenario() {
        let scenario = File::read(SMALL).map(|file| file.scenario());
        let plain = Scenario::default();
        let scenario = scenario.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(scenario.sizes(), plain.sizes());
        assert_eq!(scenario.origin_rate, plain.origin_rate);
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let wrong = [
            ("chrun = 1", "chrun"),
            ("latency = \"soon\"", "soon"),
            ("arrivals = { wave = 3 }", "every"),
            ("churn = { per-minute = 2.0 }", "per-minute"),
            ("picker = { window = 4, window-max = 8 }", "window"),
            ("uplink = { slots = 0 }", "slots"),
            ("loss = 0.01", "cc"),
            ("cc = \"reno\"", "reno"),
            ("parallel = 0", "parallel"),
            ("goal = [{ figure = \"p98\", at-most = 1 }]", "p98"),
        ];
        for (line, named) in wrong {
            let error = File::read(&format!("{line}\n{SMALL}")).err();
            let said = error.as_ref().is_some_and(|error| error.contains(named));
            assert!(said, "{line}: {error:?}");
        }
    }
}
