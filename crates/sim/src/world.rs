use std::collections::BTreeMap;

use pantala_core::{Geometry, PeerId, ResourceKey, TaskId};
use pantala_swarm::{Event as SwarmEvent, Swarm};
use pantala_window::ReaderId;

use crate::{
    Arrivals, Report, Scenario,
    peer::{Link, Peer, Run, State, Uplink},
    queue::{Happening, Index, Nanos, Queue},
    scenario::Draw,
};

/// A model peer has one reader.
pub(crate) const READER: ReaderId = ReaderId(1);

/// Happenings at one point in time: more is a loop.
const AT_ONCE_MAX: u32 = 300_000;

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub scenario: Scenario,
    pub geometry: Geometry,
    pub task: TaskId,
    pub key: ResourceKey,
    pub latency: Nanos,
    pub now: Nanos,
    pub queue: Queue,
    pub draw: Draw,
    pub swarm: Option<Swarm>,
    pub swarm_wake: Nanos,
    pub peers: Vec<Peer>,
    pub by_id: BTreeMap<PeerId, Index>,
    pub links: Vec<Link>,
    pub runs: Vec<Run>,
    pub origin: Uplink,
    pub origin_bytes: u64,
    pub wasted_bytes: u64,
    pub control_messages: u64,
    pub leases_moved: u64,
    /// Readers that will have everything some time.
    pub unfinished: usize,
}

/// Simulates a scenario until every reader that can be done is done, or its time is over.
///
/// # Panics
/// When a brain breaks its contract: asks nobody for something, asks for what it holds, goes round
/// in circles, or evicts what its reader takes.
pub fn run(scenario: Scenario) -> Report {
    let mut world = World::new(scenario);
    world.live()
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let mut draw = Draw(scenario.seed);
        let mut peers = Vec::new();
        let mut by_id = BTreeMap::new();
        for class in &scenario.classes {
            for _ in 0..class.count {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&draw.next().to_be_bytes());
                id[8..].copy_from_slice(&draw.next().to_be_bytes());
                let id = PeerId::from_bytes(id);
                by_id.insert(id, peers.len() as Index);
                peers.push(Peer::new(id, class.clone()));
            }
        }
        let key = ResourceKey::of_url("http://origin.example/content", None, b"");
        let geometry = Geometry::new(Some(scenario.size));
        let mut world = Self {
            task: TaskId::of_content(&key, &Default::default(), Some(scenario.size), 0),
            key,
            geometry,
            latency: scenario.latency.as_nanos() as Nanos,
            now: 0,
            queue: Queue::default(),
            draw,
            swarm: Some(Swarm::new(scenario.swarm.clone())),
            swarm_wake: Nanos::MAX,
            unfinished: peers.len(),
            peers,
            by_id,
            links: Vec::new(),
            runs: Vec::new(),
            origin: Uplink::new(scenario.origin_rate),
            origin_bytes: 0,
            wasted_bytes: 0,
            control_messages: 0,
            leases_moved: 0,
            scenario,
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        let mut at = 0;
        for peer in 0..self.peers.len() as Index {
            let delay = self.peers[peer as usize].class.delay.as_nanos() as Nanos;
            // A microsecond apart: an order, and nobody's messages arrive before his own.
            let start = at + delay + Nanos::from(peer) * 1000;
            self.queue.push(start, Happening::Arrival { peer });
            at += match self.scenario.arrivals {
                Arrivals::AtOnce => 0,
                Arrivals::Every(pause) => pause.as_nanos() as Nanos,
                Arrivals::Poisson(rate) => (-(1.0 - self.draw.unit()).ln() / rate * 1e9) as Nanos,
            };
        }
        for (fault, what) in self.scenario.faults.iter().enumerate() {
            let fault = fault as Index;
            self.queue
                .push(what.at().as_nanos() as Nanos, Happening::Fault { fault });
        }
    }

    fn live(&mut self) -> Report {
        let limit = self.scenario.limit.as_nanos() as Nanos;
        let (mut happenings, mut at_once) = (0, 0);
        while self.unfinished > 0
            && let Some((at, what)) = self.queue.pop()
            && at <= limit
        {
            debug_assert!(at >= self.now);
            at_once = if at == self.now { at_once + 1 } else { 0 };
            assert!(at_once < AT_ONCE_MAX, "time stands still");
            self.now = at;
            happenings += 1;
            self.happen(what);
        }
        let moved = self.swarm.as_ref().map_or(0, |s| s.stats().leases_moved);
        Report {
            peers: self.peers.iter().map(|peer| peer.report.clone()).collect(),
            origin_bytes: self.origin_bytes,
            wasted_bytes: self.wasted_bytes,
            leases_moved: self.leases_moved + moved,
            control_messages: self.control_messages,
            happenings,
        }
    }

    pub(crate) fn after_latency(&mut self, what: Happening) {
        self.queue.push(self.now + self.latency, what);
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrival { peer } => self.arrive(peer),
            Happening::Fault { fault } => self.fault(self.scenario.faults[fault as usize]),
            Happening::ToSwarm { peer, message } => self.tell_swarm(SwarmEvent::Message {
                peer: self.peers[peer as usize].id,
                message: *message,
            }),
            Happening::ToPeer { peer, message } => self.hear(peer, *message),
            Happening::Connection { peer, up } => self.connection(peer, up),
            Happening::Connect { peer } => {
                let hello = self.hello(peer);
                self.tell_swarm(SwarmEvent::Connected { hello });
            }
            Happening::Disconnect { peer } => self.tell_swarm(SwarmEvent::Disconnected {
                peer: self.peers[peer as usize].id,
            }),
            Happening::SwarmTick => self.swarm_tick(),
            Happening::PickerTick { peer } => self.picker_tick(peer),
            Happening::Metadata { peer } => self.metadata(peer),
            Happening::Dialled { link } => self.dialled(link),
            Happening::LinkDown { link } => self.link_down(link),
            Happening::Have { peer } => {
                if self.peers[peer as usize].have_due {
                    self.flush_have(peer);
                }
            }
            Happening::Taken { peer } => {
                if self.peers[peer as usize].state == State::Alive {
                    self.took(peer);
                    self.read(peer);
                }
            }
            Happening::Progress { peer } => self.progress(peer),
            Happening::Pulse { peer } => self.pulse(peer),
            other => self.happen_on_link(other),
        }
    }

    fn happen_on_link(&mut self, what: Happening) {
        match what {
            Happening::News { link } => {
                if self.peers[self.links[link as usize].child as usize].alive() {
                    self.news(link);
                }
            }
            Happening::Want {
                link,
                piece,
                attempt,
                from,
            } => self.want(link, piece, attempt, from),
            Happening::Unwant {
                link,
                piece,
                attempt,
            } => self.unwant(link, piece, attempt),
            Happening::Refused { link, attempt } => self.refused(link, attempt),
            Happening::RunOpen { run } => self.run_open(run),
            Happening::Sent { peer } => self.sent(peer),
            Happening::Block {
                link,
                piece,
                attempt,
                from,
                bytes,
            } => self.block(link, piece, attempt, from, bytes),
            Happening::RunBlock {
                run,
                piece,
                from,
                bytes,
            } => self.run_block(run, piece, from, bytes),
            other => unreachable!("{other:?} is no affair of a link"),
        }
    }
}
