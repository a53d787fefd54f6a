//! What a host does with the blocks that come.

use pantala_core::{
    PieceDigest, PieceIndex,
    control::{FromPeer, Trouble},
};
use pantala_window::{AttemptId, Event, Failure};

use crate::{
    host::State,
    queue::Index,
    seat::{InFlight, News},
    world::World,
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
        let now = self.now;
        let link = &self.links[at as usize];
        if self.hosts[link.receiver as usize].state == State::Frozen {
            // Nobody reads: the socket's buffers stay full, and nothing more is sent.
            return;
        }
        let (s, parent, sender, receiver) = (link.child, link.parent, link.sender, link.receiver);
        self.arrived(link.conn, bytes);
        if !self.seats[s as usize].alive {
            return;
        }
        let class = self.hosts[sender as usize].class as usize;
        let taints = self.scenario.classes[class].corrupt
            || self.seats[parent as usize]
                .flights
                .get(piece)
                .is_some_and(|flight| flight.tainted);
        let visit = self.hosts[receiver as usize].visit;
        self.visits[visit as usize].report.from_peers += u64::from(bytes);
        let end = from + bytes;
        let Some(request) = self.seats[s as usize].request(attempt, at) else {
            self.wasted_bytes += u64::from(bytes);
            return;
        };
        request.bytes = end;
        let rest = bytes.saturating_sub(self.scenario.relay);
        let full_at = self.now + self.comes_after(sender, receiver, bytes);
        let flight = self.flight(s, piece);
        let first = flight.bytes == 0;
        // Else what was there was thrown away as wrong, or the other request was faster.
        let of_use = from <= flight.bytes && end > flight.bytes;
        if of_use {
            flight.bytes = end;
            (flight.coming, flight.since, flight.full_at) = (rest, now, full_at);
            flight.tainted |= taints;
        } else {
            self.wasted_bytes += u64::from(bytes);
        }
        if first {
            self.announce(s, News::Receiving(piece));
            self.begins(s);
        }
        self.passed_on(s, piece);
        if rest == 0 {
            self.whole(at, piece, attempt, from, bytes);
        }
    }

    /// A piece's last block has come in full.
    pub(crate) fn whole(
        &mut self,
        at: Index,
        piece: PieceIndex,
        attempt: AttemptId,
        from: u32,
        bytes: u32,
    ) {
        let (s, end) = (self.links[at as usize].child, from + bytes);
        let size = self.geometry(s).size(piece) as u32;
        let seat = &mut self.seats[s as usize];
        if end < size || !seat.alive {
            return;
        }
        let Some(goes_on) = seat.request(attempt, at).map(|request| request.goes_on) else {
            return;
        };
        seat.attempts.remove(attempt);
        let complete = match seat.flights.get_mut(piece) {
            Some(flight) if flight.bytes == size => {
                let by = (attempt, (!goes_on).then_some(at));
                flight.complete.get_or_insert(by);
                true
            }
            _ => false,
        };
        if complete {
            let bytes = u64::from(size);
            self.hint(s, Event::Fetched { attempt, bytes });
            self.verify(s, piece);
        } else {
            let failure = Failure::NotHere;
            self.hint(s, Event::Failed { attempt, failure });
        }
        self.drain(s);
    }

    pub(crate) fn run_block(&mut self, at: Index, piece: PieceIndex, from: u32, bytes: u32) {
        let run = &self.runs[at as usize];
        let (s, id, conn) = (run.seat, run.id, run.conn);
        self.arrived(conn, bytes);
        let size = self.geometry(s).size(piece) as u32;
        let seat = &mut self.seats[s as usize];
        if !seat.alive {
            return;
        }
        seat.pulse_bytes += u64::from(bytes);
        let visit = self.hosts[seat.host as usize].visit;
        self.visits[visit as usize].report.from_origin += u64::from(bytes);
        if seat.runs.get(id) != Some(&at) || seat.held.contains(piece) {
            self.wasted_bytes += u64::from(bytes);
            return;
        }
        if from == 0 {
            self.tell(s, Event::RunAt { run: id, piece });
            if self.seats[s as usize].runs.get(id) != Some(&at) {
                self.wasted_bytes += u64::from(bytes);
                return;
            }
        }
        let flight = self.flight(s, piece);
        let first = flight.bytes == 0;
        flight.bytes = flight.bytes.max(from + bytes);
        if first {
            self.announce(s, News::Receiving(piece));
            self.begins(s);
        }
        self.passed_on(s, piece);
        if from + bytes == size {
            let message = FromPeer::Sealed {
                task: self.task_id(s),
                piece,
                digest: digest(piece),
            };
            let host = self.seats[s as usize].host;
            self.report_to_swarm(host, message);
            self.seal(s, piece);
            self.drain(s);
        }
    }

    /// Bytes have come over a connection; an ideal one may send more at once then.
    fn arrived(&mut self, at: Index, bytes: u32) {
        let conn = &mut self.conns[at as usize];
        if conn.socket.is_none() {
            conn.flying -= bytes;
            self.kick(at);
        }
    }

    /// A piece that is being received, its memory charged.
    fn flight(&mut self, s: Index, piece: PieceIndex) -> &mut InFlight {
        if !self.seats[s as usize].flights.contains(piece) {
            let size = self.geometry(s).size(piece);
            let host = self.seats[s as usize].host;
            self.make_room(host, size);
            let host = &mut self.hosts[host as usize];
            host.used += size;
            let report = &mut self.visits[host.visit as usize].report;
            report.memory_most = report.memory_most.max(host.used);
            self.seats[s as usize]
                .flights
                .insert(piece, InFlight::default());
        }
        let flights = &mut self.seats[s as usize].flights;
        flights.get_mut(piece).expect("it was put there")
    }

    /// What came of a piece is thrown away.
    pub(crate) fn drop_flight(&mut self, s: Index, piece: PieceIndex) {
        if self.seats[s as usize].flights.remove(piece).is_some() {
            let size = self.geometry(s).size(piece);
            let host = self.seats[s as usize].host;
            self.hosts[host as usize].used -= size;
        }
    }

    /// New bytes of a piece: the children that wait for it may go on.
    fn passed_on(&mut self, s: Index, piece: PieceIndex) {
        let mut links = std::mem::take(&mut self.scratch);
        let waiting = self.seats[s as usize].waiting.iter();
        let links_of = waiting.filter(|(waits, _)| *waits == piece);
        links.extend(links_of.map(|&(_, link)| link));
        for &link in &links {
            self.kick(self.links[link as usize].conn);
        }
        links.clear();
        self.scratch = links;
    }

    /// A complete piece is right or wrong once its digest is known.
    pub(crate) fn verify(&mut self, s: Index, piece: PieceIndex) {
        let seat = &self.seats[s as usize];
        if !seat.vouched.contains(piece) {
            return;
        }
        let Some(&flight) = seat.flights.get(piece) else {
            return;
        };
        let Some((attempt, link)) = flight.complete else {
            return;
        };
        if !flight.tainted {
            self.seal(s, piece);
            self.drain(s);
            return;
        }
        self.drop_flight(s, piece);
        // Whoever got some of it here got wrong bytes.
        for at in 0..self.seats[s as usize].children.len() {
            let link = self.seats[s as usize].children[at];
            let want = self.links[link as usize].wants.get(piece);
            if want.is_some_and(|want| want.sent > 0) {
                self.refuse(link, piece);
            }
        }
        if let Some(link) = link {
            let sender = self.links[link as usize].sender;
            let (host, task) = (self.seats[s as usize].host, self.task_id(s));
            let message = FromPeer::Trouble {
                task,
                peer: self.hosts[sender as usize].id,
                trouble: Trouble::Corrupt { piece },
            };
            self.report_to_swarm(host, message);
        }
        self.tell(s, Event::Corrupt { attempt });
    }

    fn seal(&mut self, s: Index, piece: PieceIndex) {
        let (host, task) = (self.seats[s as usize].host, self.task_id(s));
        let seat = &mut self.seats[s as usize];
        let flew = seat.flights.remove(piece).is_some();
        if !seat.held.insert(piece) {
            return;
        }
        debug_assert!(flew, "a piece that was not received");
        seat.gained.insert(piece);
        seat.lost.remove(piece);
        seat.leases.remove(piece, Some(piece.next()));
        self.hosts[host as usize].cache.insert(task, piece);
        self.have_soon(s);
        self.announce(s, News::Holds(piece, 1));
        self.hint(s, Event::Sealed { piece });
        self.read(s);
    }
}

/// The digest of a piece that has no bytes here: its number.
pub(crate) fn digest(piece: PieceIndex) -> PieceDigest {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&piece.get().to_be_bytes());
    PieceDigest::from_bytes(bytes)
}
