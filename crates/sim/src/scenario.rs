use std::{sync::Arc, time::Duration};

use pantala_store::Eviction;

/// What is simulated. Rates are in bits a second, sizes in bytes.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Bytes of the content, where there is one.
    pub size: u64,
    /// Bytes of each of several contents; where there are none, there is one of `size`.
    pub contents: Vec<u64>,
    /// What readers ask for.
    pub requests: Requests,
    /// The peers, class by class.
    pub classes: Vec<Class>,
    /// The origin's uplink.
    pub origin_rate: f64,
    /// Where the origin sends each transfer in bursts: so many bytes as its uplink allows, and a pause,
    /// so that the transfer has this rate in the long run.
    pub origin_bursts: Option<(u64, f64)>,
    /// The origin's zone.
    pub origin_zone: usize,
    /// One way between any two hosts.
    pub latency: Duration,
    /// Links between zones that are not as wide as all others.
    pub between: Vec<Between>,
    /// How many contents a reader takes side by side.
    pub parallel: usize,
    /// When the peers' readers come.
    pub arrivals: Arrivals,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Who goes away in between.
    pub churn: Option<Churn>,
    /// How connections behave.
    pub network: Network,
    /// Which of its children an uplink sends to next.
    pub uplink: Turns,
    /// Whether the peers tell the supernode their zone.
    pub labels: bool,
    /// What one turn of an uplink sends at most.
    pub block: u32,
    /// What of a block must have come before its receiver passes it on: the unit of relay. Less than
    /// a block models small blocks by fewer events.
    pub relay: u32,
    /// How long a peer gathers what it tells its children of its pieces.
    pub gather_news: Duration,
    /// How long a peer gathers what it tells the supernode of its pieces.
    pub gather_have: Duration,
    /// How long the origin's metadata is fresh; without it the supernode's own time.
    pub fresh_for: Option<Duration>,
    /// Whether to look at the figures every so often, for plots.
    pub sample: bool,
    /// Draws identifiers, Poisson arrivals and the brains' own seeds.
    pub seed: u64,
    /// When to end whatever is still under way.
    pub limit: Duration,
    /// The pickers' settings; each gets a seed of its own.
    pub picker: pantala_window::Config,
    /// The supernode's settings.
    pub swarm: pantala_swarm::Config,
}

/// Peers that are alike.
#[derive(Debug, Clone)]
pub struct Class {
    /// How many.
    pub count: usize,
    /// Uplink.
    pub up: f64,
    /// Downlink.
    pub down: f64,
    /// What its reader takes, when that is a limit.
    pub reader_rate: Option<f64>,
    /// Bytes for pieces in flight and held; without it all that is needed.
    pub cache: Option<u64>,
    /// Which pieces leave first when that is full.
    pub eviction: Eviction,
    /// When its readers come, counted from the scenario's arrivals.
    pub delay: Duration,
    /// In which order its readers ask for which contents; without it for all, as they are numbered.
    pub order: Option<Arc<[u32]>>,
    /// The bytes its readers want, from and to; without it all.
    pub range: Option<(u64, u64)>,
    /// It sends wrong bytes.
    pub corrupt: bool,
    /// The data centre it is in.
    pub zone: usize,
}

impl Class {
    /// Peers with the same rate up and down, and nothing special.
    pub fn new(count: usize, rate: f64) -> Self {
        Self {
            count,
            up: rate,
            down: rate,
            reader_rate: None,
            cache: None,
            eviction: Eviction::default(),
            delay: Duration::ZERO,
            order: None,
            range: None,
            corrupt: false,
            zone: 0,
        }
    }

    /// The slowest that its reader's bytes go through, in bits a second.
    pub fn floor_rate(&self) -> f64 {
        self.reader_rate
            .map_or(self.down, |rate| rate.min(self.down))
    }
}

/// How connections behave, and what of that is modelled.
#[derive(Debug, Clone)]
pub struct Network {
    /// What the hosts' kernels run; without it connections are ideal: they send what their links carry from the first
    /// byte on, nothing is lost, and nothing but blocks waits in queues.
    pub congestion: Option<crate::Congestion>,
    /// The part of the packets that are lost on the way from one host to another.
    pub loss: f64,
    /// What a link's queue has room for, as the time in which it passes. What comes on top is lost.
    pub queue: Duration,
    /// Bytes that a link passes at once after a pause.
    pub burst: u64,
    /// One connection joins two hosts, and a parent serves what is asked there over all tasks in the daemon's order.
    /// Otherwise each task has connections of its own, which take turns block by block.
    pub order: bool,
    /// A host's tasks share its links. Otherwise each content has links of its own, as wide as the host's.
    pub shared_links: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            congestion: None,
            loss: 0.0,
            queue: Duration::from_millis(50),
            burst: 0,
            order: true,
            shared_links: true,
        }
    }
}

/// What readers ask for.
#[derive(Debug, Clone, Copy, Default)]
pub enum Requests {
    /// Each peer has one reader, which takes all contents side by side.
    #[default]
    All,
    /// Readers come for one content each, at random peers, as [`Arrivals`] says.
    Zipf {
        /// How unequal: content `i` is asked for in proportion to 1 / (i + 1)^exponent.
        exponent: f64,
        /// How many readers come.
        count: usize,
    },
}

/// A link between two zones, both ways: all that goes between their hosts shares it.
#[derive(Debug, Clone, Copy)]
pub struct Between {
    /// Which two.
    pub zones: (usize, usize),
    /// Bits a second, in each direction.
    pub rate: f64,
    /// One way between hosts of the two.
    pub latency: Duration,
}

/// Peers that go away while others stream.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// The part of the peers that die in a minute, drawn by lot.
    pub per_minute: f64,
    /// Whether for each that dies a new one comes.
    pub replace: bool,
}

/// In which order a peer's uplink serves the children that there is something to send to. The origin
/// serves all by turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Turns {
    /// All by turns.
    #[default]
    All,
    /// So many by turns, in the order in which they came to wait; the others when one of those has
    /// got all there is.
    Few(usize),
    /// Whoever's reader is nearest to what it would get.
    Urgent,
}

/// When readers come.
#[derive(Debug, Clone, Copy)]
pub enum Arrivals {
    /// All at the start.
    AtOnce,
    /// One after the other.
    Every(Duration),
    /// At random, so many a second on average.
    Poisson(f64),
    /// So many at once, again and again.
    Waves {
        /// How many.
        count: usize,
        /// From one wave to the next.
        every: Duration,
    },
}

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// A peer dies: its connections break.
    Kill {
        /// When.
        at: Duration,
        /// Which, in order of the classes.
        peer: usize,
    },
    /// A peer stops saying, sending and taking anything; its connections stand.
    Freeze {
        /// When.
        at: Duration,
        /// Which.
        peer: usize,
    },
    /// Whoever holds the source lease for the most pieces at that time freezes.
    FreezeHolder {
        /// When.
        at: Duration,
    },
    /// The same, but it dies.
    KillHolder {
        /// When.
        at: Duration,
    },
    /// Somebody in the middle dies: the peer that feeds most children.
    KillParent {
        /// When.
        at: Duration,
    },
    /// The supernode dies.
    SupernodeDown {
        /// When.
        at: Duration,
    },
    /// A new supernode, which knows nothing, takes its place.
    SupernodeUp {
        /// When.
        at: Duration,
    },
}

impl Fault {
    pub(crate) fn at(&self) -> Duration {
        match *self {
            Fault::Kill { at, .. }
            | Fault::Freeze { at, .. }
            | Fault::FreezeHolder { at }
            | Fault::KillHolder { at }
            | Fault::KillParent { at }
            | Fault::SupernodeDown { at }
            | Fault::SupernodeUp { at } => at,
        }
    }
}

impl Default for Scenario {
    /// The scenario of the measurements: eight peers and an origin behind 200 Mbit/s each, 64 MiB.
    fn default() -> Self {
        Self {
            size: 64 << 20,
            contents: Vec::new(),
            requests: Requests::All,
            classes: vec![Class::new(8, 200e6)],
            origin_rate: 200e6,
            origin_bursts: None,
            origin_zone: 0,
            latency: Duration::from_micros(200),
            between: Vec::new(),
            parallel: usize::MAX,
            arrivals: Arrivals::AtOnce,
            faults: Vec::new(),
            churn: None,
            network: Network::default(),
            uplink: Turns::default(),
            labels: true,
            block: 64 << 10,
            relay: 64 << 10,
            gather_news: Duration::ZERO,
            gather_have: Duration::from_millis(50),
            fresh_for: None,
            sample: false,
            seed: 1,
            limit: Duration::from_secs(600),
            picker: pantala_window::Config::default(),
            swarm: pantala_swarm::Config::default(),
        }
    }
}

impl Scenario {
    /// Seconds that all contents take over a link of this rate.
    pub fn floor(&self, rate: f64) -> f64 {
        self.distinct() as f64 * 8.0 / rate
    }

    /// Where tasks share no links: as many links as contents are read at a time.
    pub(crate) fn part_links(&mut self) {
        if self.network.shared_links {
            return;
        }
        let links = self.parallel.min(self.sizes().len()).max(1) as f64;
        for class in &mut self.classes {
            class.up *= links;
            class.down *= links;
        }
        self.origin_rate *= links;
    }

    /// Bytes of all contents.
    pub fn distinct(&self) -> u64 {
        self.sizes().iter().sum()
    }

    /// Bytes of each content.
    pub fn sizes(&self) -> Vec<u64> {
        if self.contents.is_empty() {
            vec![self.size]
        } else {
            self.contents.clone()
        }
    }

    /// How many zones there are.
    pub(crate) fn zones(&self) -> usize {
        let classes = self.classes.iter().map(|class| class.zone);
        let between = self
            .between
            .iter()
            .map(|link| link.zones.0.max(link.zones.1));
        let zones = classes.chain(between).chain([self.origin_zone]);
        zones.max().unwrap_or(0) + 1
    }
}
