use std::{cmp::Reverse, collections::BinaryHeap};

use pantala_core::{
    PieceIndex, Time,
    control::{FromPeer, ToPeer},
};
use pantala_window::AttemptId;

/// A point on the simulator's clock, in nanoseconds: fine enough that rounding a block's time
/// does not add up.
pub(crate) type Nanos = u64;

/// The brains' clock counts microseconds.
pub(crate) fn time(now: Nanos) -> Time {
    Time::from_micros(now / 1000)
}

/// A peer's, a link's or a transfer's place in the world's lists.
pub(crate) type Index = u32;

/// Who sends over an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// A parent to a child.
    Link(Index),
    /// The origin to the holder of a lease.
    Run(Index),
}

/// What happens at a point in time.
#[derive(Debug)]
pub(crate) enum Happening {
    Arrival {
        peer: Index,
    },
    Fault {
        fault: Index,
    },
    /// A peer's message reaches the supernode.
    ToSwarm {
        peer: Index,
        message: Box<FromPeer>,
    },
    /// A supernode's message reaches a peer; `epoch` tells a restarted supernode from the old.
    ToPeer {
        peer: Index,
        message: Box<ToPeer>,
    },
    /// The supernode's connection to a peer broke, or is back.
    Connection {
        peer: Index,
        up: bool,
    },
    Connect {
        peer: Index,
    },
    Disconnect {
        peer: Index,
    },
    SwarmTick,
    PickerTick {
        peer: Index,
    },
    /// The origin answered the request for metadata.
    Metadata {
        peer: Index,
    },
    Dialled {
        link: Index,
    },
    /// The other end of a link is gone.
    LinkDown {
        link: Index,
    },
    /// Announcements reach a child.
    News {
        link: Index,
    },
    /// A request reaches a parent.
    Want {
        link: Index,
        piece: PieceIndex,
        attempt: AttemptId,
        from: u32,
    },
    Unwant {
        link: Index,
        piece: PieceIndex,
        attempt: AttemptId,
    },
    /// A parent says that it does not have and will not get the piece.
    Refused {
        link: Index,
        attempt: AttemptId,
    },
    /// The first bytes of a request to the origin may flow.
    RunOpen {
        run: Index,
    },
    /// An uplink has sent its block; the origin's is `None`.
    Sent {
        peer: Option<Index>,
    },
    /// A block reaches a child.
    Block {
        link: Index,
        piece: PieceIndex,
        attempt: AttemptId,
        from: u32,
        bytes: u32,
    },
    RunBlock {
        run: Index,
        piece: PieceIndex,
        from: u32,
        bytes: u32,
    },
    /// A reader has taken a piece.
    Taken {
        peer: Index,
    },
    Have {
        peer: Index,
    },
    Progress {
        peer: Index,
    },
    Pulse {
        peer: Index,
    },
}

#[derive(Debug)]
struct Entry {
    at: Nanos,
    seq: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// What is to come, the earliest first; at one point in time what was put in first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    seq: u64,
}

impl Queue {
    pub fn push(&mut self, at: Nanos, what: Happening) {
        self.seq += 1;
        let seq = self.seq;
        self.heap.push(Reverse(Entry { at, seq, what }));
    }

    pub fn pop(&mut self) -> Option<(Nanos, Happening)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}
