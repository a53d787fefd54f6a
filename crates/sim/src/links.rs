//! How links to parents come and go, and what is asked over them.

use pantala_core::{
    Flat, PieceIndex,
    control::{FromPeer, Trouble},
};
use pantala_window::{AttemptId, Event, Failure, ParentId};

use crate::{
    host::State,
    queue::{Happening, Index},
    seat::{Link, News, Want},
    socket::Segment,
    world::{World, index_of_peer},
};

impl World {
    /// Links to everybody that the supernode named; what it names no more is hung up when nothing
    /// is under way there.
    pub(crate) fn dial_parents(&mut self, s: Index) {
        let told = self.seats[s as usize].told.clone();
        let preferred = told.preferred.iter().flatten();
        let named: Vec<_> = preferred.chain(&told.others).map(|addr| addr.id).collect();
        for &id in &named {
            if !self.seats[s as usize].parents.contains(id) {
                self.dial(s, index_of_peer(id));
            }
        }
        let seat = &self.seats[s as usize];
        let links = &self.links;
        let idle: Vec<Index> = seat
            .parents
            .iter()
            .filter(|(id, _)| !named.contains(id))
            .map(|(_, &link)| link)
            .filter(|&link| links[link as usize].up)
            .filter(|&link| !seat.attempts.values().any(|request| request.link == link))
            .collect();
        for link in idle {
            self.hang_up(link);
        }
        self.prefer(s);
    }

    fn dial(&mut self, s: Index, sender: Index) {
        let (receiver, task) = (self.seats[s as usize].host, self.seats[s as usize].task);
        let Some(parent) = self.seat_of(sender, task) else {
            return;
        };
        let at = self.links.len() as Index;
        let (conn, stands) = self.connection_to(sender, receiver);
        let latency = self.conns[conn as usize].latency;
        self.links.push(Link {
            child: s,
            parent,
            sender,
            receiver,
            latency,
            conn,
            up: false,
            wants: Flat::default(),
            news: Vec::new(),
        });
        let id = self.hosts[sender as usize].id;
        self.seats[s as usize].parents.insert(id, at);
        let wait = match stands {
            true => 0,
            false => self.handshake(conn),
        };
        self.after(wait, Happening::Dialled { link: at });
    }

    /// Tells the picker whom the supernode prefers, as far as there are links.
    pub(crate) fn prefer(&mut self, s: Index) {
        let seat = &self.seats[s as usize];
        let stripes = seat
            .told
            .preferred
            .iter()
            .map(|parent| {
                let link = *seat.parents.get(parent.as_ref()?.id)?;
                self.links[link as usize]
                    .up
                    .then(|| ParentId(u64::from(link)))
            })
            .collect();
        self.tell(s, Event::Preferred { stripes });
    }

    pub(crate) fn dialled(&mut self, at: Index) {
        let link = &self.links[at as usize];
        let (child, parent, sender) = (link.child, link.parent, link.sender);
        let id = self.hosts[sender as usize].id;
        // It may have left the task meanwhile.
        if !self.seats[child as usize].alive
            || self.seats[child as usize].parents.get(id) != Some(&at)
        {
            return;
        }
        match self.hosts[sender as usize].state {
            // It accepts in its kernel and says nothing.
            State::Frozen => {}
            State::Alive if self.seats[parent as usize].joined => self.link_up(at),
            State::Alive | State::Dead | State::Away => {
                self.seats[child as usize].parents.remove(id);
                let message = FromPeer::Trouble {
                    task: self.task_id(child),
                    peer: id,
                    trouble: Trouble::Gone,
                };
                let host = self.seats[child as usize].host;
                self.report_to_swarm(host, message);
            }
        }
    }

    fn link_up(&mut self, at: Index) {
        let (child, parent) = (
            self.links[at as usize].child,
            self.links[at as usize].parent,
        );
        let conn = self.links[at as usize].conn;
        let conn = &mut self.conns[conn as usize];
        // On one that stands the parent's answer takes a round trip; it came with the greeting of a new one.
        let wait = match std::mem::replace(&mut conn.greeted, true) {
            true => 2 * conn.latency,
            false => 0,
        };
        conn.used = self.now;
        self.links[at as usize].up = true;
        self.seats[parent as usize].children.push(at);
        self.tell(
            child,
            Event::ParentUp {
                parent: ParentId(u64::from(at)),
            },
        );
        let seat = &self.seats[parent as usize];
        let flying = seat.flights.iter().filter(|(_, flight)| flight.bytes > 0);
        let flying: Vec<PieceIndex> = flying.map(|(piece, _)| piece).collect();
        let held = seat.held.runs().into_iter();
        let held = held.map(|(first, count)| News::Holds(first, count));
        let news: Vec<News> = held
            .chain(flying.into_iter().map(News::Receiving))
            .collect();
        if !news.is_empty() {
            self.links[at as usize].news.extend(news);
            self.after(wait, Happening::News { link: at });
        }
        self.prefer(child);
    }

    /// Ends a link from the child's side.
    pub(crate) fn hang_up(&mut self, at: Index) {
        self.cut(at);
        let (child, sender) = (
            self.links[at as usize].child,
            self.links[at as usize].sender,
        );
        let id = self.hosts[sender as usize].id;
        self.seats[child as usize].parents.remove(id);
        self.tell(
            child,
            Event::ParentDown {
                parent: ParentId(u64::from(at)),
            },
        );
    }

    /// The parent's end of a link knows it no more.
    pub(crate) fn cut(&mut self, at: Index) {
        self.drop_wants(at);
        let link = &mut self.links[at as usize];
        link.up = false;
        let parent = &mut self.seats[link.parent as usize];
        parent.children.retain(|&other| other != at);
        parent.waiting.retain(|&(_, link)| link != at);
    }

    /// The parent has gone.
    pub(crate) fn link_down(&mut self, at: Index) {
        let link = &mut self.links[at as usize];
        link.up = false;
        let (child, sender) = (link.child, link.sender);
        let id = self.hosts[sender as usize].id;
        let seat = &mut self.seats[child as usize];
        if seat.parents.get(id) == Some(&at) {
            seat.parents.remove(id);
        }
        seat.attempts.retain(|_, request| request.link != at);
        if seat.alive {
            self.tell(
                child,
                Event::ParentDown {
                    parent: ParentId(u64::from(at)),
                },
            );
        }
    }

    /// A request reaches its parent.
    pub(crate) fn want(
        &mut self,
        at: Index,
        piece: PieceIndex,
        attempt: AttemptId,
        from: u32,
        urgency: u32,
    ) {
        let link = &self.links[at as usize];
        let parent = link.parent;
        if !link.up || !self.seats[parent as usize].alive {
            return;
        }
        if !self.will_have(parent, piece) {
            self.say_refused(at, attempt);
            return;
        }
        let want = Want {
            attempt,
            sent: from,
            urgency,
            since: 0,
        };
        let (known, conn) = (link.wants.contains(piece), link.conn);
        if !known {
            self.seats[parent as usize].waiting.push((piece, at));
        }
        self.line_up(at, piece, want);
        self.kick(conn);
    }

    pub(crate) fn unwant(&mut self, at: Index, piece: PieceIndex, attempt: AttemptId) {
        let found = self.links[at as usize].wants.get(piece);
        if found.is_some_and(|want| want.attempt == attempt) {
            self.take_want(at, piece);
        }
    }

    /// A parent tells a child that it will not have a piece.
    pub(crate) fn refuse(&mut self, at: Index, piece: PieceIndex) {
        if let Some(want) = self.take_want(at, piece) {
            self.say_refused(at, want.attempt);
        }
    }

    fn say_refused(&mut self, at: Index, attempt: AttemptId) {
        let link = &self.links[at as usize];
        let (conn, latency) = (link.conn, link.latency);
        match self.conns[conn as usize].socket {
            Some(_) => self.write(conn, Segment::Refused { link: at, attempt }),
            None => self.after(latency, Happening::Refused { link: at, attempt }),
        }
    }

    pub(crate) fn refused(&mut self, at: Index, attempt: AttemptId) {
        let child = self.links[at as usize].child;
        let seat = &mut self.seats[child as usize];
        if seat.alive && seat.request(attempt, at).is_some() {
            seat.attempts.remove(attempt);
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
