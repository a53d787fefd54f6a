//! What operators see: the node's figures, requests, connections, the process.

use std::fmt::{self, Write as _};

use http::StatusCode;
use pantala_node::Node;
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
        text::encode,
    },
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::Registry,
};

/// Where a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// To where its URL says.
    Proxy,
    /// To the mirrored registry.
    Mirror,
    /// Through a tunnel.
    Tunnel,
    /// To the local API.
    Api,
    /// To a page for operators.
    Own,
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Route::Proxy => "proxy",
            Route::Mirror => "mirror",
            Route::Tunnel => "tunnel",
            Route::Api => "api",
            Route::Own => "own",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    route: Route,
    status: u16,
}

pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    connections: Gauge,
}

/// A connection, for as long as it is open.
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub fn new(node: &Node) -> Self {
        let mut registry = Registry::default();
        node.register_metrics(&mut registry);
        let (requests, connections) = (Family::default(), Gauge::default());
        let here = registry.sub_registry_with_prefix("pantala");
        let build = Info::new([
            ("program", "dfdaemon"),
            ("version", env!("CARGO_PKG_VERSION")),
        ]);
        here.register("build", "The program and its version", build);
        let here = here.sub_registry_with_prefix("proxy");
        here.register("requests", "Requests of clients", requests.clone());
        here.register("connections", "Connections of clients", connections.clone());
        registry.register_collector(Box::new(Process));
        Self {
            registry,
            requests,
            connections,
        }
    }

    pub fn request(&self, route: Route, status: StatusCode) {
        let status = status.as_u16();
        self.requests.get_or_create(&Labels { route, status }).inc();
    }

    pub fn connection(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }

    /// All figures in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// What the kernel says of this process, under the names every exporter uses.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory of this process that is in RAM",
                resident(),
            ),
            ("process_open_fds", "Open file descriptors", open_files()),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "Processor time of this process, user and system";
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn open_files() -> Option<i64> {
    i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

/// The scheduler's own count, in nanoseconds, is per thread; `stat` counts ticks, of which Linux
/// shows 100 a second to programs on every machine.
fn cpu_seconds() -> Option<f64> {
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses that may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}
