//! Who comes when, and for what.

use std::sync::Arc;

use pantala_core::PeerId;
use pantala_store::Keep;

use crate::{
    Arrivals, PeerReport, Requests,
    cache::Cache,
    host::{Host, State},
    queue::{Happening, Index, Nanos},
    scenario::Churn,
    seat::Seat,
    world::{Visit, World},
};

impl World {
    /// Puts everything that is known beforehand into the queue.
    pub(crate) fn prepare(&mut self) {
        for class in 0..self.scenario.classes.len() as u32 {
            for _ in 0..self.scenario.classes[class as usize].count {
                self.add_host(class);
            }
        }
        match self.scenario.requests {
            Requests::All => self.prepare_one_each(),
            Requests::Zipf { exponent, count } => self.prepare_zipf(exponent, count),
        }
        for (fault, what) in self.scenario.faults.iter().enumerate() {
            let fault = fault as Index;
            self.queue
                .push(what.at().as_nanos() as Nanos, Happening::Fault { fault });
        }
    }

    fn add_host(&mut self, class: u32) -> Index {
        let at = self.hosts.len() as Index;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.draw.next().to_be_bytes());
        id[8..].copy_from_slice(&self.draw.next().to_be_bytes());
        id[12..].copy_from_slice(&at.to_be_bytes());
        let spec = &self.scenario.classes[class as usize];
        let mut host = Host::new(PeerId::from_bytes(id), class, spec, 0);
        if spec.cache.is_some() {
            host.cache = Cache::Bounded(Keep::new(spec.eviction));
        }
        self.hosts.push(host);
        at
    }

    fn add_visit(&mut self, host: Index, tasks: Arc<[u32]>, at: Nanos, extra: bool) {
        let visit = self.visits.len() as Index;
        let class = self.hosts[host as usize].class as usize;
        self.visits.push(Visit {
            host,
            left: tasks.len() as u32,
            next: 0,
            tasks,
            begun: false,
            extra,
            report: PeerReport {
                class,
                ..PeerReport::default()
            },
        });
        self.unfinished += usize::from(!extra);
        self.queue.push(at, Happening::Arrival { visit });
    }

    /// When the next one comes, `number` having come before.
    fn pause(&mut self, number: usize) -> Nanos {
        match self.scenario.arrivals {
            Arrivals::AtOnce => 0,
            Arrivals::Every(pause) => pause.as_nanos() as Nanos,
            Arrivals::Poisson(rate) => (self.draw.pause(rate) * 1e9) as Nanos,
            Arrivals::Waves { count, every } if (number + 1).is_multiple_of(count.max(1)) => {
                every.as_nanos() as Nanos
            }
            Arrivals::Waves { .. } => 0,
        }
    }

    fn prepare_one_each(&mut self) {
        let all: Arc<[u32]> = (0..self.tasks.len() as u32).collect();
        let mut at = 0;
        for host in 0..self.hosts.len() as Index {
            let class = &self.scenario.classes[self.hosts[host as usize].class as usize];
            let delay = class.delay.as_nanos() as Nanos;
            // A microsecond apart: an order, and nobody's messages arrive before his own.
            let start = at + delay + Nanos::from(host) * 1000;
            let tasks = class.order.clone().unwrap_or_else(|| all.clone());
            self.add_visit(host, tasks, start, false);
            at += self.pause(host as usize);
        }
    }

    fn prepare_zipf(&mut self, exponent: f64, count: usize) {
        let weights = (0..self.tasks.len()).map(|at| ((at + 1) as f64).powf(-exponent));
        let sums: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let mut at = 0;
        for number in 0..count {
            let task = self.draw.among(&sums) as u32;
            let host = (self.draw.next() % self.hosts.len() as u64) as Index;
            self.add_visit(host, Arc::new([task]), at, false);
            at += self.pause(number);
        }
    }

    /// A host's reader comes.
    pub(crate) fn arrive(&mut self, visit: Index) {
        let at = self.visits[visit as usize].host;
        let host = &mut self.hosts[at as usize];
        match host.state {
            State::Away => {
                host.state = State::Alive;
                if self.swarm.is_some() {
                    // A daemon has greeted before its reader comes: that never comes after what it asks.
                    let soon = self.latency.min(self.to_supernode(at));
                    self.after(soon, Happening::Connect { host: at });
                }
                self.will_depart(at);
            }
            State::Alive => {}
            State::Frozen | State::Dead => {
                self.visits[visit as usize].report.lost = true;
                self.finished(visit);
                return;
            }
        }
        self.hosts[at as usize].visit = visit;
        self.visits[visit as usize].begun = true;
        self.visits[visit as usize].report.started = self.now as f64 / 1e9;
        let tasks = self.visits[visit as usize].tasks.len();
        for _ in 0..tasks.min(self.scenario.parallel) {
            self.begin_next(visit);
        }
    }

    /// A reader asks for its next content.
    pub(crate) fn begin_next(&mut self, visit: Index) {
        let found = &mut self.visits[visit as usize];
        let Some(&task) = found.tasks.get(found.next) else {
            return;
        };
        found.next += 1;
        let host = found.host;
        if !self.hosts[host as usize].alive() {
            return;
        }
        self.tasks[task as usize].asked = true;
        let seat = self.seat(host, task);
        self.seats[seat as usize].opening.push((visit, self.now));
        self.join(seat);
    }

    /// A visit is over, one way or the other.
    pub(crate) fn finished(&mut self, visit: Index) {
        self.unfinished -= usize::from(!self.visits[visit as usize].extra);
    }

    fn seat(&mut self, host: Index, task: u32) -> Index {
        if let Some(seat) = self.seat_of(host, task) {
            return seat;
        }
        let at = self.seats.len() as Index;
        self.seats.push(Seat::new(host, task));
        self.hosts[host as usize].seats.push((task, at));
        at
    }

    fn will_depart(&mut self, host: Index) {
        if let Some(Churn { per_minute, .. }) = self.scenario.churn {
            let per_second = -(1.0 - per_minute).ln() / 60.0;
            let at = (self.draw.pause(per_second) * 1e9) as Nanos;
            self.after(at, Happening::Departure { host });
        }
    }

    /// A host dies because it was drawn by lot; if so set, a new one comes.
    pub(crate) fn depart(&mut self, host: Index) {
        if !self.hosts[host as usize].alive() {
            return;
        }
        self.kill(host);
        let replace = self.scenario.churn.is_some_and(|churn| churn.replace);
        if replace {
            let new = self.add_host(self.hosts[host as usize].class);
            let tasks = (0..self.tasks.len() as u32).collect();
            self.add_visit(new, tasks, self.now, true);
        }
    }
}
