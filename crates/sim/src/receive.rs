//! What a host does with the blocks that come, and what its reader takes.

use pantala_core::{
    PieceDigest, PieceIndex,
    control::{FromPeer, Trouble},
};
use pantala_window::{AttemptId, Event, Failure};

use crate::{
    peer::{News, State},
    queue::{Flow, Happening, Index, Nanos},
    world::{READER, World},
};

impl World {
    pub(crate) fn block(
        &mut self,
        at: Index,
        piece: PieceIndex,
        attempt: AttemptId,
        from: u32,
        bytes: u32,
    ) {
        let link = &mut self.links[at as usize];
        if self.peers[link.child as usize].state == State::Frozen {
            // Nobody reads: the socket's buffers stay full, and nothing more is sent.
            return;
        }
        link.flying -= bytes;
        let (p, parent) = (link.child, link.parent);
        self.kick(Flow::Link(at));
        let size = self.geometry.size(piece) as u32;
        let taints = self.peers[parent as usize].class.corrupt
            || self.peers[parent as usize]
                .flights
                .get(&piece)
                .is_some_and(|flight| flight.tainted);
        let peer = &mut self.peers[p as usize];
        if !peer.alive() {
            return;
        }
        peer.report.from_peers += u64::from(bytes);
        let Some(request) = peer.attempts.get_mut(&attempt) else {
            self.wasted_bytes += u64::from(bytes);
            return;
        };
        let end = from + bytes;
        request.bytes = end;
        let flight = peer.flights.entry(piece).or_default();
        let first = flight.bytes == 0;
        if from > flight.bytes || end <= flight.bytes {
            // What was there was thrown away as wrong, or the other request was faster.
            self.wasted_bytes += u64::from(bytes);
        } else {
            flight.bytes = end;
            flight.tainted |= taints;
        }
        let complete = end == size && flight.bytes == size;
        if complete && flight.complete.is_none() {
            flight.complete = Some((attempt, (!request.goes_on).then_some(at)));
        }
        let short = end == size && !complete;
        if first {
            self.announce(p, News::Receiving(piece));
        }
        self.passed_on(p, piece);
        if complete {
            self.peers[p as usize].attempts.remove(&attempt);
            self.tell(
                p,
                Event::Fetched {
                    attempt,
                    bytes: u64::from(size),
                },
            );
            self.verify(p, piece);
        } else if short {
            self.peers[p as usize].attempts.remove(&attempt);
            self.tell(
                p,
                Event::Failed {
                    attempt,
                    failure: Failure::NotHere,
                },
            );
        }
    }

    pub(crate) fn run_block(&mut self, at: Index, piece: PieceIndex, from: u32, bytes: u32) {
        let run = &mut self.runs[at as usize];
        run.flying -= bytes;
        let (p, id) = (run.peer, run.id);
        self.kick(Flow::Run(at));
        let peer = &mut self.peers[p as usize];
        if !peer.alive() {
            return;
        }
        peer.report.from_origin += u64::from(bytes);
        peer.pulse_bytes += u64::from(bytes);
        if !peer.runs.contains_key(&id) || peer.held.contains(piece) {
            self.wasted_bytes += u64::from(bytes);
            return;
        }
        if from == 0 {
            self.tell(p, Event::RunAt { run: id, piece });
        }
        let size = self.geometry.size(piece) as u32;
        let peer = &mut self.peers[p as usize];
        if !peer.runs.contains_key(&id) {
            self.wasted_bytes += u64::from(bytes);
            return;
        }
        let flight = peer.flights.entry(piece).or_default();
        let first = flight.bytes == 0;
        flight.bytes = flight.bytes.max(from + bytes);
        if first {
            self.announce(p, News::Receiving(piece));
        }
        self.passed_on(p, piece);
        if from + bytes == size {
            let message = FromPeer::Sealed {
                task: self.task,
                piece,
                digest: digest(piece),
            };
            self.report_to_swarm(p, message);
            self.seal(p, piece);
        }
    }

    /// New bytes of a piece: the children that wait for it may go on.
    fn passed_on(&mut self, p: Index, piece: PieceIndex) {
        for at in 0..self.peers[p as usize].children.len() {
            let link = self.peers[p as usize].children[at];
            if self.links[link as usize].wants.contains_key(&piece) {
                self.kick(Flow::Link(link));
            }
        }
    }

    /// A complete piece is right or wrong once its digest is known.
    pub(crate) fn verify(&mut self, p: Index, piece: PieceIndex) {
        let peer = &mut self.peers[p as usize];
        if !peer.vouched.contains(piece) {
            return;
        }
        let Some(flight) = peer.flights.get(&piece) else {
            return;
        };
        let Some((attempt, link)) = flight.complete else {
            return;
        };
        if !flight.tainted {
            self.seal(p, piece);
            return;
        }
        peer.flights.remove(&piece);
        // Whoever got some of it here got wrong bytes.
        for at in 0..self.peers[p as usize].children.len() {
            let link = self.peers[p as usize].children[at];
            let begun = self.links[link as usize]
                .wants
                .get(&piece)
                .filter(|want| want.sent > 0);
            if let Some(attempt) = begun.map(|want| want.attempt) {
                self.links[link as usize].wants.remove(&piece);
                self.after_latency(Happening::Refused { link, attempt });
            }
        }
        if let Some(link) = link {
            let parent = self.links[link as usize].parent;
            let message = FromPeer::Trouble {
                task: self.task,
                peer: self.peers[parent as usize].id,
                trouble: Trouble::Corrupt { piece },
            };
            self.report_to_swarm(p, message);
        }
        self.tell(p, Event::Corrupt { attempt });
    }

    fn seal(&mut self, p: Index, piece: PieceIndex) {
        let task = self.task;
        let peer = &mut self.peers[p as usize];
        peer.flights.remove(&piece);
        if !peer.held.insert(piece) {
            return;
        }
        peer.lru.insert(task, piece, 1);
        peer.gained.insert(piece);
        peer.lost.remove(piece);
        self.have_soon(p);
        self.announce(p, News::Holds(piece, 1));
        self.tell(p, Event::Sealed { piece });
        self.read(p);
        self.make_room(p);
    }

    /// Evicts what the cache has no room for, but nothing that a window or a child needs.
    pub(crate) fn make_room(&mut self, p: Index) {
        let Some(cache) = self.peers[p as usize].class.cache else {
            return;
        };
        let room = (cache / self.geometry.piece_size()) as usize;
        loop {
            let peer = &self.peers[p as usize];
            if peer.held.len() as usize + peer.flights.len() <= room {
                return;
            }
            let links = &self.links;
            let used = |piece: PieceIndex| {
                let mut links = peer.children.iter().map(|&link| &links[link as usize]);
                links.any(|link| link.wants.contains_key(&piece))
            };
            let candidate = peer
                .lru
                .candidates()
                .map(|(_, piece)| piece)
                .find(|&piece| !used(piece));
            let Some(piece) = candidate else {
                return;
            };
            let task = self.task;
            let peer = &mut self.peers[p as usize];
            peer.lru.remove(task, piece);
            peer.held.remove(piece);
            if !peer.gained.remove(piece) {
                peer.lost.insert(piece);
            }
            self.announce(p, News::Lost(piece));
            self.flush_have(p);
            self.tell(p, Event::Evicted { piece });
        }
    }

    /// The reader takes what is there for it.
    pub(crate) fn read(&mut self, p: Index) {
        loop {
            let peer = &mut self.peers[p as usize];
            let Some(reader) = &mut peer.reader else {
                return;
            };
            if reader.taking || reader.next >= reader.end || !peer.held.contains(reader.next) {
                return;
            }
            let size = self.geometry.size(reader.next);
            if let Some(rate) = peer.class.reader_rate {
                reader.taking = true;
                let at = self.now + (size as f64 * 8e9 / rate).ceil() as Nanos;
                self.queue.push(at, Happening::Taken { peer: p });
                return;
            }
            self.took(p);
        }
    }

    /// The reader has taken its next piece.
    pub(crate) fn took(&mut self, p: Index) {
        let now = self.now;
        let peer = &mut self.peers[p as usize];
        let Some(reader) = &mut peer.reader else {
            return;
        };
        assert!(
            peer.held.contains(reader.next),
            "a piece was evicted while its reader took it"
        );
        reader.taking = false;
        let size = self.geometry.size(reader.next);
        reader.next = reader.next.next();
        let (next, end) = (reader.next, reader.end);
        if let Some(before) = reader.last_took.replace(now) {
            let stall = (now - before) as f64 / 1e9;
            peer.report.longest_stall = peer.report.longest_stall.max(stall);
        }
        peer.report.taken += size;
        let waited = now as f64 / 1e9 - peer.report.started;
        if peer.report.first_mib.is_none()
            && (peer.report.taken >= 1 << 20 || peer.report.taken == peer.report.wanted)
        {
            peer.report.first_mib = Some(waited);
        }
        let done = next >= end;
        if done {
            peer.report.last_byte = Some(waited);
            peer.reader = None;
            self.unfinished -= 1;
        }
        self.have_soon(p);
        self.tell(
            p,
            Event::ReaderTook {
                reader: READER,
                next,
            },
        );
        if done {
            self.tell(p, Event::ReaderClosed { reader: READER });
            self.flush_have(p);
            self.refuse_hopeless(p);
        }
    }

    /// Children that wait for what this peer will not get wait no more.
    pub(crate) fn refuse_hopeless(&mut self, p: Index) {
        for at in 0..self.peers[p as usize].children.len() {
            let link = self.peers[p as usize].children[at];
            let hopeless: Vec<(PieceIndex, AttemptId)> = self.links[link as usize]
                .wants
                .iter()
                .filter(|&(&piece, _)| !self.will_have(p, piece))
                .map(|(&piece, want)| (piece, want.attempt))
                .collect();
            for (piece, attempt) in hopeless {
                self.links[link as usize].wants.remove(&piece);
                self.after_latency(Happening::Refused { link, attempt });
            }
        }
    }

    /// Whether a peer has, receives or plans to get a piece.
    pub(crate) fn will_have(&self, p: Index, piece: PieceIndex) -> bool {
        let peer = &self.peers[p as usize];
        let planned = peer.picker.as_ref().and_then(|picker| picker.planned());
        peer.held.contains(piece)
            || peer.flights.contains_key(&piece)
            || planned
                .is_some_and(|(first, end)| first <= piece && end.is_none_or(|end| piece < end))
    }
}

/// The digest of a piece that has no bytes here: its number.
pub(crate) fn digest(piece: PieceIndex) -> PieceDigest {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&piece.get().to_be_bytes());
    PieceDigest::from_bytes(bytes)
}
