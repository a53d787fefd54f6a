//! The standing connection between a peer and the supernode, on both sides.

use pantala_core::{
    ContentMeta, PieceIndex,
    control::{FromPeer, Hello, Known, Learned, PeerAddr, Register, Resume, ToPeer},
};
use pantala_swarm::Event as SwarmEvent;
use pantala_window::{Event, Picker};

use crate::{
    peer::{Reader, State},
    queue::{Happening, Index, Nanos, time},
    receive::digest,
    world::{READER, World},
};

const HAVE: Nanos = 50_000_000;
const PULSE: Nanos = 100_000_000;

impl World {
    pub(crate) fn report_to_swarm(&mut self, peer: Index, message: FromPeer) {
        if self.peers[peer as usize].alive() {
            self.control_messages += 1;
            let message = Box::new(message);
            self.after_latency(Happening::ToSwarm { peer, message });
        }
    }

    /// The supernode hears of something; what it says in answer is sent off.
    pub(crate) fn tell_swarm(&mut self, event: SwarmEvent) {
        let now = time(self.now);
        let Some(swarm) = &mut self.swarm else {
            return;
        };
        swarm.handle(now, event);
        let mut outputs = Vec::new();
        while let Some(output) = swarm.poll_output() {
            outputs.push(output);
        }
        let wakeup = swarm.next_wakeup();
        for output in outputs {
            if let Some(&peer) = self.by_id.get(&output.to) {
                let message = Box::new(output.message);
                self.after_latency(Happening::ToPeer { peer, message });
            }
        }
        if let Some(at) = wakeup {
            let at = (at.as_micros() * 1000).max(self.now + 1000);
            if at < self.swarm_wake {
                self.swarm_wake = at;
                self.queue.push(at, Happening::SwarmTick);
            }
        }
    }

    pub(crate) fn swarm_tick(&mut self) {
        if self.swarm_wake == self.now {
            self.swarm_wake = Nanos::MAX;
            self.tell_swarm(SwarmEvent::Tick);
        }
    }

    pub(crate) fn hello(&self, p: Index) -> Hello {
        Hello {
            peer: self.addr(p),
            labels: Vec::new(),
        }
    }

    fn addr(&self, p: Index) -> PeerAddr {
        PeerAddr {
            id: self.peers[p as usize].id,
            addr: ([10, (p >> 16) as u8, (p >> 8) as u8, p as u8], 65002).into(),
        }
    }

    fn meta(&self) -> ContentMeta {
        ContentMeta {
            length: Some(self.scenario.size),
            ranges: true,
            ..ContentMeta::default()
        }
    }

    /// A peer's reader comes.
    pub(crate) fn arrive(&mut self, p: Index) {
        let start = self.peers[p as usize]
            .class
            .range
            .map_or(0, |range| range.0);
        let peer = &mut self.peers[p as usize];
        if peer.state != State::Away {
            return;
        }
        peer.state = State::Alive;
        peer.report.started = self.now as f64 / 1e9;
        if self.swarm.is_none() {
            self.start_alone(p);
            return;
        }
        self.after_latency(Happening::Connect { peer: p });
        let register = Register {
            key: self.key,
            shown: String::new(),
            start,
            private: false,
        };
        self.report_to_swarm(p, FromPeer::Register(register));
    }

    /// Without a supernode: the origin is asked what the content is.
    pub(crate) fn start_alone(&mut self, p: Index) {
        self.start(p);
        self.tell(p, Event::SupernodeDown);
    }

    /// The reader opens its window.
    fn start(&mut self, p: Index) {
        if self.peers[p as usize].picker.is_some() {
            return;
        }
        let mut config = self.scenario.picker.clone();
        config.seed = self
            .scenario
            .seed
            .wrapping_mul(0x1_0000)
            .wrapping_add(p.into());
        let piece_size = self.geometry.piece_size();
        let picker = Picker::new(config, piece_size, time(self.now));
        let pieces = self.geometry.pieces().unwrap_or(0);
        let peer = &mut self.peers[p as usize];
        peer.picker = Some(picker);
        let (first, end) = match peer.class.range {
            Some((start, end)) => (
                self.geometry.piece_at(start),
                self.geometry.piece_after(end.min(self.scenario.size)),
            ),
            None => (PieceIndex::new(0), PieceIndex::new(pieces)),
        };
        peer.report.wanted = (first.get()..end.get())
            .map(|piece| self.geometry.size(PieceIndex::new(piece)))
            .sum();
        peer.reader = Some(Reader {
            next: first,
            end,
            taking: false,
            last_took: None,
        });
        let share = peer
            .class
            .cache
            .map(|cache| ((cache / piece_size / 2) as u32).max(1));
        self.tell(p, Event::Ended { pieces });
        if let Some(pieces) = share {
            self.tell(p, Event::Share { pieces });
        }
        self.tell(
            p,
            Event::ReaderOpened {
                reader: READER,
                first,
                end: Some(end),
            },
        );
    }

    /// The supernode says something to a peer.
    pub(crate) fn hear(&mut self, p: Index, message: ToPeer) {
        if !self.peers[p as usize].alive() {
            return;
        }
        match message {
            ToPeer::Known { known, .. } => self.known(p, known),
            ToPeer::Learn { .. } => {
                let at = self.now + 2 * self.latency;
                self.queue.push(at, Happening::Metadata { peer: p });
            }
            ToPeer::Parents { parents, .. } => {
                self.peers[p as usize].told = parents;
                self.dial_parents(p);
            }
            ToPeer::Digests { digests, .. } => {
                for (piece, said) in digests {
                    assert_eq!(said, digest(piece), "the supernode vouches for wrong bytes");
                    self.vouched(p, piece, 1);
                }
            }
            ToPeer::Lease { first, end, .. } => {
                self.peers[p as usize].leases.insert(first, end);
                self.pulse_soon(p);
                self.tell(p, Event::LeaseGranted { first, end });
            }
            ToPeer::LeaseEnded { first, end, .. } => {
                self.peers[p as usize].leases.remove(first, end);
                self.tell(p, Event::LeaseEnded { first, end });
            }
            ToPeer::Unknown { .. } => self.resume(p),
            ToPeer::Ended { .. }
            | ToPeer::Poisoned { .. }
            | ToPeer::Direct { .. }
            | ToPeer::Refused { .. } => {}
        }
    }

    fn known(&mut self, p: Index, known: Known) {
        self.start(p);
        self.peers[p as usize].told = known.parents;
        let mut run: Option<(PieceIndex, u32)> = None;
        for (piece, _) in known.digests {
            run = match run {
                Some((first, count)) if first.get() + count == piece.get() => {
                    Some((first, count + 1))
                }
                Some((first, count)) => {
                    self.vouched(p, first, count);
                    Some((piece, 1))
                }
                None => Some((piece, 1)),
            };
        }
        if let Some((first, count)) = run {
            self.vouched(p, first, count);
        }
        self.dial_parents(p);
    }

    fn vouched(&mut self, p: Index, first: PieceIndex, count: u32) {
        let pieces = (first.get()..first.get() + count).map(PieceIndex::new);
        for piece in pieces.clone() {
            self.peers[p as usize].vouched.insert(piece);
        }
        self.tell(p, Event::Vouched { first, count });
        for piece in pieces {
            self.verify(p, piece);
        }
    }

    pub(crate) fn metadata(&mut self, p: Index) {
        let learned = Learned::Content {
            task: self.task,
            meta: self.meta(),
        };
        let key = self.key;
        self.report_to_swarm(p, FromPeer::Learned { key, learned });
    }

    /// The connection to the supernode broke, or a new supernode is there.
    pub(crate) fn connection(&mut self, p: Index, up: bool) {
        if !self.peers[p as usize].alive() {
            return;
        }
        match (up, self.peers[p as usize].picker.is_some()) {
            (false, true) => self.tell(p, Event::SupernodeDown),
            (false, false) => self.start_alone(p),
            (true, _) => {
                self.after_latency(Happening::Connect { peer: p });
                self.resume(p);
                self.tell(p, Event::SupernodeUp);
            }
        }
    }

    fn resume(&mut self, p: Index) {
        let peer = &mut self.peers[p as usize];
        peer.gained.clear();
        peer.lost.clear();
        let resume = Resume {
            key: self.key,
            task: self.task,
            meta: ContentMeta::default(),
            held: peer.held.runs(),
            digests: peer
                .held
                .iter()
                .map(|piece| (piece, digest(piece)))
                .collect(),
            position: peer
                .reader
                .as_ref()
                .map_or(PieceIndex::new(u32::MAX), |reader| reader.next),
            shown: String::new(),
        };
        let resume = Resume {
            meta: self.meta(),
            ..resume
        };
        self.report_to_swarm(p, FromPeer::Resume(resume));
    }

    pub(crate) fn have_soon(&mut self, p: Index) {
        let peer = &mut self.peers[p as usize];
        if !std::mem::replace(&mut peer.have_due, true) {
            self.queue
                .push(self.now + HAVE, Happening::Have { peer: p });
        }
    }

    /// Tells the supernode what changed.
    pub(crate) fn flush_have(&mut self, p: Index) {
        let task = self.task;
        let end = self.geometry.pieces().unwrap_or(0);
        let peer = &mut self.peers[p as usize];
        peer.have_due = false;
        let position = peer
            .reader
            .as_ref()
            .map_or(PieceIndex::new(end), |reader| reader.next);
        // Two pieces ready and not taken: the reader is the slow one.
        let reader_bound = peer.reader.as_ref().is_some_and(|reader| {
            reader.taking
                && peer.held.contains(reader.next.next())
                && peer.held.contains(reader.next.next().next())
        });
        let message = FromPeer::Have {
            task,
            gained: peer.gained.runs(),
            lost: peer.lost.runs(),
            position,
            reader_bound,
        };
        peer.gained.clear();
        peer.lost.clear();
        self.report_to_swarm(p, message);
    }

    fn pulse_soon(&mut self, p: Index) {
        let peer = &mut self.peers[p as usize];
        if !std::mem::replace(&mut peer.pulse_due, true) {
            self.queue
                .push(self.now + PULSE, Happening::Pulse { peer: p });
        }
    }

    pub(crate) fn pulse(&mut self, p: Index) {
        let peer = &mut self.peers[p as usize];
        peer.pulse_due = false;
        let holds = peer
            .leases
            .iter()
            .any(|(first, end)| (end.is_none()) || end.is_some_and(|end| first < end));
        if !peer.alive() || !holds {
            return;
        }
        let bytes = std::mem::take(&mut peer.pulse_bytes);
        let task = self.task;
        self.report_to_swarm(p, FromPeer::Pulse { task, bytes });
        self.pulse_soon(p);
    }
}
