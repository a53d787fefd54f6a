//! What parents tell their children, and how links come and go.

use pantala_core::{
    PieceIndex,
    control::{FromPeer, Trouble},
};
use pantala_window::{AttemptId, Event, Failure, ParentId};

use crate::{
    peer::{Link, News, State, Want},
    queue::{Flow, Happening, Index},
    world::World,
};

impl World {
    pub(crate) fn announce(&mut self, p: Index, news: News) {
        for at in 0..self.peers[p as usize].children.len() {
            let link = self.peers[p as usize].children[at];
            self.announce_on(link, news);
        }
    }

    fn announce_on(&mut self, link: Index, news: News) {
        let waiting = &mut self.links[link as usize].news;
        waiting.push(news);
        if waiting.len() == 1 {
            self.after_latency(Happening::News { link });
        }
    }

    pub(crate) fn news(&mut self, at: Index) {
        let link = &mut self.links[at as usize];
        let child = link.child;
        let news = std::mem::take(&mut link.news);
        if !link.up {
            return;
        }
        let parent = ParentId(u64::from(at));
        for news in news {
            let event = match news {
                News::Holds(first, count) => Event::ParentHolds {
                    parent,
                    first,
                    count,
                },
                News::Receiving(piece) => Event::ParentReceiving { parent, piece },
                News::Lost(first) => Event::ParentLost {
                    parent,
                    first,
                    count: 1,
                },
            };
            self.tell(child, event);
        }
    }

    /// Links to everybody that the supernode named; what it names no more is hung up when nothing
    /// is under way there.
    pub(crate) fn dial_parents(&mut self, p: Index) {
        let told = self.peers[p as usize].told.clone();
        let named: Vec<_> = told
            .preferred
            .iter()
            .flatten()
            .chain(&told.others)
            .map(|addr| addr.id)
            .collect();
        for &id in &named {
            let Some(&parent) = self.by_id.get(&id) else {
                continue;
            };
            if self.peers[p as usize].parents.contains_key(&id) {
                continue;
            }
            let at = self.links.len() as Index;
            self.links.push(Link {
                child: p,
                parent,
                up: false,
                wants: Default::default(),
                flying: 0,
                queued: false,
                news: Vec::new(),
            });
            self.peers[p as usize].parents.insert(id, at);
            // A connection is there after one round trip.
            let ready = self.now + 2 * self.latency;
            self.queue.push(ready, Happening::Dialled { link: at });
        }
        let peer = &self.peers[p as usize];
        let idle: Vec<Index> = peer
            .parents
            .iter()
            .filter(|(id, _)| !named.contains(id))
            .map(|(_, &link)| link)
            .filter(|&link| self.links[link as usize].up)
            .filter(|&link| !peer.attempts.values().any(|request| request.link == link))
            .collect();
        for link in idle {
            self.hang_up(link);
        }
        self.prefer(p);
    }

    /// Tells the picker whom the supernode prefers, as far as there are links.
    pub(crate) fn prefer(&mut self, p: Index) {
        let peer = &self.peers[p as usize];
        let stripes = peer
            .told
            .preferred
            .iter()
            .map(|parent| {
                let link = *peer.parents.get(&parent.as_ref()?.id)?;
                self.links[link as usize]
                    .up
                    .then(|| ParentId(u64::from(link)))
            })
            .collect();
        self.tell(p, Event::Preferred { stripes });
    }

    pub(crate) fn dialled(&mut self, at: Index) {
        let (child, parent) = {
            let link = &self.links[at as usize];
            (link.child, link.parent)
        };
        if !self.peers[child as usize].alive() {
            return;
        }
        let id = self.peers[parent as usize].id;
        match self.peers[parent as usize].state {
            State::Dead | State::Away => {
                self.peers[child as usize].parents.remove(&id);
                let message = FromPeer::Trouble {
                    task: self.task,
                    peer: id,
                    trouble: Trouble::Gone,
                };
                self.report_to_swarm(child, message);
            }
            // It accepts in its kernel and says nothing.
            State::Frozen => {}
            State::Alive => {
                self.links[at as usize].up = true;
                self.peers[parent as usize].children.push(at);
                self.tell(
                    child,
                    Event::ParentUp {
                        parent: ParentId(u64::from(at)),
                    },
                );
                let parent = &self.peers[parent as usize];
                let flying = parent.flights.iter().filter(|(_, flight)| flight.bytes > 0);
                let flying: Vec<PieceIndex> = flying.map(|(&piece, _)| piece).collect();
                for (first, count) in parent.held.runs() {
                    self.announce_on(at, News::Holds(first, count));
                }
                for piece in flying {
                    self.announce_on(at, News::Receiving(piece));
                }
                self.prefer(child);
            }
        }
    }

    /// Ends a link from the child's side.
    fn hang_up(&mut self, at: Index) {
        let link = &mut self.links[at as usize];
        link.up = false;
        link.wants.clear();
        let (child, parent) = (link.child, link.parent);
        self.peers[parent as usize].children.retain(|&l| l != at);
        let id = self.peers[parent as usize].id;
        self.peers[child as usize].parents.remove(&id);
        self.tell(
            child,
            Event::ParentDown {
                parent: ParentId(u64::from(at)),
            },
        );
    }

    /// The parent has gone.
    pub(crate) fn link_down(&mut self, at: Index) {
        let child = self.links[at as usize].child;
        let parent = self.links[at as usize].parent;
        self.links[at as usize].up = false;
        let id = self.peers[parent as usize].id;
        let peer = &mut self.peers[child as usize];
        if peer.parents.get(&id) == Some(&at) {
            peer.parents.remove(&id);
        }
        peer.attempts.retain(|_, request| request.link != at);
        if peer.alive() {
            self.tell(
                child,
                Event::ParentDown {
                    parent: ParentId(u64::from(at)),
                },
            );
        }
    }

    /// A request reaches its parent.
    pub(crate) fn want(&mut self, at: Index, piece: PieceIndex, attempt: AttemptId, from: u32) {
        let parent = self.links[at as usize].parent;
        if !self.links[at as usize].up || !self.peers[parent as usize].alive() {
            return;
        }
        if !self.will_have(parent, piece) {
            self.after_latency(Happening::Refused { link: at, attempt });
            return;
        }
        let want = Want {
            attempt,
            sent: from,
        };
        self.links[at as usize].wants.insert(piece, want);
        self.kick(Flow::Link(at));
    }

    pub(crate) fn unwant(&mut self, at: Index, piece: PieceIndex, attempt: AttemptId) {
        let wants = &mut self.links[at as usize].wants;
        if wants
            .get(&piece)
            .is_some_and(|want| want.attempt == attempt)
        {
            wants.remove(&piece);
        }
    }

    pub(crate) fn refused(&mut self, at: Index, attempt: AttemptId) {
        let child = self.links[at as usize].child;
        let peer = &mut self.peers[child as usize];
        if peer.alive() && peer.attempts.remove(&attempt).is_some() {
            self.tell(
                child,
                Event::Failed {
                    attempt,
                    failure: Failure::NotHere,
                },
            );
        }
    }
}
