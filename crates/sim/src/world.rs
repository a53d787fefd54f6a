use std::{collections::BTreeMap, sync::Arc};

use pantala_core::{Class, Geometry, PeerId, ResourceKey, TaskId};
use pantala_swarm::{Event as SwarmEvent, Swarm};

use crate::{
    PeerReport, Report, Scenario,
    conn::Conn,
    draw::Draw,
    host::{Host, Uplink},
    queue::{Happening, Index, Nanos, Queue},
    seat::{Link, Run, Seat},
    series::Series,
    zones::Pipes,
};

/// Happenings at one point in time: more is a loop.
const AT_ONCE_MAX: u32 = 3_000_000;

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub scenario: Scenario,
    pub tasks: Vec<Content>,
    pub by_key: BTreeMap<ResourceKey, u32>,
    pub latency: Nanos,
    pub now: Nanos,
    pub queue: Queue,
    pub draw: Draw,
    pub swarm: Option<Swarm>,
    pub swarm_wake: Nanos,
    pub hosts: Vec<Host>,
    pub seats: Vec<Seat>,
    pub visits: Vec<Visit>,
    pub links: Vec<Link>,
    pub conns: Vec<Conn>,
    /// Requests so far, to put them in order.
    pub turns: u64,
    pub runs: Vec<Run>,
    pub origin: Uplink,
    pub pipes: Pipes,
    pub origin_bytes: u64,
    /// Bytes of no content that have come.
    pub plain_bytes: u64,
    pub wasted_bytes: u64,
    pub control_messages: u64,
    pub leases_moved: u64,
    pub evicted: u64,
    /// Readers that will have everything some time.
    pub unfinished: usize,
    pub series: Series,
    /// For who waits for a piece, so that nothing is allocated.
    pub scratch: Vec<Index>,
}

/// One content.
#[derive(Debug)]
pub(crate) struct Content {
    pub id: TaskId,
    pub key: ResourceKey,
    pub size: u64,
    pub geometry: Geometry,
    /// Whether anybody asked for it.
    pub asked: bool,
}

/// A host's reader: what it comes for, and what came of it.
#[derive(Debug)]
pub(crate) struct Visit {
    pub host: Index,
    /// The contents that it takes, in its order, and which comes next.
    pub tasks: Arc<[u32]>,
    pub next: usize,
    /// Contents that it has not got in full.
    pub left: u32,
    pub begun: bool,
    /// It came for somebody who died: nobody waits for it in the end.
    pub extra: bool,
    pub report: PeerReport,
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

/// A name that says in its last bytes where what it names stands in the world's lists.
pub(crate) fn index_of_peer(id: PeerId) -> Index {
    let bytes = id.as_bytes();
    Index::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])
}

/// The same of a task.
pub(crate) fn index_of_task(id: TaskId) -> u32 {
    let bytes = id.as_bytes();
    u32::from_be_bytes([bytes[28], bytes[29], bytes[30], bytes[31]])
}

impl Content {
    fn new(number: u32, size: u64) -> Self {
        let url = format!("http://origin.example/content/{number}");
        let key = ResourceKey::of_url(&url, b"", Class::Anonymous);
        let name = TaskId::of_content(&key, &Default::default(), Some(size), 0);
        let mut name = *name.as_bytes();
        name[28..].copy_from_slice(&number.to_be_bytes());
        Self {
            id: TaskId::from_bytes(name),
            key,
            size,
            geometry: Geometry::new(Some(size)),
            asked: false,
        }
    }
}

impl World {
    pub(crate) fn new(mut scenario: Scenario) -> Self {
        scenario.part_links();
        let sizes = scenario.sizes();
        let tasks: Vec<Content> = (0..)
            .zip(&sizes)
            .map(|(number, &size)| Content::new(number, size))
            .collect();
        let mut world = Self {
            by_key: tasks
                .iter()
                .zip(0..)
                .map(|(task, at)| (task.key, at))
                .collect(),
            tasks,
            latency: scenario.latency.as_nanos() as Nanos,
            now: 0,
            queue: Queue::default(),
            draw: Draw(scenario.seed),
            swarm: Some(Swarm::new(scenario.swarm.clone())),
            swarm_wake: Nanos::MAX,
            hosts: Vec::new(),
            seats: Vec::new(),
            visits: Vec::new(),
            links: Vec::new(),
            conns: Vec::new(),
            turns: 0,
            runs: Vec::new(),
            origin: Uplink::new(scenario.origin_rate),
            pipes: Pipes::new(&scenario),
            origin_bytes: 0,
            plain_bytes: 0,
            wasted_bytes: 0,
            control_messages: 0,
            leases_moved: 0,
            evicted: 0,
            unfinished: 0,
            series: Series::default(),
            scratch: Vec::new(),
            scenario,
        };
        world.prepare();
        world
    }

    fn live(&mut self) -> Report {
        let limit = self.scenario.limit.as_nanos() as Nanos;
        let (mut happenings, mut at_once) = (0, 0);
        if self.scenario.sample {
            self.queue.push(0, Happening::Sample);
        }
        while self.unfinished > 0
            && let Some((at, what)) = self.queue.pop()
            && at <= limit
        {
            debug_assert!(at >= self.now);
            at_once = if at == self.now { at_once + 1 } else { 0 };
            assert!(at_once < AT_ONCE_MAX, "time stands still");
            self.now = at;
            happenings += 1;
            self.look_ahead();
            self.happen(what);
        }
        self.report(happenings)
    }

    fn report(&mut self, happenings: u64) -> Report {
        let moved = self.swarm.as_ref().map_or(0, |s| s.stats().leases_moved);
        let asked = self.tasks.iter().filter(|task| task.asked);
        let done = |visit: &Visit| !visit.extra || visit.report.last_byte.is_some();
        Report {
            distinct_bytes: asked.map(|task| task.size).sum(),
            peers: self
                .visits
                .iter()
                .filter(|visit| done(visit))
                .map(|visit| visit.report.clone())
                .collect(),
            origin_bytes: self.origin_bytes,
            wasted_bytes: self.wasted_bytes,
            across_bytes: self.pipes.carried(),
            evicted_pieces: self.evicted,
            leases_moved: self.leases_moved + moved,
            control_messages: self.control_messages,
            happenings,
            ended: self.now as f64 / 1e9,
            series: std::mem::take(&mut self.series).finish(),
        }
    }

    pub(crate) fn after(&mut self, pause: Nanos, what: Happening) {
        self.queue.push(self.now + pause, what);
    }

    pub(crate) fn geometry(&self, seat: Index) -> Geometry {
        self.tasks[self.seats[seat as usize].task as usize].geometry
    }

    pub(crate) fn task_id(&self, seat: Index) -> TaskId {
        self.tasks[self.seats[seat as usize].task as usize].id
    }

    /// A host's seat in a task, if it ever had one.
    pub(crate) fn seat_of(&self, host: Index, task: u32) -> Option<Index> {
        let seats = &self.hosts.get(host as usize)?.seats;
        let found = seats.iter().find(|(of, _)| *of == task)?;
        Some(found.1)
    }

    pub(crate) fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrival { visit } => self.arrive(visit),
            Happening::NextContent { visit } => self.begin_next(visit),
            Happening::Departure { host } => self.depart(host),
            Happening::Fault { fault } => self.fault(self.scenario.faults[fault as usize]),
            Happening::ToSwarm { host, message } => self.tell_swarm(SwarmEvent::Message {
                peer: self.hosts[host as usize].id,
                message: *message,
            }),
            Happening::ToPeer { host, message } => self.hear(host, *message),
            Happening::Connection { host, up } => self.connection(host, up),
            Happening::Connect { host } => {
                let hello = self.hello(host);
                self.tell_swarm(SwarmEvent::Connected { hello });
            }
            Happening::Disconnect { host } => self.tell_swarm(SwarmEvent::Disconnected {
                peer: self.hosts[host as usize].id,
            }),
            Happening::Tried { host, measuring } => self.try_ways(host, measuring),
            Happening::SwarmTick => self.swarm_tick(),
            Happening::PickerTick { seat } => self.picker_tick(seat),
            Happening::Metadata { seat } => self.metadata(seat),
            Happening::Announce { seat } => self.spread_news(seat),
            Happening::Have { seat } => {
                if self.seats[seat as usize].have_at == self.now {
                    self.flush_have(seat);
                }
            }
            Happening::Taken { seat, reader } => self.taken(seat, reader),
            Happening::Progress { seat } => self.progress(seat),
            Happening::Pulse { seat } => self.pulse(seat),
            Happening::Sample => self.sample(),
            other => self.happen_on_link(other),
        }
    }

    fn happen_on_link(&mut self, what: Happening) {
        match what {
            Happening::Dialled { link } => self.dialled(link),
            Happening::LinkDown { link } => self.link_down(link),
            Happening::News { link } => self.news(link),
            Happening::Want {
                link,
                piece,
                attempt,
                from,
                urgency,
            } => self.want(link, piece, attempt, from, urgency),
            Happening::Unwant {
                link,
                piece,
                attempt,
            } => self.unwant(link, piece, attempt),
            Happening::Refused { link, attempt } => self.refused(link, attempt),
            Happening::RunOpen { run } => self.run_open(run),
            Happening::Sent { host } => self.sent(host),
            Happening::Acknowledged { conn } => self.acknowledged(conn),
            Happening::Paced { conn } => self.paced(conn),
            Happening::SentAgain { conn } => self.sent_again(conn),
            Happening::Plain { bytes } => self.plain_bytes += u64::from(bytes),
            Happening::Block {
                link,
                piece,
                attempt,
                from,
                bytes,
            } => self.block(link, piece, attempt, from, bytes),
            Happening::Whole {
                link,
                piece,
                attempt,
                from,
                bytes,
            } => self.whole(link, piece, attempt, from, bytes),
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
