//! How bytes move: uplinks take turns, blocks queue at downlinks.

use pantala_core::PieceIndex;

use crate::{
    Turns,
    host::{State, Uplink},
    queue::{Flow, Happening, Index, Nanos},
    seat::Want,
    world::World,
};

impl World {
    /// A flow may have something to send now.
    pub(crate) fn kick(&mut self, flow: Flow) {
        let (sender, queued) = match flow {
            Flow::Link(link) => {
                let link = &mut self.links[link as usize];
                (Some(link.sender), std::mem::replace(&mut link.queued, true))
            }
            Flow::Run(run) => {
                let run = &mut self.runs[run as usize];
                (None, std::mem::replace(&mut run.queued, true))
            }
        };
        if queued {
            return;
        }
        let uplink = self.uplink(sender);
        uplink.ring.push_back(flow);
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

    fn uplink(&mut self, sender: Option<Index>) -> &mut Uplink {
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
        while let Some(flow) = self.next_flow(sender) {
            let sent = match flow {
                Flow::Link(link) => self.send_block(link),
                Flow::Run(run) => self.send_run_block(run),
            };
            // Where there is more it is its turn again when all others had theirs; else it is kicked
            // when more comes.
            let more = sent
                && match flow {
                    Flow::Link(link) => self.ready(link).is_some(),
                    Flow::Run(_) => true,
                };
            match flow {
                Flow::Link(link) => self.links[link as usize].queued = more,
                Flow::Run(run) => self.runs[run as usize].queued = more,
            }
            if more {
                let slots = match self.scenario.uplink {
                    Turns::Few(slots) if sender.is_some() => slots,
                    _ => usize::MAX,
                };
                let ring = &mut self.uplink(sender).ring;
                ring.insert(ring.len().min(slots.saturating_sub(1)), flow);
            }
            if sent {
                return;
            }
        }
    }

    /// Whose turn it is.
    fn next_flow(&mut self, sender: Option<Index>) -> Option<Flow> {
        if self.scenario.uplink != Turns::Urgent {
            return self.uplink(sender).ring.pop_front();
        }
        let ring = &self.uplink_of(sender).ring;
        let urgency = |&(_, flow): &(usize, &Flow)| match *flow {
            Flow::Link(link) => self.urgency(link),
            Flow::Run(_) => 0,
        };
        let (at, _) = ring.iter().enumerate().min_by_key(urgency)?;
        self.uplink(sender).ring.remove(at)
    }

    /// How many pieces lie between a child's reader and what the child can get next.
    fn urgency(&self, at: Index) -> u32 {
        let Some((piece, ..)) = self.ready(at) else {
            return u32::MAX;
        };
        let child = &self.seats[self.links[at as usize].child as usize];
        let reader = child.readers.iter().map(|reader| reader.next.get()).min();
        piece.get().saturating_sub(reader.unwrap_or(0))
    }

    /// What a link's child can get next: the lowest piece that there is more of, from where, and how
    /// much of it there is.
    fn ready(&self, at: Index) -> Option<(PieceIndex, Want, u32, u32)> {
        let link = &self.links[at as usize];
        if !link.up || link.wants.is_empty() {
            return None;
        }
        let seat = &self.seats[link.parent as usize];
        let geometry = self.tasks[seat.task as usize].geometry;
        link.wants.iter().find_map(|(piece, want)| {
            let size = geometry.size(piece) as u32;
            let available = seat.available(piece, size);
            (want.sent < available).then_some((piece, *want, available, size))
        })
    }

    fn send_block(&mut self, at: Index) -> bool {
        let link = &self.links[at as usize];
        if link.flying >= link.window {
            return false;
        }
        let (parent, sender, receiver, latency) =
            (link.parent, link.sender, link.receiver, link.latency);
        let Some((piece, want, available, size)) = self.ready(at) else {
            return false;
        };
        let bytes = (available - want.sent).min(self.scenario.block);
        let link = &mut self.links[at as usize];
        link.flying += bytes;
        if want.sent + bytes == size {
            link.wants.remove(piece);
            self.seats[parent as usize].waits_no_more(piece, at);
        } else if let Some(want) = link.wants.get_mut(piece) {
            want.sent += bytes;
        }
        let task = self.task_id(parent);
        let host = &mut self.hosts[sender as usize];
        host.cache.touch(task, piece);
        host.up.busy = true;
        let (zone, pace, visit) = (host.zone, host.up.pace, host.visit);
        self.visits[visit as usize].report.sent += u64::from(bytes);
        let sent = self.now + (f64::from(bytes) * pace).ceil() as Nanos;
        self.queue
            .push(sent, Happening::Sent { host: Some(sender) });
        let arrives = self.through(zone, receiver, latency, sent, bytes);
        let (attempt, from) = (want.attempt, want.sent);
        let begins = arrives - self.comes_after(sender, receiver, bytes);
        self.queue.push(
            begins,
            Happening::Block {
                link: at,
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
                    link: at,
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

    fn send_run_block(&mut self, at: Index) -> bool {
        let run = &self.runs[at as usize];
        let receiver = self.seats[run.seat as usize].host;
        let size = self.geometry(run.seat).size(run.piece) as u32;
        let may = run.open
            && run.piece < run.until
            && run.goal.is_none_or(|goal| run.piece < goal)
            && run.sent < size
            && run.flying < run.window
            && self.hosts[receiver as usize].state != State::Dead;
        if !may {
            return false;
        }
        let (piece, from, latency) = (run.piece, run.sent, run.latency);
        let bytes = (size - from).min(self.scenario.block);
        if self.pauses(at, bytes) {
            return false;
        }
        let run = &mut self.runs[at as usize];
        run.flying += bytes;
        run.sent += bytes;
        if run.sent == size {
            run.piece = piece.next();
            run.sent = 0;
        }
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
