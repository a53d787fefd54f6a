use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use pantala_origin::OriginClient;
use pantala_store::{Holder, Store};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// What a node counts. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    counts: Arc<Counts>,
    first_byte: Histogram,
}

#[derive(Debug, Default)]
struct Counts {
    peer_received: AtomicU64,
    peer_sent: AtomicU64,
    reader_sent: AtomicU64,
    verified: AtomicU64,
    corrupt: AtomicU64,
    hedged: AtomicU64,
    readers: AtomicI64,
    children: AtomicI64,
    links: AtomicI64,
    uploads: AtomicI64,
    requests: AtomicI64,
}

/// Content bytes moved since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// From origins.
    pub origin_received: u64,
    /// From other peers.
    pub peer_received: u64,
    /// To other peers.
    pub peer_sent: u64,
    /// To readers.
    pub reader_sent: u64,
}

macro_rules! count {
    ($($name:ident => $field:ident),* $(,)?) => {
        $(pub(crate) fn $name(&self, by: u64) {
            self.counts.$field.fetch_add(by, Ordering::Relaxed);
        })*
    };
}

/// A gauge that falls back when dropped.
#[derive(Debug)]
pub(crate) struct Level {
    counts: Arc<Counts>,
    which: fn(&Counts) -> &AtomicI64,
}

impl Drop for Level {
    fn drop(&mut self) {
        (self.which)(&self.counts).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let seconds = [
            0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
        ];
        Self {
            counts: Arc::default(),
            first_byte: Histogram::new(seconds),
        }
    }

    count! {
        peer_received => peer_received,
        peer_sent => peer_sent,
        reader_sent => reader_sent,
        verified => verified,
        corrupt => corrupt,
        hedged => hedged,
    }

    pub(crate) fn reader(&self) -> Level {
        self.level(|counts| &counts.readers)
    }

    pub(crate) fn child(&self) -> Level {
        self.level(|counts| &counts.children)
    }

    pub(crate) fn link(&self) -> Level {
        self.level(|counts| &counts.links)
    }

    pub(crate) fn upload(&self) -> Level {
        self.level(|counts| &counts.uploads)
    }

    fn level(&self, which: fn(&Counts) -> &AtomicI64) -> Level {
        which(&self.counts).fetch_add(1, Ordering::Relaxed);
        Level {
            counts: self.counts.clone(),
            which,
        }
    }

    pub(crate) fn first_byte(&self, after: std::time::Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }

    /// A child's request, for as long as it is open.
    pub(crate) fn request(&self) -> Level {
        self.level(|counts| &counts.requests)
    }

    /// Readers that are open, whether they take anything or not.
    pub(crate) fn readers(&self) -> i64 {
        self.counts.readers.load(Ordering::Relaxed)
    }

    /// Children that are connected.
    pub(crate) fn children(&self) -> i64 {
        self.counts.children.load(Ordering::Relaxed)
    }

    /// Parents that are connected.
    #[cfg(test)]
    pub(crate) fn links(&self) -> i64 {
        self.counts.links.load(Ordering::Relaxed)
    }

    /// Pieces from peers whose digest was wrong.
    #[cfg(test)]
    pub(crate) fn corrupt_pieces(&self) -> u64 {
        self.counts.corrupt.load(Ordering::Relaxed)
    }

    /// Requests of children that are open.
    pub(crate) fn requests(&self) -> i64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn totals(&self, origin: &OriginClient) -> Totals {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            origin_received: origin.received_bytes(),
            peer_received: get(&self.counts.peer_received),
            peer_sent: get(&self.counts.peer_sent),
            reader_sent: get(&self.counts.reader_sent),
        }
    }

    /// Makes everything a node counts part of a registry, under `pantala_…`.
    pub(crate) fn register(&self, registry: &mut Registry, store: Store, origin: OriginClient) {
        let registry = registry.sub_registry_with_prefix("pantala");
        registry.register_with_unit(
            "first_byte",
            "Time from a reader's request to its first byte",
            Unit::Seconds,
            self.first_byte.clone(),
        );
        registry.register_collector(Box::new(NodeCollector {
            metrics: self.clone(),
            store,
            origin,
        }));
    }
}

#[derive(Debug)]
struct NodeCollector {
    metrics: Metrics,
    store: Store,
    origin: OriginClient,
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let totals = self.metrics.totals(&self.origin);
        let counts = &self.metrics.counts;
        let store = self.store.stats();
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counters = [
            (
                "origin_received_bytes",
                "Content bytes received from origins",
                totals.origin_received,
            ),
            (
                "peer_received_bytes",
                "Content bytes received from other peers",
                totals.peer_received,
            ),
            (
                "peer_sent_bytes",
                "Content bytes sent to other peers",
                totals.peer_sent,
            ),
            (
                "reader_sent_bytes",
                "Content bytes handed to readers",
                totals.reader_sent,
            ),
            // A streaming peer has no code that writes or reads content on a disk; what the
            // kernel counts for the whole process is in process_io, to hold against this.
            (
                "pieces_verified",
                "Pieces from peers whose digest was right",
                get(&counts.verified),
            ),
            (
                "pieces_corrupt",
                "Pieces from peers whose digest was wrong",
                get(&counts.corrupt),
            ),
            (
                "pieces_hedged",
                "Late pieces that were asked for a second time",
                get(&counts.hedged),
            ),
            (
                "pieces_evicted",
                "Pieces that left the cache for others",
                store.evicted,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let (read, written) = process_io();
        for (name, help, value) in [
            (
                "disk_read_bytes",
                "Bytes this process had read from disks (/proc/self/io)",
                read,
            ),
            (
                "disk_written_bytes",
                "Bytes this process had written to disks (/proc/self/io)",
                written,
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let level = |level: &AtomicI64| level.load(Ordering::Relaxed);
        let gauges = [
            (
                "memory_used_bytes",
                "Content bytes in memory",
                store.used as i64,
            ),
            (
                "memory_limit_bytes",
                "The memory budget",
                store.limit as i64,
            ),
            ("pieces_held", "Pieces in the cache", store.pieces as i64),
            ("readers", "Readers being served", level(&counts.readers)),
            (
                "children",
                "Peers connected to pull from this one",
                level(&counts.children),
            ),
            (
                "parents",
                "Peers this one is connected to, to pull from",
                level(&counts.links),
            ),
            (
                "uploads",
                "Pieces being sent to children",
                level(&counts.uploads),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        self.encode_holders(encoder)
    }
}

impl NodeCollector {
    /// Who holds the memory.
    fn encode_holders(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "The memory in use, by what it is for";
        let name = "memory_held_bytes";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for holder in Holder::ALL {
            let held = ConstGauge::new(self.store.budget().used_by(holder) as i64);
            held.encode(family.encode_family(&[("by", holder.name())])?)?;
        }
        Ok(())
    }
}

/// What the kernel says this process read from and wrote to disks, in bytes; zeros where it says
/// nothing.
fn process_io() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok())
            .unwrap_or(0)
    };
    (field("read_bytes:"), field("write_bytes:"))
}
