//! What happens to bytes between a sender's socket and its receiver: links' queues, what they drop, what is lost by chance, and
//! the order in which all arrives in spite of that.

use crate::{
    host::{Host, Lane},
    queue::{Happening, Index, Nanos},
    tcp::{Congestion, MSS},
    world::World,
};

/// What a kernel waits for an answer to a lone packet, beside a round trip, before it sends it again.
const LONE: Nanos = 200_000_000;

/// Something that was sent: when it arrives, if that is known, and what happens then.
#[derive(Debug)]
pub(crate) struct Coming {
    at: Option<Nanos>,
    happening: Happening,
}

impl World {
    /// Bytes, or a message, set out: works out when they arrive, in order, and are acknowledged.
    pub(crate) fn transmit(&mut self, at: Index, bytes: u32, happening: Happening) {
        let now = self.now;
        if self.conns[at as usize].run.is_some() {
            self.origin_bytes += u64::from(bytes);
        }
        let (arrives, dropped, gone) = self.pass(at, bytes);
        let back = self.way_back(at);
        let packets = (f64::from(bytes) / MSS).ceil().max(1.0);
        let lost = self.draw_lost(packets);
        let late = self.late(at, packets, lost, arrives - now + back);
        let conn = &mut self.conns[at as usize];
        let Some(socket) = conn.socket.as_mut() else {
            return;
        };
        if bytes > 0 {
            let pace = socket.tcp.pace();
            socket.may = socket.may.max(now) + (f64::from(bytes) * pace) as Nanos;
            // No more than two parts of one connection stand in its own host's queue (TCP Small Queues).
            socket.may = socket.may.max(std::mem::replace(&mut socket.gone, gone));
            let more = !socket.waits.is_empty();
            let mut sent = socket.tcp.sends(now, bytes, conn.flying, more);
            sent.lost = lost > 0.0 || dropped > 0;
            sent.dropped = dropped;
            conn.flying += bytes;
            socket.sent.push_back(sent);
            socket.acknowledged = socket.acknowledged.max(arrives + back);
            let done = socket.acknowledged;
            self.queue.push(done, Happening::Acknowledged { conn: at });
        }
        if dropped > 0 {
            let number = socket.first + socket.coming.len() as u64;
            socket.again.push_back((number, dropped));
            let known = arrives + back;
            self.queue.push(known, Happening::SentAgain { conn: at });
        }
        socket.coming.push_back(Coming {
            at: (dropped == 0).then_some(arrives + late),
            happening,
        });
        self.come(at);
    }

    /// How long an acknowledgement takes from a connection's receiver.
    fn way_back(&self, at: Index) -> Nanos {
        let conn = &self.conns[at as usize];
        let receiver = &self.hosts[conn.receiver as usize];
        conn.latency + receiver.up.lane.backlog(self.now)
    }

    /// How much later all of it is there because some packets are lost by chance: acknowledgements of what follows say what
    /// is missing; where nothing follows, a timer does. They take the link's time again.
    fn late(&mut self, at: Index, packets: f64, mut lost: f64, rtt: Nanos) -> Nanos {
        if lost <= 0.0 {
            return 0;
        }
        let conn = &self.conns[at as usize];
        let (sender, flying) = (conn.sender, conn.flying);
        let socket = conn.socket.as_ref();
        let more = socket.is_some_and(|socket| !socket.waits.is_empty());
        let srtt = socket.map_or(0, |socket| socket.tcp.srtt());
        let timer = match more {
            true => 0,
            false if packets <= 1.0 && flying == 0 => LONE,
            false => 2 * srtt,
        };
        let mut late = rtt + timer;
        loop {
            let lane = &mut self.uplink(sender).lane;
            lane.free += (lost * MSS * lane.pace) as Nanos;
            lost = self.draw_lost(lost);
            if lost <= 0.0 {
                return late;
            }
            late += rtt + rtt / 4;
        }
    }

    /// What found a queue full is sent again.
    pub(crate) fn sent_again(&mut self, at: Index) {
        let now = self.now;
        let Some((number, bytes)) = self.socket_of(at).again.pop_front() else {
            return;
        };
        let (arrives, dropped, _) = self.pass(at, bytes);
        let known = arrives + self.way_back(at);
        let conn = &mut self.conns[at as usize];
        let Some(socket) = conn.socket.as_mut() else {
            return;
        };
        let through = bytes - dropped;
        if through > 0 {
            let sent = socket.tcp.sends(now, through, conn.flying, true);
            conn.flying += through;
            socket.sent.push_back(sent);
            socket.acknowledged = socket.acknowledged.max(known);
            let done = socket.acknowledged;
            self.queue.push(done, Happening::Acknowledged { conn: at });
        }
        if dropped > 0 {
            socket.again.push_back((number, dropped));
            self.queue.push(known, Happening::SentAgain { conn: at });
            return;
        }
        let place = number.checked_sub(socket.first);
        let found = place.and_then(|place| socket.coming.get_mut(place as usize));
        if let Some(found) = found {
            found.at = Some(arrives);
        }
        self.come(at);
    }

    /// What is there with all that was sent before arrives.
    fn come(&mut self, at: Index) {
        loop {
            let socket = self.socket_of(at);
            let Some(time) = socket.coming.front().and_then(|first| first.at) else {
                return;
            };
            socket.in_order = socket.in_order.max(time);
            let comes = socket.in_order;
            socket.first += 1;
            if let Some(first) = socket.coming.pop_front() {
                self.arrives(comes, first.happening);
            }
        }
    }

    /// A block is passed on as it comes: it arrives with its beginning, and what it completes with its end.
    fn arrives(&mut self, at: Nanos, happening: Happening) {
        let Happening::Block {
            link,
            piece,
            attempt,
            from,
            bytes,
        } = happening
        else {
            self.queue.push(at, happening);
            return;
        };
        let (child, sender, receiver) = {
            let link = &self.links[link as usize];
            (link.child, link.sender, link.receiver)
        };
        let begins = at.saturating_sub(self.comes_after(sender, receiver, bytes));
        self.queue.push(begins.max(self.now), happening);
        if bytes > self.scenario.relay && from + bytes == self.geometry(child).size(piece) as u32 {
            let whole = Happening::Whole {
                link,
                piece,
                attempt,
                from,
                bytes,
            };
            self.queue.push(at, whole);
        }
    }

    /// Bytes pass the sender's link, what lies between zones, and the receiver's link: when they are through, and how
    /// many found a queue full; and when they have left the sender.
    fn pass(&mut self, at: Index, bytes: u32) -> (Nanos, u32, Nanos) {
        let now = self.now;
        let conn = &self.conns[at as usize];
        let (sender, receiver, latency) = (conn.sender, conn.receiver, conn.latency);
        let network = &self.scenario.network;
        let (queue, burst) = (network.queue.as_nanos() as Nanos, network.burst as f64);
        let congestion = network.congestion;
        // tc's tbf makes its queue as much longer as what it passes at once. BBR sends no more than comes through as soon as
        // something is dropped, and minds nothing: what it has too much of waits here instead, within its window.
        let room = |pace: f64| match congestion {
            Some(Congestion::Cubic) => queue + (burst * pace) as Nanos,
            _ => Nanos::MAX / 4,
        };
        let zone = match sender {
            Some(host) => self.hosts[host as usize].zone,
            None => self.scenario.origin_zone as u32,
        };
        let all = f64::from(bytes);
        let up = &mut self.uplink(sender).lane;
        let starts = now + up.backlog(now);
        let (gone, first) = up.pass(now, all, room(up.pace), burst);
        let to = &mut self.hosts[receiver as usize];
        let down = &mut to.down;
        let (down, second) = down.pass(starts, all - first, room(down.pace), burst);
        let into = to.zone;
        let between = self.pipes.through(zone, into, now, gone, bytes);
        let dropped = (first + second).round() as u32;
        (between.max(down) + latency, dropped.min(bytes), gone)
    }

    /// How many of so many packets are lost by chance.
    fn draw_lost(&mut self, packets: f64) -> f64 {
        let loss = self.scenario.network.loss;
        if loss <= 0.0 {
            return 0.0;
        }
        // The distance to the next lost packet is geometric: as many draws as there are losses, and one.
        let (mut lost, mut at) = (0.0, 0.0);
        loop {
            let skip = ((1.0 - self.draw.unit()).ln() / (1.0 - loss).ln()).floor();
            at += skip + 1.0;
            if at > packets {
                return lost;
            }
            lost += 1.0;
        }
    }

    /// How long a message takes from one host to another behind what waits in the queues on its way; the origin's and
    /// the supernode's links are `None`, which has no queue for messages.
    pub(crate) fn message(
        &mut self,
        from: Option<Index>,
        to: Option<Index>,
        latency: Nanos,
    ) -> Nanos {
        if self.scenario.network.congestion.is_none() {
            return latency;
        }
        let backlog = |host: Option<Index>, lane: fn(&Host) -> &Lane| {
            host.map_or(0, |host| lane(&self.hosts[host as usize]).backlog(self.now))
        };
        let queued = backlog(from, |host| &host.up.lane) + backlog(to, |host| &host.down);
        let way = latency + queued;
        match self.draw_lost(1.0) > 0.0 {
            true => way + way + latency + LONE,
            false => way,
        }
    }

    /// When a message that a child says to its parent arrives there.
    pub(crate) fn back(&mut self, at: Index) -> Nanos {
        let conn = &self.conns[at as usize];
        let (sender, receiver, latency) = (conn.sender, conn.receiver, conn.latency);
        let way = self.message(Some(receiver), sender, latency);
        let conn = &mut self.conns[at as usize];
        conn.used = self.now;
        conn.back = conn.back.max(self.now + way);
        conn.back
    }

    /// How long a connection takes until it stands and both have said who they are: two round trips.
    pub(crate) fn handshake(&mut self, at: Index) -> Nanos {
        let conn = &self.conns[at as usize];
        let (sender, receiver, latency) = (conn.sender, conn.receiver, conn.latency);
        let mut took = 0;
        for _ in 0..2 {
            took += self.message(Some(receiver), sender, latency);
            took += self.message(sender, Some(receiver), latency);
        }
        took
    }
}
