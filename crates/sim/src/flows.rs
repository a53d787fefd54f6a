//! How bytes move: uplinks take turns, blocks queue at downlinks.

use crate::{
    peer::State,
    queue::{Flow, Happening, Index, Nanos},
    world::World,
};

impl World {
    /// A flow may have something to send now.
    pub(crate) fn kick(&mut self, flow: Flow) {
        let (sender, queued) = match flow {
            Flow::Link(link) => {
                let link = &mut self.links[link as usize];
                (Some(link.parent), std::mem::replace(&mut link.queued, true))
            }
            Flow::Run(run) => {
                let run = &mut self.runs[run as usize];
                (None, std::mem::replace(&mut run.queued, true))
            }
        };
        if queued {
            return;
        }
        let uplink = match sender {
            Some(peer) => &mut self.peers[peer as usize].up,
            None => &mut self.origin,
        };
        uplink.ring.push_back(flow);
        if !uplink.busy {
            self.send_next(sender);
        }
    }

    /// An uplink has sent its block.
    pub(crate) fn sent(&mut self, sender: Option<Index>) {
        match sender {
            Some(peer) => self.peers[peer as usize].up.busy = false,
            None => self.origin.busy = false,
        }
        self.send_next(sender);
    }

    fn send_next(&mut self, sender: Option<Index>) {
        if sender.is_some_and(|peer| !self.peers[peer as usize].alive()) {
            return;
        }
        loop {
            let uplink = match sender {
                Some(peer) => &mut self.peers[peer as usize].up,
                None => &mut self.origin,
            };
            let Some(flow) = uplink.ring.pop_front() else {
                return;
            };
            match flow {
                Flow::Link(link) => self.links[link as usize].queued = false,
                Flow::Run(run) => self.runs[run as usize].queued = false,
            }
            let sent = match flow {
                Flow::Link(link) => self.send_block(link),
                Flow::Run(run) => self.send_run_block(run),
            };
            if sent {
                self.kick_later(flow, sender);
                return;
            }
        }
    }

    /// Back to the end of the ring: there may be more.
    fn kick_later(&mut self, flow: Flow, sender: Option<Index>) {
        match flow {
            Flow::Link(link) => self.links[link as usize].queued = true,
            Flow::Run(run) => self.runs[run as usize].queued = true,
        }
        match sender {
            Some(peer) => self.peers[peer as usize].up.ring.push_back(flow),
            None => self.origin.ring.push_back(flow),
        }
    }

    /// How much a flow may have on its way.
    fn window(&self, up_pace: f64, down_pace: f64) -> u32 {
        let held = 2.0 * self.latency as f64 / up_pace.max(down_pace);
        2 * self.scenario.block + held as u32
    }

    fn send_block(&mut self, at: Index) -> bool {
        let link = &self.links[at as usize];
        let (parent, child) = (link.parent, link.child);
        let sender = &self.peers[parent as usize];
        let receiver = &self.peers[child as usize];
        let (up_pace, down_pace) = (sender.up.pace, receiver.down_pace());
        if !link.up || link.flying >= self.window(up_pace, down_pace) {
            return false;
        }
        let ready = link.wants.iter().find_map(|(&piece, want)| {
            let size = self.geometry.size(piece) as u32;
            let available = sender.available(piece, size);
            (want.sent < available).then_some((piece, *want, available, size))
        });
        let Some((piece, want, available, size)) = ready else {
            return false;
        };
        let bytes = (available - want.sent).min(self.scenario.block);
        let link = &mut self.links[at as usize];
        link.flying += bytes;
        if want.sent + bytes == size {
            link.wants.remove(&piece);
        } else if let Some(want) = link.wants.get_mut(&piece) {
            want.sent += bytes;
        }
        let sender = &mut self.peers[parent as usize];
        sender.up.busy = true;
        sender.report.sent += u64::from(bytes);
        sender.lru.touch(self.task, piece);
        let sent = self.now + (f64::from(bytes) * up_pace).ceil() as u64;
        self.queue
            .push(sent, Happening::Sent { peer: Some(parent) });
        let arrives = self.through_downlink(child, sent, bytes);
        self.queue.push(
            arrives,
            Happening::Block {
                link: at,
                piece,
                attempt: want.attempt,
                from: want.sent,
                bytes,
            },
        );
        true
    }

    fn send_run_block(&mut self, at: Index) -> bool {
        let run = &self.runs[at as usize];
        let child = run.peer;
        let receiver = &self.peers[child as usize];
        let window = self.window(self.origin.pace, receiver.down_pace());
        let size = self.geometry.size(run.piece) as u32;
        let may = run.open
            && run.piece < run.until
            && run.goal.is_none_or(|goal| run.piece < goal)
            && run.sent < size
            && run.flying < window
            && receiver.state != State::Dead;
        if !may {
            return false;
        }
        let (piece, from) = (run.piece, run.sent);
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
        let sent = self.now + (f64::from(bytes) * self.origin.pace).ceil() as u64;
        self.queue.push(sent, Happening::Sent { peer: None });
        let arrives = self.through_downlink(child, sent, bytes);
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

    /// When a block that leaves its sender at `sent` has come in: the receiver's downlink takes it
    /// after what already waits there, and as it comes.
    fn through_downlink(&mut self, child: Index, sent: u64, bytes: u32) -> u64 {
        let latency = self.latency;
        let child = &mut self.peers[child as usize];
        let taken = (f64::from(bytes) * child.down_pace()).ceil() as u64;
        child.down_free = child.down_free.max(self.now) + taken;
        sent.max(child.down_free) + latency
    }
}
