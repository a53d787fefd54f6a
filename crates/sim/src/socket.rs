//! How bytes move where connections have congestion control: what is written waits in its connection's socket, behind what
//! was written before; windows and paces say when it goes, queues and chance what is lost of it and how late it comes.

use std::collections::VecDeque;

use pantala_core::PieceIndex;
use pantala_window::AttemptId;

use crate::{
    host::State,
    queue::{Happening, Index, Nanos},
    tcp::{MSS, Sent, Tcp},
    wire::Coming,
    world::World,
};

/// What the daemon writes to a child before it looks at others of its requests.
const BLOCK: u32 = pantala_core::BLOCK_MAX as u32;
/// Bytes that may wait unsent in the kernel before it takes more: the daemon's own bound.
const UNSENT: u32 = 256 << 10;
/// The least that a kernel's buffer for what is sent holds.
const BUFFER_MIN: f64 = 46e3;

/// The sending end of a connection in the kernel.
#[derive(Debug)]
pub(crate) struct Socket {
    pub tcp: Tcp,
    /// What was written and has not gone.
    pub waits: VecDeque<Segment>,
    unsent: u32,
    /// What has gone and is not acknowledged.
    pub sent: VecDeque<Sent>,
    /// What has gone and does not arrive yet, in order, for something before it has to be sent again; the first one's number.
    pub coming: VecDeque<Coming>,
    pub first: u64,
    /// What found a queue full: which, and how much of it has to be sent again.
    pub again: VecDeque<(u64, u32)>,
    /// When what was sent last has come in with all before it, and is acknowledged.
    pub in_order: Nanos,
    pub acknowledged: Nanos,
    /// When its pace lets it go on, and whether that is waited for.
    pub may: Nanos,
    /// When what was sent last has left its host.
    pub gone: Nanos,
    paced: bool,
}

/// What is written in one go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Segment {
    Block {
        link: Index,
        piece: PieceIndex,
        attempt: AttemptId,
        from: u32,
        bytes: u32,
    },
    Run {
        run: Index,
        piece: PieceIndex,
        from: u32,
        bytes: u32,
    },
    /// Announcements that wait at the link.
    News {
        link: Index,
    },
    Refused {
        link: Index,
        attempt: AttemptId,
    },
    /// Bytes of no content.
    Plain {
        bytes: u32,
    },
}

impl Segment {
    fn bytes(&self) -> u32 {
        match *self {
            Segment::Block { bytes, .. }
            | Segment::Run { bytes, .. }
            | Segment::Plain { bytes } => bytes,
            Segment::News { .. } | Segment::Refused { .. } => 0,
        }
    }

    /// Takes so many bytes off its beginning: what happens when they arrive.
    fn split(&mut self, take: u32) -> Happening {
        match self {
            Segment::Block {
                link,
                piece,
                attempt,
                from,
                bytes,
            } => {
                let happening = Happening::Block {
                    link: *link,
                    piece: *piece,
                    attempt: *attempt,
                    from: *from,
                    bytes: take,
                };
                (*from, *bytes) = (*from + take, *bytes - take);
                happening
            }
            Segment::Run {
                run,
                piece,
                from,
                bytes,
            } => {
                let happening = Happening::RunBlock {
                    run: *run,
                    piece: *piece,
                    from: *from,
                    bytes: take,
                };
                (*from, *bytes) = (*from + take, *bytes - take);
                happening
            }
            Segment::Plain { bytes } => {
                *bytes -= take;
                Happening::Plain { bytes: take }
            }
            Segment::News { link } => Happening::News { link: *link },
            Segment::Refused { link, attempt } => Happening::Refused {
                link: *link,
                attempt: *attempt,
            },
        }
    }
}

impl World {
    /// The sending end of a new connection, where there is congestion control.
    pub(crate) fn socket(&self, rtt: Nanos) -> Option<Box<Socket>> {
        let cc = self.scenario.network.congestion?;
        Some(Box::new(Socket {
            tcp: Tcp::new(cc, rtt, self.now),
            waits: VecDeque::new(),
            unsent: 0,
            sent: VecDeque::new(),
            coming: VecDeque::new(),
            first: 0,
            again: VecDeque::new(),
            in_order: 0,
            acknowledged: 0,
            may: 0,
            gone: 0,
            paced: false,
        }))
    }

    pub(crate) fn socket_of(&mut self, at: Index) -> &mut Socket {
        let socket = self.conns[at as usize].socket.as_mut();
        socket.expect("only asked where there is congestion control")
    }

    /// A message takes its place behind what was written before.
    pub(crate) fn write(&mut self, at: Index, segment: Segment) {
        let socket = self.socket_of(at);
        socket.unsent += segment.bytes();
        socket.waits.push_back(segment);
        self.kick(at);
    }

    /// Sends what window and pace allow of what there is.
    pub(crate) fn send_what_may(&mut self, at: Index) {
        let (sender, receiver) = {
            let conn = &self.conns[at as usize];
            (conn.sender, conn.receiver)
        };
        let silent = sender.is_some_and(|host| !self.hosts[host as usize].alive());
        if silent || self.hosts[receiver as usize].state == State::Dead {
            return;
        }
        loop {
            self.fill(at);
            let (now, block) = (self.now, self.scenario.block);
            // Where blocks are large there are to be few events.
            let coarse = self.scenario.relay.max(self.scenario.block);
            let least = f64::from(coarse / 2).max(2.0 * MSS);
            let conn = &mut self.conns[at as usize];
            let flying = conn.flying;
            let Some(socket) = conn.socket.as_mut() else {
                return;
            };
            let Some(segment) = socket.waits.front_mut() else {
                return;
            };
            let whole = segment.bytes();
            let mut bytes = whole.min(block);
            if whole > 0 {
                if flying == 0 {
                    socket.tcp.wakes(now);
                }
                let window = socket.tcp.window();
                let room = (window - f64::from(flying)).max(0.0) as u32;
                // An eighth of the window at a time: what is acknowledged together must not be all there is.
                let part = (window / 8.0).max(least).min(window) as u32;
                bytes = bytes.min(part);
                if room < bytes.min(part / 2) {
                    socket.tcp.fills(flying);
                    return;
                }
                if now < socket.may {
                    if !std::mem::replace(&mut socket.paced, true) {
                        let at = Happening::Paced { conn: at };
                        self.queue.push(socket.may, at);
                    }
                    return;
                }
                bytes = bytes.min(room);
                socket.unsent -= bytes;
            }
            let happening = segment.split(bytes);
            if bytes == whole {
                socket.waits.pop_front();
            }
            self.transmit(at, bytes, happening);
        }
    }

    /// Writes to a connection what its buffer in the kernel takes.
    fn fill(&mut self, at: Index) {
        loop {
            let conn = &self.conns[at as usize];
            let Some(socket) = &conn.socket else { return };
            let buffer = (2.0 * socket.tcp.window()).max(BUFFER_MIN) - f64::from(conn.flying);
            if f64::from(socket.unsent) >= buffer.min(f64::from(UNSENT)) {
                return;
            }
            let segment = match conn.run {
                Some(run) => match self.run_ready(run) {
                    Some((piece, from, bytes)) => Segment::Run {
                        run,
                        piece,
                        from,
                        bytes,
                    },
                    None => return,
                },
                None => {
                    let Some(ready) = self.ready(at) else {
                        self.conns[at as usize].begun = None;
                        return;
                    };
                    let bytes = (ready.available - ready.want.sent).min(BLOCK);
                    let (attempt, from) = self.sends(ready, bytes);
                    Segment::Block {
                        link: ready.link,
                        piece: ready.piece,
                        attempt,
                        from,
                        bytes,
                    }
                }
            };
            let socket = self.socket_of(at);
            socket.unsent += segment.bytes();
            socket.waits.push_back(segment);
        }
    }

    /// A connection's pace lets it go on.
    pub(crate) fn paced(&mut self, at: Index) {
        self.socket_of(at).paced = false;
        self.send_what_may(at);
    }

    /// Something that was sent is acknowledged.
    pub(crate) fn acknowledged(&mut self, at: Index) {
        let now = self.now;
        let conn = &mut self.conns[at as usize];
        if self.hosts[conn.receiver as usize].state == State::Frozen {
            // Nobody reads: the buffers stay full.
            return;
        }
        let Some(socket) = conn.socket.as_mut() else {
            return;
        };
        let Some(sent) = socket.sent.pop_front() else {
            return;
        };
        conn.flying -= sent.bytes;
        socket.tcp.acknowledged(now, &sent, conn.flying);
        self.send_what_may(at);
    }
}
