use std::collections::VecDeque;

use pantala_core::PeerId;

use crate::{
    cache::Cache,
    queue::{Index, Nanos},
    scenario::Class,
};

/// A machine: links and memory, whatever tasks it takes part in.
#[derive(Debug)]
pub(crate) struct Host {
    pub id: PeerId,
    /// Its class, by number.
    pub class: u32,
    pub zone: u32,
    pub state: State,
    pub up: Uplink,
    /// Nanoseconds a byte of its downlink.
    pub down_pace: f64,
    /// Until when its downlink is taken, where connections are ideal.
    pub down_free: Nanos,
    /// Its downlink, where they are not.
    pub down: Lane,
    pub cache: Cache,
    /// Bytes of pieces held and in flight.
    pub used: u64,
    /// What it takes part in: the task, and its seat there.
    pub seats: Vec<(u32, Index)>,
    /// Connections to parents, by who they are.
    pub conns: Vec<(Index, Index)>,
    /// When the last message to the supernode arrives, and the last from there.
    pub said: Nanos,
    pub heard: Nanos,
    /// What its last reader is reported in.
    pub visit: Index,
    /// Readers it has now.
    pub readers: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Its reader has not come.
    Away,
    Alive,
    Frozen,
    Dead,
}

/// A host's way out.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// Nanoseconds a byte.
    pub pace: f64,
    /// Where connections are ideal: it sends one block at a time, of the connections that may have something to send, in
    /// turn.
    pub busy: bool,
    pub ring: VecDeque<Index>,
    /// Where they are not: a queue.
    pub lane: Lane,
}

/// One direction of a link: what comes waits behind what came before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane {
    /// Nanoseconds a byte.
    pub pace: f64,
    /// When all that came is through; before now when it could pass more at once.
    pub free: Nanos,
}

impl Lane {
    pub fn new(rate: f64) -> Self {
        Self {
            pace: 8e9 / rate,
            free: 0,
        }
    }

    /// How long what comes at `now` waits.
    pub fn backlog(&self, now: Nanos) -> Nanos {
        self.free.saturating_sub(now)
    }

    /// Bytes come at `now`: when they are through, and how many of them found the queue full, which has room for what passes
    /// in `room`. After a pause `burst` bytes pass at once.
    pub fn pass(&mut self, now: Nanos, bytes: f64, room: Nanos, burst: f64) -> (Nanos, f64) {
        let ready = (burst * self.pace) as Nanos;
        let took = bytes * self.pace;
        let over = (self.backlog(now) + took as Nanos).saturating_sub(room.max(took as Nanos));
        let dropped = (over as f64 / self.pace).min(bytes);
        self.free = self.free.max(now.saturating_sub(ready));
        self.free += ((bytes - dropped) * self.pace).ceil() as Nanos;
        (self.free.max(now), dropped)
    }
}

impl Uplink {
    pub fn new(rate: f64) -> Self {
        Self {
            pace: 8e9 / rate,
            busy: false,
            ring: VecDeque::new(),
            lane: Lane::new(rate),
        }
    }
}

impl Host {
    pub fn new(id: PeerId, number: u32, class: &Class, visit: Index) -> Self {
        Self {
            id,
            class: number,
            zone: class.zone as u32,
            state: State::Away,
            up: Uplink::new(class.up),
            down_pace: 8e9 / class.down,
            down_free: 0,
            down: Lane::new(class.down),
            cache: Cache::default(),
            used: 0,
            seats: Vec::new(),
            conns: Vec::new(),
            said: 0,
            heard: 0,
            visit,
            readers: 0,
        }
    }

    pub fn alive(&self) -> bool {
        self.state == State::Alive
    }
}
