//! How bytes move where connections are ideal: uplinks take turns, blocks queue at downlinks, nothing ramps up and nothing
//! is lost.

use crate::{
    Turns,
    conn::Ready,
    host::{State, Uplink},
    queue::{Happening, Index, Nanos},
    world::World,
};

impl World {
    /// A connection may have something to send now.
    pub(crate) fn kick(&mut self, at: Index) {
        let conn = &mut self.conns[at as usize];
        if conn.socket.is_some() {
            self.send_what_may(at);
            return;
        }
        if std::mem::replace(&mut conn.queued, true) {
            return;
        }
        let sender = conn.sender;
        let uplink = self.uplink(sender);
        uplink.ring.push_back(at);
        if !uplink.busy {
            self.send_next(sender);
        }
    }

    fn uplink_of(&self, sender: Option<Index>) -> &Uplink {
        match sender {
            Some(host) => &self.hosts[host as usize].up,
            None => &self.origin,
        }
    }

    pub(crate) fn uplink(&mut self, sender: Option<Index>) -> &mut Uplink {
        match sender {
            Some(host) => &mut self.hosts[host as usize].up,
            None => &mut self.origin,
        }
    }

    /// An uplink has sent its block.
    pub(crate) fn sent(&mut self, sender: Option<Index>) {
        self.uplink(sender).busy = false;
        self.send_next(sender);
    }

    fn send_next(&mut self, sender: Option<Index>) {
        if sender.is_some_and(|host| !self.hosts[host as usize].alive()) {
            return;
        }
        while let Some(at) = self.next_conn(sender) {
            let run = self.conns[at as usize].run;
            let sent = match run {
                None => self.send_block(at),
                Some(run) => self.send_run_block(run),
            };
            // Where there is more it is its turn again when all others had theirs; else it is kicked
            // when more comes.
            let more = sent && (run.is_some() || self.ready(at).is_some());
            self.conns[at as usize].queued = more;
            if more {
                let slots = match self.scenario.uplink {
                    Turns::Few(slots) if sender.is_some() => slots,
                    _ => usize::MAX,
                };
                let ring = &mut self.uplink(sender).ring;
                ring.insert(ring.len().min(slots.saturating_sub(1)), at);
            }
            if sent {
                return;
            }
        }
    }

    /// Whose turn it is.
    fn next_conn(&mut self, sender: Option<Index>) -> Option<Index> {
        if self.scenario.uplink != Turns::Urgent || sender.is_none() {
            return self.uplink(sender).ring.pop_front();
        }
        let ring = &self.uplink_of(sender).ring;
        let urgency = |&(_, &at): &(usize, &Index)| self.urgency(at);
        let (at, _) = ring.iter().enumerate().min_by_key(urgency)?;
        self.uplink(sender).ring.remove(at)
    }

    /// How many pieces lie between a child's reader and what the child can get next.
    fn urgency(&self, at: Index) -> u32 {
        let Some(Ready { link, piece, .. }) = self.ready(at) else {
            return u32::MAX;
        };
        let child = &self.seats[self.links[link as usize].child as usize];
        let reader = child.readers.iter().map(|reader| reader.next.get()).min();
        piece.get().saturating_sub(reader.unwrap_or(0))
    }

    fn send_block(&mut self, at: Index) -> bool {
        let conn = &self.conns[at as usize];
        if conn.flying >= conn.window {
            return false;
        }
        let (Some(sender), receiver, latency) = (conn.sender, conn.receiver, conn.latency) else {
            return false;
        };
        let Some(ready) = self.ready(at) else {
            self.conns[at as usize].begun = None;
            return false;
        };
        let bytes = (ready.available - ready.want.sent).min(self.scenario.block);
        self.conns[at as usize].flying += bytes;
        let (attempt, from) = self.sends(ready, bytes);
        let Ready {
            link, piece, size, ..
        } = ready;
        let host = &mut self.hosts[sender as usize];
        host.up.busy = true;
        let (zone, pace) = (host.zone, host.up.pace);
        let sent = self.now + (f64::from(bytes) * pace).ceil() as Nanos;
        self.queue
            .push(sent, Happening::Sent { host: Some(sender) });
        let arrives = self.through(zone, receiver, latency, sent, bytes);
        let begins = arrives - self.comes_after(sender, receiver, bytes);
        self.queue.push(
            begins,
            Happening::Block {
                link,
                piece,
                attempt,
                from,
                bytes,
            },
        );
        // Only a piece's last block completes anything.
        if begins < arrives && from + bytes == size {
            self.queue.push(
                arrives,
                Happening::Whole {
                    link,
                    piece,
                    attempt,
                    from,
                    bytes,
                },
            );
        }
        true
    }

    /// How long after its beginning a block has come in full. Its receiver passes on what it has of
    /// it, so that what it sends of it never overtakes what comes.
    pub(crate) fn comes_after(&self, sender: Index, receiver: Index, bytes: u32) -> Nanos {
        let (from, to) = (&self.hosts[sender as usize], &self.hosts[receiver as usize]);
        let quickest = from.up.pace.max(to.down_pace).min(to.up.pace);
        let rest = bytes.saturating_sub(self.scenario.relay);
        (f64::from(rest) * quickest) as Nanos
    }

    /// What of a transfer from the origin can be sent now: the piece, from where, and how much.
    pub(crate) fn run_ready(&mut self, at: Index) -> Option<(pantala_core::PieceIndex, u32, u32)> {
        let run = &self.runs[at as usize];
        let receiver = self.seats[run.seat as usize].host;
        let size = self.geometry(run.seat).size(run.piece) as u32;
        let may = run.open
            && run.piece < run.until
            && run.goal.is_none_or(|goal| run.piece < goal)
            && run.sent < size
            && self.hosts[receiver as usize].state != State::Dead;
        if !may {
            return None;
        }
        let (piece, from) = (run.piece, run.sent);
        let bytes = (size - from).min(self.scenario.block);
        if self.pauses(at, bytes) {
            return None;
        }
        let run = &mut self.runs[at as usize];
        run.sent += bytes;
        if run.sent == size {
            run.piece = piece.next();
            run.sent = 0;
        }
        Some((piece, from, bytes))
    }

    fn send_run_block(&mut self, at: Index) -> bool {
        let run = &self.runs[at as usize];
        let (conn, receiver) = (run.conn, self.seats[run.seat as usize].host);
        if self.conns[conn as usize].flying >= self.conns[conn as usize].window {
            return false;
        }
        let Some((piece, from, bytes)) = self.run_ready(at) else {
            return false;
        };
        let conn = &mut self.conns[conn as usize];
        conn.flying += bytes;
        let latency = conn.latency;
        self.origin_bytes += u64::from(bytes);
        self.origin.busy = true;
        let sent = self.now + (f64::from(bytes) * self.origin.pace).ceil() as Nanos;
        self.queue.push(sent, Happening::Sent { host: None });
        let zone = self.scenario.origin_zone as u32;
        let arrives = self.through(zone, receiver, latency, sent, bytes);
        self.queue.push(
            arrives,
            Happening::RunBlock {
                run: at,
                piece,
                from,
                bytes,
            },
        );
        true
    }

    /// Whether the origin pauses before a transfer's next block: between two bursts.
    fn pauses(&mut self, at: Index, bytes: u32) -> bool {
        let Some((size, rate)) = self.scenario.origin_bursts else {
            return false;
        };
        let run = &mut self.runs[at as usize];
        let (sent, began) = run.burst;
        let next = began + (size as f64 * 8e9 / rate) as Nanos;
        if sent == 0 || (sent >= size && self.now >= next) {
            run.burst = (u64::from(bytes), self.now);
            return false;
        }
        if sent >= size {
            // Asked again when the pause is over.
            self.queue.push(next, Happening::RunOpen { run: at });
            return true;
        }
        run.burst.0 += u64::from(bytes);
        false
    }
}
