use std::collections::{BTreeMap, VecDeque};

use pantala_core::{PeerId, PieceIndex, PieceSet, control::Parents};
use pantala_store::Lru;
use pantala_window::{AttemptId, Picker, PieceRanges, RunId};

use crate::{
    PeerReport,
    queue::{Flow, Index, Nanos},
    scenario::Class,
};

/// One host: what a daemon would have around its brain.
#[derive(Debug)]
pub(crate) struct Peer {
    pub id: PeerId,
    pub class: Class,
    pub state: State,
    pub picker: Option<Picker>,
    /// When its next tick is due, [`Nanos::MAX`] without one.
    pub wake: Nanos,
    pub up: Uplink,
    /// Until when its downlink is taken.
    pub down_free: Nanos,
    pub held: PieceSet,
    pub lru: Lru,
    pub flights: BTreeMap<PieceIndex, InFlight>,
    pub attempts: BTreeMap<AttemptId, Request>,
    pub runs: BTreeMap<RunId, Index>,
    pub vouched: PieceSet,
    pub leases: PieceRanges,
    pub told: Parents,
    /// Links to parents, by who they are.
    pub parents: BTreeMap<PeerId, Index>,
    /// Links from children.
    pub children: Vec<Index>,
    pub reader: Option<Reader>,
    pub gained: PieceSet,
    pub lost: PieceSet,
    pub have_due: bool,
    pub progress_due: bool,
    pub pulse_due: bool,
    pub pulse_bytes: u64,
    pub report: PeerReport,
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

/// A piece being received.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Bytes there, from the first on.
    pub bytes: u32,
    /// Among them are wrong ones.
    pub tainted: bool,
    /// All bytes are there and wait for the digest: the request that brought the last, and over
    /// which link, if it brought all.
    pub complete: Option<(AttemptId, Option<Index>)>,
}

/// One request to a parent, as the child sees it.
#[derive(Debug)]
pub(crate) struct Request {
    pub link: Index,
    pub piece: PieceIndex,
    pub bytes: u32,
    /// It goes on with what somebody else began.
    pub goes_on: bool,
    /// What of it the picker was told.
    pub told: u32,
}

#[derive(Debug)]
pub(crate) struct Reader {
    pub next: PieceIndex,
    pub end: PieceIndex,
    pub taking: bool,
    pub last_took: Option<Nanos>,
}

/// A child's connection to a parent.
#[derive(Debug)]
pub(crate) struct Link {
    pub child: Index,
    pub parent: Index,
    pub up: bool,
    /// At the parent: what the child waits for.
    pub wants: BTreeMap<PieceIndex, Want>,
    /// Bytes on their way.
    pub flying: u32,
    /// Whether it stands in the parent's ring.
    pub queued: bool,
    /// Announcements on their way.
    pub news: Vec<News>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub attempt: AttemptId,
    pub sent: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum News {
    Holds(PieceIndex, u32),
    Receiving(PieceIndex),
    Lost(PieceIndex),
}

/// A transfer from the origin.
#[derive(Debug)]
pub(crate) struct Run {
    pub peer: Index,
    pub id: RunId,
    pub open: bool,
    /// The piece it sends now, and how much of it is sent.
    pub piece: PieceIndex,
    pub sent: u32,
    pub until: PieceIndex,
    pub goal: Option<PieceIndex>,
    /// What the origin has sent of the burst, and when the burst began.
    pub burst: (u64, Nanos),
    pub flying: u32,
    pub queued: bool,
}

impl Peer {
    pub fn new(id: PeerId, class: Class) -> Self {
        Self {
            id,
            up: Uplink::new(class.up),
            class,
            state: State::Away,
            picker: None,
            wake: Nanos::MAX,
            down_free: 0,
            held: PieceSet::new(),
            lru: Lru::new(),
            flights: BTreeMap::new(),
            attempts: BTreeMap::new(),
            runs: BTreeMap::new(),
            vouched: PieceSet::new(),
            leases: PieceRanges::new(),
            told: Parents::default(),
            parents: BTreeMap::new(),
            children: Vec::new(),
            reader: None,
            gained: PieceSet::new(),
            lost: PieceSet::new(),
            have_due: false,
            progress_due: false,
            pulse_due: false,
            pulse_bytes: 0,
            report: PeerReport::default(),
        }
    }

    pub fn alive(&self) -> bool {
        self.state == State::Alive
    }

    /// Bytes of a piece that can be passed on.
    pub fn available(&self, piece: PieceIndex, size: u32) -> u32 {
        if self.held.contains(piece) {
            size
        } else {
            self.flights.get(&piece).map_or(0, |flight| flight.bytes)
        }
    }

    /// Nanoseconds a byte of its downlink.
    pub fn down_pace(&self) -> f64 {
        8e9 / self.class.down
    }
}
