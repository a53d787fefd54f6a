//! What operators see of a supernode.

use std::sync::{Arc, atomic::Ordering};

use pantala_swarm::Stats;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge, info::Info},
    registry::Registry,
};

/// Messages, counted as they pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Messages {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

/// All figures. The brain's are copied in when somebody looks: counting members takes a walk over
/// all tasks.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    messages: Messages,
    peers: Gauge,
    tasks: Gauge,
    members: Gauge,
    leases: Gauge,
    sites: Gauge,
    leases_moved: Counter,
    parents_chosen: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("pantala");
        let build = Info::new([
            ("program", "supernode"),
            ("version", env!("CARGO_PKG_VERSION")),
        ]);
        registry.register("build", "The program and its version", build);

        let here = registry.sub_registry_with_prefix("supernode");
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            here.register(name, help, gauge.clone());
            gauge
        };
        let peers = gauge("peers", "Peers whose connection stands");
        let tasks = gauge("tasks", "Tasks known");
        let members = gauge("members", "Peers of each task, summed over all tasks");
        let leases = gauge("leases", "Source leases held");
        let sites = gauge(
            "sites",
            "Data centres found from round trips; 0 where all is one",
        );
        // The format appends `_total` to a counter's name.
        let mut counter = |name, help| {
            let counter = Counter::default();
            here.register(name, help, counter.clone());
            counter
        };
        let leases_moved = counter(
            "leases_moved",
            "Source leases that moved on because their holder stalled or died",
        );
        let parents_chosen = counter("parents_chosen", "Parents chosen");
        let messages = Messages {
            received: counter("messages_received", "Messages from peers"),
            sent: counter("messages_sent", "Messages to peers"),
        };
        Self {
            registry: Arc::new(registry),
            messages,
            peers,
            tasks,
            members,
            leases,
            sites,
            leases_moved,
            parents_chosen,
        }
    }

    /// The counters that whoever moves messages keeps.
    pub(crate) fn messages(&self) -> Messages {
        self.messages.clone()
    }

    /// All figures in the OpenMetrics text format.
    pub(crate) fn text(&self, stats: &Stats) -> String {
        let figures = [
            (&self.peers, stats.peers),
            (&self.tasks, stats.tasks),
            (&self.members, stats.members),
            (&self.leases, stats.leases),
            (&self.sites, stats.sites),
        ];
        for (gauge, figure) in figures {
            gauge.set(i64::try_from(figure).unwrap_or(i64::MAX));
        }
        // The brain counts; a counter must not fall even if the brain's sum does.
        let counted = [
            (&self.leases_moved, stats.leases_moved),
            (&self.parents_chosen, stats.parents_chosen),
        ];
        for (counter, figure) in counted {
            counter.inner().fetch_max(figure, Ordering::Relaxed);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_name() {
        let metrics = Metrics::new();
        metrics.messages().received.inc();
        let stats = Stats {
            peers: 3,
            tasks: 2,
            members: 5,
            leases: 1,
            sites: 4,
            leases_moved: 7,
            parents_chosen: 9,
            ..Stats::default()
        };
        let text = metrics.text(&stats);
        for line in [
            "pantala_build_info{program=\"supernode\",version=\"",
            "pantala_supernode_peers 3\n",
            "pantala_supernode_tasks 2\n",
            "pantala_supernode_members 5\n",
            "pantala_supernode_leases 1\n",
            "pantala_supernode_sites 4\n",
            "pantala_supernode_leases_moved_total 7\n",
            "pantala_supernode_parents_chosen_total 9\n",
            "pantala_supernode_messages_received_total 1\n",
            "pantala_supernode_messages_sent_total 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        // Seen again after the brain forgot a task, the counters have not fallen.
        let text = metrics.text(&Stats::default());
        assert!(text.contains("pantala_supernode_leases_moved_total 7\n"));
        assert!(text.contains("pantala_supernode_peers 0\n"));
    }
}
