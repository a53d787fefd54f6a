//! Readers: how they come, what they take, and what memory lets go of.

use pantala_core::{PieceIndex, control::FromPeer};
use pantala_window::{Event, Picker, ReaderId};

use crate::{
    queue::{Happening, Index, Nanos, time},
    seat::{News, Reader, Seat},
    world::{World, index_of_task},
};

impl World {
    /// The content is known: readers that wait for that open their windows.
    pub(crate) fn start(&mut self, s: Index) {
        let opening = std::mem::take(&mut self.seats[s as usize].opening);
        if self.seats[s as usize].picker.is_none() {
            let mut config = self.scenario.picker.clone();
            config.seed = self
                .scenario
                .seed
                .wrapping_mul(0x1_0000)
                .wrapping_add(s.into());
            let geometry = self.geometry(s);
            let picker = Picker::new(config, geometry.piece_size(), time(self.now));
            self.seats[s as usize].picker = Some(Box::new(picker));
            let pieces = geometry.pieces().unwrap_or(0);
            self.tell(s, Event::Ended { pieces });
        }
        for (visit, came) in opening {
            self.open(s, visit, came);
        }
    }

    fn open(&mut self, s: Index, visit: Index, came: Nanos) {
        let geometry = self.geometry(s);
        let size = geometry.length().unwrap_or(0);
        let host = self.seats[s as usize].host;
        let class = self.hosts[host as usize].class as usize;
        let (first, end) = match self.scenario.classes[class].range {
            Some((start, end)) => (
                geometry.piece_at(start),
                geometry.piece_after(end.min(size)),
            ),
            None => (PieceIndex::new(0), geometry.piece_after(size)),
        };
        let pieces = (first.get()..end.get()).map(PieceIndex::new);
        self.visits[visit as usize].report.wanted +=
            pieces.map(|piece| geometry.size(piece)).sum::<u64>();
        let seat = &mut self.seats[s as usize];
        seat.numbered += 1;
        let id = ReaderId(seat.numbered);
        seat.readers.push(Reader {
            id,
            visit,
            next: first,
            end,
            taking: false,
            came,
            last_took: None,
        });
        self.hosts[host as usize].readers += 1;
        self.share(host);
        let end = Some(end);
        let reader = id;
        self.tell(s, Event::ReaderOpened { reader, first, end });
        self.read(s);
        self.drain(s);
    }

    /// Three quarters of the memory are for windows, the same for each reader, as in the daemon.
    fn share(&mut self, host: Index) {
        let class = self.hosts[host as usize].class as usize;
        let Some(cache) = self.scenario.classes[class].cache else {
            return;
        };
        let readers = u64::from(self.hosts[host as usize].readers.max(1));
        for at in 0..self.hosts[host as usize].seats.len() {
            let seat = self.hosts[host as usize].seats[at].1;
            if !self.seats[seat as usize].readers.is_empty() {
                let size = self.geometry(seat).piece_size();
                let pieces = ((cache / 4 * 3 / readers / size) as u32).max(1);
                self.tell(seat, Event::Share { pieces });
            }
        }
    }

    /// The readers take what is there for them.
    pub(crate) fn read(&mut self, s: Index) {
        let mut at = 0;
        while let Some(reader) = self.seats[s as usize].readers.get(at) {
            let id = reader.id;
            let idle = !reader.taking
                && reader.next < reader.end
                && self.seats[s as usize].held.contains(reader.next);
            if !idle {
                at += 1;
                continue;
            }
            let host = self.seats[s as usize].host;
            let class = self.hosts[host as usize].class as usize;
            if let Some(rate) = self.scenario.classes[class].reader_rate {
                let size = self.geometry(s).size(reader.next);
                self.seats[s as usize].readers[at].taking = true;
                let pause = (size as f64 * 8e9 / rate).ceil() as Nanos;
                let reader = id.0 as u32;
                self.after(pause, Happening::Taken { seat: s, reader });
                at += 1;
            } else {
                self.took(s, at);
            }
        }
    }

    /// A reader that takes its time has taken its next piece.
    pub(crate) fn taken(&mut self, s: Index, reader: u32) {
        let seat = &self.seats[s as usize];
        let readers = &seat.readers;
        let found = readers
            .iter()
            .position(|found| found.id.0 == u64::from(reader));
        if let Some(at) = found.filter(|_| seat.alive) {
            self.took(s, at);
            self.read(s);
            self.drain(s);
        }
    }

    /// A reader has taken its next piece.
    fn took(&mut self, s: Index, at: usize) {
        let now = self.now;
        let geometry = self.geometry(s);
        let seat = &mut self.seats[s as usize];
        let reader = &mut seat.readers[at];
        assert!(
            seat.held.contains(reader.next),
            "a piece was evicted while its reader took it"
        );
        reader.taking = false;
        let first = reader.last_took.is_none().then_some(now - reader.came);
        let size = geometry.size(reader.next);
        reader.next = reader.next.next();
        let (id, next, end) = (reader.id, reader.next, reader.end);
        let before = reader.last_took.replace(now);
        let visit = reader.visit;
        let report = &mut self.visits[visit as usize].report;
        if let Some(before) = before {
            report.longest_stall = report.longest_stall.max((now - before) as f64 / 1e9);
        }
        if let Some(first) = first {
            report.longest_first = report.longest_first.max(first as f64 / 1e9);
        }
        report.taken += size;
        let waited = now as f64 / 1e9 - report.started;
        if report.first_mib.is_none() && (report.taken >= 1 << 20 || report.taken == report.wanted)
        {
            report.first_mib = Some(waited);
        }
        self.have_soon(s);
        self.hint(s, Event::ReaderTook { reader: id, next });
        if next >= end {
            self.close(s, at, id);
            self.visits[visit as usize].left -= 1;
            let found = &self.visits[visit as usize];
            if found.next < found.tasks.len() {
                self.after(0, Happening::NextContent { visit });
            }
            if self.visits[visit as usize].left == 0 {
                self.visits[visit as usize].report.last_byte = Some(waited);
                self.finished(visit);
            }
        }
    }

    fn close(&mut self, s: Index, at: usize, reader: ReaderId) {
        self.seats[s as usize].readers.remove(at);
        let host = self.seats[s as usize].host;
        self.hosts[host as usize].readers -= 1;
        self.hint(s, Event::ReaderClosed { reader });
        self.drain(s);
        self.share(host);
        self.flush_have(s);
        self.refuse_hopeless(s);
    }

    /// Children that wait for what this peer will not get wait no more.
    pub(crate) fn refuse_hopeless(&mut self, s: Index) {
        let waiting = self.seats[s as usize].waiting.iter();
        let hopeless: Vec<(PieceIndex, Index)> = waiting
            .filter(|(piece, _)| !self.will_have(s, *piece))
            .copied()
            .collect();
        for (piece, link) in hopeless {
            self.refuse(link, piece);
        }
    }

    /// Whether a peer has, receives or plans to get a piece.
    pub(crate) fn will_have(&self, s: Index, piece: PieceIndex) -> bool {
        let seat = &self.seats[s as usize];
        let planned = || seat.picker.as_ref().and_then(|picker| picker.planned());
        seat.held.contains(piece)
            || seat.flights.contains(piece)
            || planned()
                .is_some_and(|(first, end)| first <= piece && end.is_none_or(|end| piece < end))
    }

    /// Makes room for so many bytes: evicts what no window needs; what a child waits for goes after all
    /// else, and what it is being sent last.
    pub(crate) fn make_room(&mut self, host: Index, bytes: u64) {
        let class = self.hosts[host as usize].class as usize;
        let Some(cache) = self.scenario.classes[class].cache else {
            return;
        };
        if self.hosts[host as usize].used + bytes <= cache {
            return;
        }
        // What its windows need no more they must have said.
        for at in 0..self.hosts[host as usize].seats.len() {
            self.drain(self.hosts[host as usize].seats[at].1);
        }
        while self.hosts[host as usize].used + bytes > cache {
            let claimed = |task, piece, begun: bool| {
                let Some(seat) = self.seat_of(host, index_of_task(task)) else {
                    return false;
                };
                let waiting = self.seats[seat as usize].waiting.iter();
                let sent = |link: Index| {
                    let want = self.links[link as usize].wants.get(piece);
                    want.is_some_and(|want| want.sent > 0)
                };
                waiting
                    .filter(|(waits, _)| *waits == piece)
                    .any(|&(_, link)| !begun || sent(link))
            };
            let cache = &self.hosts[host as usize].cache;
            let candidate = cache
                .candidate(|task, piece| claimed(task, piece, false))
                .or_else(|| cache.candidate(|task, piece| claimed(task, piece, true)))
                .or_else(|| cache.candidate(|_, _| false));
            let Some((task, piece)) = candidate else {
                return;
            };
            self.hosts[host as usize].cache.remove(task, piece);
            if let Some(seat) = self.seat_of(host, index_of_task(task)) {
                self.evict(seat, piece);
            }
        }
    }

    fn evict(&mut self, s: Index, piece: PieceIndex) {
        let size = self.geometry(s).size(piece);
        self.evicted += 1;
        let seat = &mut self.seats[s as usize];
        seat.held.remove(piece);
        seat.gained.remove(piece);
        seat.lost.insert(piece);
        let host = seat.host;
        self.hosts[host as usize].used -= size;
        self.announce(s, News::Lost(piece));
        self.flush_have(s);
        // A window may want it again; if not, who waits for it asks elsewhere.
        self.refuse_hopeless(s);
        self.tell(s, Event::Evicted { piece });
        let seat = &self.seats[s as usize];
        let idle = seat.readers.is_empty() && seat.opening.is_empty() && seat.flights.is_empty();
        if idle && seat.held.is_empty() && seat.joined {
            self.leave(s);
        }
    }

    /// A host has nothing more of a task and wants nothing.
    fn leave(&mut self, s: Index) {
        let (host, task) = (self.seats[s as usize].host, self.task_id(s));
        self.report_to_swarm(host, FromPeer::Leave { task });
        let links: Vec<Index> = self.seats[s as usize].parents.values().copied().collect();
        for link in links {
            self.hang_up(link);
        }
        for link in std::mem::take(&mut self.seats[s as usize].children) {
            let latency = self.links[link as usize].latency;
            self.drop_wants(link);
            self.after(latency, Happening::LinkDown { link });
        }
        let seat = &mut self.seats[s as usize];
        let (task, numbered) = (seat.task, seat.numbered);
        for (_, run) in seat.runs.take() {
            self.runs[run as usize].open = false;
        }
        // Ticks under way find nobody to tell.
        self.seats[s as usize] = Seat {
            numbered,
            ..Seat::new(host, task)
        };
    }
}
