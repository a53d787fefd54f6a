use std::time::Duration;

/// What is simulated. Rates are in bits a second, sizes in bytes.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Bytes of the content.
    pub size: u64,
    /// The peers, class by class.
    pub classes: Vec<Class>,
    /// The origin's uplink.
    pub origin_rate: f64,
    /// Where the origin sends each transfer in bursts: so many bytes as its uplink allows, and a pause,
    /// so that the transfer has this rate in the long run.
    pub origin_bursts: Option<(u64, f64)>,
    /// One way between any two hosts.
    pub latency: Duration,
    /// When the peers' readers come.
    pub arrivals: Arrivals,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What one turn of an uplink sends at most: the unit of relay.
    pub block: u32,
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
    /// When its readers come, counted from the scenario's arrivals.
    pub delay: Duration,
    /// The bytes its readers want, from and to; without it all.
    pub range: Option<(u64, u64)>,
    /// It sends wrong bytes.
    pub corrupt: bool,
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
            delay: Duration::ZERO,
            range: None,
            corrupt: false,
        }
    }
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
            classes: vec![Class::new(8, 200e6)],
            origin_rate: 200e6,
            origin_bursts: None,
            latency: Duration::from_micros(200),
            arrivals: Arrivals::AtOnce,
            faults: Vec::new(),
            block: 64 << 10,
            seed: 1,
            limit: Duration::from_secs(600),
            picker: pantala_window::Config::default(),
            swarm: pantala_swarm::Config::default(),
        }
    }
}

impl Scenario {
    /// Seconds that the content takes over a link of this rate.
    pub fn floor(&self, rate: f64) -> f64 {
        self.size as f64 * 8.0 / rate
    }
}

/// SplitMix64: the simulator's only source of chance.
#[derive(Debug, Clone)]
pub(crate) struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
