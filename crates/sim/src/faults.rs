//! What goes wrong on purpose.

use crate::{
    peer::State,
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
                if let Some(peer) = self.lease_holder() {
                    self.freeze(peer);
                }
            }
            Fault::KillHolder { .. } => {
                if let Some(peer) = self.lease_holder() {
                    self.kill(peer);
                }
            }
            Fault::KillParent { .. } => {
                let fed = |p: Index| {
                    let children = &self.peers[p as usize].children;
                    let fed = children
                        .iter()
                        .filter(|&&link| !self.links[link as usize].wants.is_empty());
                    (fed.count(), std::cmp::Reverse(p))
                };
                let holder = self.lease_holder();
                let parent = (0..self.peers.len() as Index)
                    .filter(|&p| self.peers[p as usize].alive() && Some(p) != holder)
                    .max_by_key(|&p| fed(p));
                if let Some(peer) = parent {
                    self.kill(peer);
                }
            }
            Fault::SupernodeDown { .. } => {
                if let Some(swarm) = self.swarm.take() {
                    self.leases_moved += swarm.stats().leases_moved;
                }
                for peer in 0..self.peers.len() as Index {
                    self.after_latency(Happening::Connection { peer, up: false });
                }
            }
            Fault::SupernodeUp { .. } => {
                self.swarm = Some(pantala_swarm::Swarm::new(self.scenario.swarm.clone()));
                for peer in 0..self.peers.len() as Index {
                    // Reconnecting is spread over a tenth of a second.
                    let at = self.now + self.draw.next() % 100_000_000;
                    self.queue
                        .push(at, Happening::Connection { peer, up: true });
                }
            }
        }
    }

    fn lease_holder(&self) -> Option<Index> {
        let holding = |p: &Index| {
            let peer = &self.peers[*p as usize];
            peer.alive() && !peer.leases.is_empty() && !peer.runs.is_empty()
        };
        (0..self.peers.len() as Index).find(holding)
    }

    fn lose(&mut self, p: Index, state: State) -> bool {
        let peer = &mut self.peers[p as usize];
        if !peer.alive() {
            return false;
        }
        peer.state = state;
        peer.report.lost = true;
        if peer.report.last_byte.is_none() {
            self.unfinished -= 1;
        }
        for (_, run) in std::mem::take(&mut self.peers[p as usize].runs) {
            // Dead or frozen, it reads no more from the origin.
            self.runs[run as usize].open = false;
        }
        true
    }

    fn freeze(&mut self, p: Index) {
        self.lose(p, State::Frozen);
    }

    fn kill(&mut self, p: Index) {
        if !self.lose(p, State::Dead) {
            return;
        }
        self.after_latency(Happening::Disconnect { peer: p });
        for link in std::mem::take(&mut self.peers[p as usize].children) {
            self.after_latency(Happening::LinkDown { link });
        }
        let parents: Vec<Index> = self.peers[p as usize].parents.values().copied().collect();
        for link in parents {
            let parent = self.links[link as usize].parent;
            self.links[link as usize].up = false;
            self.links[link as usize].wants.clear();
            self.peers[parent as usize].children.retain(|&l| l != link);
        }
    }
}
