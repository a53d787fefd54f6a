//! What goes wrong on purpose.

use crate::{
    host::State,
    queue::{Happening, Index},
    scenario::Fault,
    world::World,
};

impl World {
    pub(crate) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { peer, .. } => self.kill(peer as Index),
            Fault::Freeze { peer, .. } => self.freeze(peer as Index),
            Fault::FreezeHolder { .. } => {
                if let Some(host) = self.lease_holder() {
                    self.freeze(host);
                }
            }
            Fault::KillHolder { .. } => {
                if let Some(host) = self.lease_holder() {
                    self.kill(host);
                }
            }
            Fault::KillParent { .. } => {
                if let Some(host) = self.busiest_parent() {
                    self.kill(host);
                }
            }
            Fault::SupernodeDown { .. } => {
                if let Some(swarm) = self.swarm.take() {
                    self.leases_moved += swarm.stats().leases_moved;
                }
                for host in 0..self.hosts.len() as Index {
                    self.after(self.latency, Happening::Connection { host, up: false });
                }
            }
            Fault::SupernodeUp { .. } => {
                self.swarm = Some(pantala_swarm::Swarm::new(self.scenario.swarm.clone()));
                for host in 0..self.hosts.len() as Index {
                    // Reconnecting is spread over a tenth of a second.
                    let pause = self.draw.next() % 100_000_000;
                    self.after(pause, Happening::Connection { host, up: true });
                }
            }
        }
    }

    /// Whoever feeds most children and does not ask the origin.
    fn busiest_parent(&self) -> Option<Index> {
        let fed = |h: Index| {
            let seats = self.hosts[h as usize].seats.iter();
            let children = seats.flat_map(|&(_, seat)| &self.seats[seat as usize].children);
            let fed = children.filter(|&&link| !self.links[link as usize].wants.is_empty());
            (fed.count(), std::cmp::Reverse(h))
        };
        let holder = self.lease_holder();
        (0..self.hosts.len() as Index)
            .filter(|&h| self.hosts[h as usize].alive() && Some(h) != holder)
            .max_by_key(|&h| fed(h))
    }

    fn lease_holder(&self) -> Option<Index> {
        let holding = |&seat: &Index| {
            let seat = &self.seats[seat as usize];
            seat.alive && !seat.leases.is_empty() && !seat.runs.is_empty()
        };
        let holders = (0..self.seats.len() as Index).filter(holding);
        holders.map(|seat| self.seats[seat as usize].host).min()
    }

    fn lose(&mut self, h: Index, state: State) -> bool {
        let host = &mut self.hosts[h as usize];
        if !host.alive() {
            return false;
        }
        host.state = state;
        for at in 0..self.hosts[h as usize].seats.len() {
            let s = self.hosts[h as usize].seats[at].1;
            let seat = &mut self.seats[s as usize];
            seat.alive = false;
            for (_, run) in seat.runs.take() {
                // Dead or frozen, it reads no more from the origin.
                self.runs[run as usize].open = false;
            }
        }
        for visit in 0..self.visits.len() as Index {
            let found = &mut self.visits[visit as usize];
            // Those to come are given up when they do.
            if found.host == h && found.begun {
                found.report.lost = true;
                if found.report.last_byte.is_none() {
                    self.finished(visit);
                }
            }
        }
        true
    }

    fn freeze(&mut self, host: Index) {
        self.lose(host, State::Frozen);
    }

    pub(crate) fn kill(&mut self, host: Index) {
        if !self.lose(host, State::Dead) {
            return;
        }
        self.after(self.latency, Happening::Disconnect { host });
        for at in 0..self.hosts[host as usize].seats.len() {
            let s = self.hosts[host as usize].seats[at].1;
            for link in std::mem::take(&mut self.seats[s as usize].children) {
                let latency = self.links[link as usize].latency;
                self.after(latency, Happening::LinkDown { link });
            }
            let links: Vec<Index> = self.seats[s as usize].parents.values().copied().collect();
            for link in links {
                self.cut(link);
            }
        }
    }
}
