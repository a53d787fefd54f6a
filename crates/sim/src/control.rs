//! The standing connection between a host and the supernode, on both sides.

use pantala_core::{
    ContentMeta, PieceIndex,
    control::{
        FromPeer, Hello, Known, KnownResource, Learned, PeerAddr, Register, Resume, Serial, ToPeer,
    },
};
use pantala_swarm::Event as SwarmEvent;
use pantala_window::Event;

use crate::{
    queue::{Happening, Index, Nanos, time},
    receive::digest,
    world::{World, index_of_peer, index_of_task},
};

const PULSE: Nanos = 100_000_000;
/// How long, and how many times less often afterwards, a peer says how far unfinished pieces are.
const EARLY: Nanos = 1_000_000_000;
const LATER: Nanos = 2;

impl World {
    pub(crate) fn report_to_swarm(&mut self, host: Index, message: FromPeer) {
        if self.hosts[host as usize].alive() {
            self.control_messages += 1;
            let message = Box::new(message);
            let arrives = self.said(host);
            self.queue
                .push(arrives, Happening::ToSwarm { host, message });
        }
    }

    /// When what a host says to the supernode now arrives there: not before what it said earlier.
    fn said(&mut self, host: Index) -> Nanos {
        let latency = self.to_supernode(host);
        let arrives = self.now + self.message(Some(host), None, latency);
        let said = &mut self.hosts[host as usize].said;
        *said = arrives.max(*said);
        *said
    }

    /// One way between a host and the supernode, which is where the origin is.
    pub(crate) fn to_supernode(&self, host: Index) -> Nanos {
        let zone = self.hosts[host as usize].zone;
        self.pipes.latency(self.scenario.origin_zone as u32, zone)
    }

    /// The supernode hears of something; what it says in answer is sent off.
    pub(crate) fn tell_swarm(&mut self, event: SwarmEvent) {
        let Some(mut swarm) = self.swarm.take() else {
            return;
        };
        swarm.handle(time(self.now), event);
        while let Some(output) = swarm.poll_output() {
            let host = index_of_peer(output.to);
            let message = Box::new(output.message);
            let latency = self.to_supernode(host);
            let arrives = self.now + self.message(None, Some(host), latency);
            let heard = &mut self.hosts[host as usize].heard;
            *heard = arrives.max(*heard);
            self.queue.push(*heard, Happening::ToPeer { host, message });
        }
        if let Some(at) = swarm.next_wakeup() {
            let at = (at.as_micros() * 1000).max(self.now + 1000);
            if at < self.swarm_wake {
                self.swarm_wake = at;
                self.queue.push(at, Happening::SwarmTick);
            }
        }
        self.swarm = Some(swarm);
    }

    pub(crate) fn swarm_tick(&mut self) {
        if self.swarm_wake == self.now {
            self.swarm_wake = Nanos::MAX;
            self.tell_swarm(SwarmEvent::Tick);
        }
    }

    pub(crate) fn hello(&self, host: Index) -> Hello {
        let zone = self.hosts[host as usize].zone;
        let labels = match self.scenario.zones() {
            1 => Vec::new(),
            _ if !self.scenario.labels => Vec::new(),
            _ => vec![("zone".to_owned(), zone.to_string())],
        };
        Hello {
            peer: PeerAddr {
                id: self.hosts[host as usize].id,
                addr: (
                    [10, (host >> 16) as u8, (host >> 8) as u8, host as u8],
                    65002,
                )
                    .into(),
            },
            labels,
        }
    }

    fn meta(&self, seat: Index) -> ContentMeta {
        let task = self.seats[seat as usize].task as usize;
        ContentMeta {
            length: Some(self.tasks[task].size),
            ranges: true,
            fresh_for: self.scenario.fresh_for,
            ..ContentMeta::default()
        }
    }

    /// A reader wants a task: the supernode is asked what it is and who has it.
    pub(crate) fn join(&mut self, s: Index) {
        if self.swarm.is_none() {
            self.start_alone(s);
            return;
        }
        let seat = &mut self.seats[s as usize];
        seat.joined = true;
        let (host, task) = (seat.host, seat.task as usize);
        let class = self.hosts[host as usize].class as usize;
        let range = self.scenario.classes[class].range;
        let register = Register {
            key: self.tasks[task].key,
            // Nothing is written in the simulated world, so no answer comes too late.
            serial: Serial::NONE,
            shown: String::new(),
            start: range.map_or(0, |range| range.0),
            content: None,
        };
        self.report_to_swarm(host, FromPeer::Register(register));
        if self.seats[s as usize].picker.is_some() {
            // It knows the content: what it holds goes to the reader at once.
            self.start(s);
        }
    }

    /// Without a supernode: the origin is asked what the content is.
    pub(crate) fn start_alone(&mut self, s: Index) {
        self.start(s);
        self.tell(s, Event::SupernodeDown);
    }

    /// The supernode says something to a host.
    pub(crate) fn hear(&mut self, host: Index, message: ToPeer) {
        if !self.hosts[host as usize].alive() {
            return;
        }
        let task = match &message {
            ToPeer::Known { key, .. }
            | ToPeer::Learn { key, .. }
            | ToPeer::Direct { key, .. }
            | ToPeer::Refused { key, .. } => self.by_key.get(key).copied(),
            ToPeer::Parents { task, .. }
            | ToPeer::Digests { task, .. }
            | ToPeer::Lease { task, .. }
            | ToPeer::LeaseEnded { task, .. }
            | ToPeer::Ended { task, .. }
            | ToPeer::OriginFailed { task, .. }
            | ToPeer::Turn { task, .. }
            | ToPeer::Copies { task, .. }
            | ToPeer::Poisoned { task }
            | ToPeer::Unobtainable { task, .. }
            | ToPeer::Unlisted { task }
            | ToPeer::Unknown { task } => Some(index_of_task(*task)),
            // Nothing is written in the simulated world.
            ToPeer::Measure { .. } | ToPeer::Changed { .. } => None,
        };
        if let ToPeer::Measure { peers, enough } = message {
            self.measure(host, peers, enough);
            return;
        }
        let seat = task.and_then(|task| self.seat_of(host, task));
        // What was on its way when it left is of no use.
        if let Some(seat) = seat.filter(|&seat| self.seats[seat as usize].joined) {
            self.hear_of(seat, message);
        }
    }

    fn hear_of(&mut self, s: Index, message: ToPeer) {
        match message {
            ToPeer::Known { known, .. } => self.known(s, known),
            ToPeer::Learn { .. } => {
                let zone = self.hosts[self.seats[s as usize].host as usize].zone;
                let there = self.pipes.latency(self.scenario.origin_zone as u32, zone);
                // Where connections are real one has to be made first.
                let trips = match self.scenario.network.congestion {
                    Some(_) => 4,
                    None => 2,
                };
                self.seats[s as usize].learned = true;
                self.after(trips * there, Happening::Metadata { seat: s });
            }
            ToPeer::Parents { parents, .. } => {
                self.seats[s as usize].told = parents;
                self.dial_parents(s);
            }
            ToPeer::Digests { digests, .. } => self.digests(s, digests.into_iter()),
            ToPeer::Lease { first, end, .. } => {
                self.seats[s as usize].leases.insert(first, end);
                self.pulse_soon(s);
                self.tell(s, Event::LeaseGranted { first, end });
            }
            ToPeer::LeaseEnded { first, end, .. } => {
                self.seats[s as usize].leases.remove(first, end);
                self.tell(s, Event::LeaseEnded { first, end });
            }
            ToPeer::Unknown { .. } => self.resume(s),
            ToPeer::Turn { task, turn } => {
                let host = self.seats[s as usize].host;
                self.hosts[host as usize].cache.turn(task, turn);
            }
            ToPeer::Copies {
                task,
                pieces,
                copies,
            } => {
                let host = self.seats[s as usize].host;
                self.hosts[host as usize]
                    .cache
                    .copies(task, &pieces, copies);
            }
            ToPeer::Ended { .. }
            | ToPeer::OriginFailed { .. }
            | ToPeer::Poisoned { .. }
            | ToPeer::Unobtainable { .. }
            | ToPeer::Unlisted { .. }
            | ToPeer::Direct { .. }
            | ToPeer::Measure { .. }
            | ToPeer::Refused { .. }
            | ToPeer::Changed { .. } => {}
        }
    }

    fn known(&mut self, s: Index, known: Known) {
        self.start(s);
        self.seats[s as usize].told = known.parents;
        self.digests(s, known.digests.into_iter());
        self.dial_parents(s);
    }

    fn digests(
        &mut self,
        s: Index,
        digests: impl Iterator<Item = (PieceIndex, pantala_core::PieceDigest)>,
    ) {
        let mut run: Option<(PieceIndex, u32)> = None;
        for (piece, said) in digests {
            assert_eq!(said, digest(piece), "the supernode vouches for wrong bytes");
            run = match run {
                Some((first, count)) if first.get() + count == piece.get() => {
                    Some((first, count + 1))
                }
                Some((first, count)) => {
                    self.vouched(s, first, count);
                    Some((piece, 1))
                }
                None => Some((piece, 1)),
            };
        }
        if let Some((first, count)) = run {
            self.vouched(s, first, count);
        }
    }

    fn vouched(&mut self, s: Index, first: PieceIndex, count: u32) {
        let pieces = (first.get()..first.get() + count).map(PieceIndex::new);
        for piece in pieces.clone() {
            self.seats[s as usize].vouched.insert(piece);
        }
        self.tell(s, Event::Vouched { first, count });
        for piece in pieces {
            self.verify(s, piece);
        }
    }

    pub(crate) fn metadata(&mut self, s: Index) {
        let meta = self.meta(s);
        let seat = &self.seats[s as usize];
        let task = &self.tasks[seat.task as usize];
        let learned = Learned::Content {
            task: task.id,
            meta,
        };
        let (host, key) = (seat.host, task.key);
        self.report_to_swarm(
            host,
            FromPeer::Learned {
                key,
                serial: Serial::NONE,
                learned,
            },
        );
    }

    /// The connection to the supernode broke, or a new supernode is there.
    pub(crate) fn connection(&mut self, host: Index, up: bool) {
        // It may have gone again before the host was back.
        if !self.hosts[host as usize].alive() || up != self.swarm.is_some() {
            return;
        }
        if up {
            // Nothing that is said afterwards arrives before.
            let arrives = self.said(host);
            self.queue.push(arrives, Happening::Connect { host });
        }
        for at in 0..self.hosts[host as usize].seats.len() {
            let seat = self.hosts[host as usize].seats[at].1;
            if !self.seats[seat as usize].joined {
                continue;
            }
            match (up, self.seats[seat as usize].picker.is_some()) {
                (false, true) => self.tell(seat, Event::SupernodeDown),
                (false, false) => self.start_alone(seat),
                (true, _) => {
                    self.resume(seat);
                    self.tell(seat, Event::SupernodeUp);
                }
            }
        }
    }

    fn resume(&mut self, s: Index) {
        let meta = self.meta(s);
        let seat = &mut self.seats[s as usize];
        seat.gained.clear();
        seat.lost.clear();
        let task = &self.tasks[seat.task as usize];
        let readers = seat.readers.iter().map(|reader| reader.next);
        let resume = Resume {
            key: task.key,
            task: task.id,
            resources: vec![KnownResource {
                key: task.key,
                meta: meta.clone(),
            }],
            meta,
            held: seat.held.runs(),
            digests: seat
                .held
                .iter()
                .map(|piece| (piece, digest(piece)))
                .collect(),
            position: readers.min().unwrap_or(PieceIndex::new(u32::MAX)),
            leases: seat.leases.iter().collect(),
            shown: String::new(),
        };
        let host = seat.host;
        self.report_to_swarm(host, FromPeer::Resume(resume));
    }

    pub(crate) fn have_soon(&mut self, s: Index) {
        self.have_within(s, 1);
    }

    /// The supernode hears what changed after so many times what is usually gathered, if not before.
    fn have_within(&mut self, s: Index, times: Nanos) {
        let at = self.now + times * self.scenario.gather_have.as_nanos() as Nanos;
        let seat = &mut self.seats[s as usize];
        if at < seat.have_at {
            seat.have_at = at;
            self.queue.push(at, Happening::Have { seat: s });
        }
    }

    /// A piece begins to come: after a pause the supernode hears of it at once.
    pub(crate) fn begins(&mut self, s: Index) {
        let gather = self.scenario.gather_have.as_nanos() as Nanos;
        let seat = &mut self.seats[s as usize];
        match seat.have_last {
            Some(last) if self.now < last + gather => self.have_within(s, 1),
            _ => self.flush_have(s),
        }
    }

    /// Tells the supernode what changed.
    pub(crate) fn flush_have(&mut self, s: Index) {
        let task = self.task_id(s);
        let end = self.geometry(s).pieces().unwrap_or(0);
        let seat = &mut self.seats[s as usize];
        seat.have_at = Nanos::MAX;
        if !seat.joined {
            return;
        }
        let first = seat.readers.iter().min_by_key(|reader| reader.next);
        let position = first.map_or(PieceIndex::new(end), |reader| reader.next);
        // Two pieces ready and not taken: the reader is the slow one.
        let reader_bound = first.is_some_and(|reader| {
            reader.taking
                && seat.held.contains(reader.next.next())
                && seat.held.contains(reader.next.next().next())
        });
        let message = FromPeer::Have {
            task,
            gained: seat.gained.runs(),
            lost: seat.lost.runs(),
            position,
            in_flight: seat
                .flights
                .iter()
                .map(|(_, flight)| flight.come(self.now))
                .sum(),
            reader_bound,
        };
        seat.gained.clear();
        seat.lost.clear();
        let receives = !seat.flights.is_empty();
        let first = *seat.have_first.get_or_insert(self.now);
        seat.have_last = Some(self.now);
        let host = seat.host;
        self.report_to_swarm(host, message);
        if receives {
            // How far unfinished pieces are is said as well, less often once it is known how quick it is.
            let early = self.now - first < EARLY;
            self.have_within(s, if early { 1 } else { LATER });
        }
    }

    fn pulse_soon(&mut self, s: Index) {
        if !std::mem::replace(&mut self.seats[s as usize].pulse_due, true) {
            self.after(PULSE, Happening::Pulse { seat: s });
        }
    }

    pub(crate) fn pulse(&mut self, s: Index) {
        let geometry = self.geometry(s);
        let seat = &mut self.seats[s as usize];
        seat.pulse_due = false;
        // An open lease ends with the content.
        let holds = seat.leases.iter().any(|(first, _)| geometry.has(first));
        if !seat.alive || !holds {
            return;
        }
        let bytes = std::mem::take(&mut seat.pulse_bytes);
        let host = seat.host;
        let task = self.task_id(s);
        self.report_to_swarm(host, FromPeer::Pulse { task, bytes });
        self.pulse_soon(s);
    }
}
