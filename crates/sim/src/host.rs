use std::collections::VecDeque;

use pantala_core::PeerId;

use crate::{
    cache::Cache,
    queue::{Flow, Index, Nanos},
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
    /// Until when its downlink is taken.
    pub down_free: Nanos,
    pub cache: Cache,
    /// Bytes of pieces held and in flight.
    pub used: u64,
    /// What it takes part in: the task, and its seat there.
    pub seats: Vec<(u32, Index)>,
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

/// A host's way out: one block at a time.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// Nanoseconds a byte.
    pub pace: f64,
    pub busy: bool,
    /// Flows that may have something to send, in turn.
    pub ring: VecDeque<Flow>,
}

impl Uplink {
    pub fn new(rate: f64) -> Self {
        Self {
            pace: 8e9 / rate,
            busy: false,
            ring: VecDeque::new(),
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
            cache: Cache::default(),
            used: 0,
            seats: Vec::new(),
            visit,
            readers: 0,
        }
    }

    pub fn alive(&self) -> bool {
        self.state == State::Alive
    }
}
