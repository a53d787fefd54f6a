//! Connections: one joins two hosts and carries what all their tasks ask of each other, in the order in which the daemon
//! serves it. What a connection may have on its way is none of its business here: see `socket.rs` and `flows.rs`.

use pantala_core::PieceIndex;
use pantala_window::AttemptId;

use crate::{
    queue::{Index, Nanos},
    seat::Want,
    socket::Socket,
    world::World,
};

/// How long a connection is kept that nobody uses, as in the daemon.
const UNUSED: Nanos = 10_000_000_000;

/// What sends to a host: a parent, or the origin in one transfer.
#[derive(Debug)]
pub(crate) struct Conn {
    /// The origin is `None`.
    pub sender: Option<Index>,
    pub receiver: Index,
    /// One way.
    pub latency: Nanos,
    /// Its receiver has heard from its sender.
    pub greeted: bool,
    pub used: Nanos,
    /// What is asked of a parent: the most urgent first, then what has waited for longest.
    pub line: Vec<Turn>,
    /// What it has sent some of, and not all, since it had last nothing to send.
    pub begun: Option<(Index, PieceIndex)>,
    /// The origin's transfer that it carries.
    pub run: Option<Index>,
    /// Bytes on their way.
    pub flying: u32,
    /// What may be on its way where nothing but that limits it.
    pub window: u32,
    /// Whether it stands in its sender's ring.
    pub queued: bool,
    /// When the last message the other way arrives: they don't overtake each other.
    pub back: Nanos,
    /// Where there is congestion control.
    pub socket: Option<Box<Socket>>,
}

/// A request's place in a connection's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub urgency: u32,
    pub since: u64,
    pub link: Index,
    pub piece: PieceIndex,
}

/// Something that can be sent for a request now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub link: Index,
    pub piece: PieceIndex,
    pub want: Want,
    /// Bytes that there are of the piece, and that it has.
    pub available: u32,
    pub size: u32,
}

impl World {
    /// The connection over which a host asks another, and whether it stands already.
    pub(crate) fn connection_to(&mut self, sender: Index, receiver: Index) -> (Index, bool) {
        let known = &self.hosts[receiver as usize].conns;
        let found = known.iter().find(|(of, _)| *of == sender);
        if let Some(&(_, at)) = found.filter(|_| self.scenario.network.order) {
            let conn = &mut self.conns[at as usize];
            let stands = conn.greeted && self.now < conn.used + UNUSED;
            conn.greeted = stands;
            return (at, stands);
        }
        let at = self.connect(Some(sender), receiver);
        self.hosts[receiver as usize].conns.push((sender, at));
        (at, false)
    }

    /// A new connection.
    pub(crate) fn connect(&mut self, sender: Option<Index>, receiver: Index) -> Index {
        let at = self.conns.len() as Index;
        let (zone, pace) = match sender {
            Some(host) => {
                let host = &self.hosts[host as usize];
                (host.zone, host.up.pace)
            }
            None => (self.scenario.origin_zone as u32, self.origin.pace),
        };
        let latency = self.pipes.latency(zone, self.hosts[receiver as usize].zone);
        self.conns.push(Conn {
            sender,
            receiver,
            latency,
            greeted: false,
            used: self.now,
            line: Vec::new(),
            begun: None,
            run: None,
            flying: 0,
            window: self.window(zone, pace, receiver),
            queued: false,
            back: 0,
            socket: self.socket(2 * latency),
        });
        at
    }

    /// A request takes its place in its connection's line.
    pub(crate) fn line_up(&mut self, link: Index, piece: PieceIndex, mut want: Want) {
        self.turns += 1;
        let known = self.links[link as usize].wants.get(piece).copied();
        want.since = match self.scenario.network.order {
            true => known.map_or(self.turns, |known| known.since),
            // The lowest piece first.
            false => u64::from(piece.get()),
        };
        if !self.scenario.network.order {
            want.urgency = 0;
        }
        if let Some(known) = known {
            self.leave_line(link, piece, known);
        }
        let found = &mut self.links[link as usize];
        found.wants.insert(piece, want);
        let line = &mut self.conns[found.conn as usize].line;
        let turn = Turn {
            urgency: want.urgency,
            since: want.since,
            link,
            piece,
        };
        let place = line.partition_point(|other| *other < turn);
        line.insert(place, turn);
    }

    fn leave_line(&mut self, link: Index, piece: PieceIndex, want: Want) {
        let conn = &mut self.conns[self.links[link as usize].conn as usize];
        let turn = Turn {
            urgency: want.urgency,
            since: want.since,
            link,
            piece,
        };
        if let Ok(at) = conn.line.binary_search(&turn) {
            conn.line.remove(at);
        }
        conn.begun = conn.begun.filter(|&begun| begun != (link, piece));
    }

    /// A request is over, one way or the other.
    pub(crate) fn take_want(&mut self, link: Index, piece: PieceIndex) -> Option<Want> {
        let want = self.links[link as usize].wants.remove(piece)?;
        self.leave_line(link, piece, want);
        let parent = self.links[link as usize].parent;
        self.seats[parent as usize].waits_no_more(piece, link);
        Some(want)
    }

    /// All of a link's requests are over.
    pub(crate) fn drop_wants(&mut self, link: Index) {
        let wants = self.links[link as usize].wants.take();
        for (piece, want) in wants {
            self.leave_line(link, piece, want);
        }
    }

    /// What a connection sends next, if there is anything: what it has begun goes before what is as
    /// urgent.
    pub(crate) fn ready(&self, at: Index) -> Option<Ready> {
        let conn = &self.conns[at as usize];
        let first = conn.line.iter().find_map(|turn| self.can_send(turn));
        let (first, begun) = (first?, conn.begun);
        let Some((link, piece)) = begun.filter(|&begun| begun != (first.link, first.piece)) else {
            return Some(first);
        };
        let want = self.links[link as usize].wants.get(piece);
        let Some(want) = want.filter(|want| want.urgency == first.want.urgency) else {
            return Some(first);
        };
        let turn = Turn {
            urgency: want.urgency,
            since: want.since,
            link,
            piece,
        };
        self.can_send(&turn).or(Some(first))
    }

    fn can_send(&self, turn: &Turn) -> Option<Ready> {
        let link = &self.links[turn.link as usize];
        let want = *link.wants.get(turn.piece)?;
        if !link.up {
            return None;
        }
        let seat = &self.seats[link.parent as usize];
        let size = self.tasks[seat.task as usize].geometry.size(turn.piece) as u32;
        let available = seat.available(turn.piece, size);
        (want.sent < available).then_some(Ready {
            link: turn.link,
            piece: turn.piece,
            want,
            available,
            size,
        })
    }

    /// So many bytes of a request are sent, or put where they cannot be called back from.
    pub(crate) fn sends(&mut self, ready: Ready, bytes: u32) -> (AttemptId, u32) {
        let Ready {
            link, piece, want, ..
        } = ready;
        let (parent, conn, sender) = {
            let link = &self.links[link as usize];
            (link.parent, link.conn, link.sender)
        };
        if want.sent + bytes == ready.size {
            self.take_want(link, piece);
        } else {
            if let Some(want) = self.links[link as usize].wants.get_mut(piece) {
                want.sent += bytes;
            }
            if self.scenario.network.order {
                self.conns[conn as usize].begun = Some((link, piece));
            }
        }
        let task = self.task_id(parent);
        let host = &mut self.hosts[sender as usize];
        host.cache.touch(task, piece);
        let visit = host.visit;
        self.visits[visit as usize].report.sent += u64::from(bytes);
        self.conns[conn as usize].used = self.now;
        (want.attempt, want.sent)
    }
}
