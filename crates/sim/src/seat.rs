use pantala_core::{Flat, PeerId, PieceIndex, PieceSet, control::Parents};
use pantala_window::{AttemptId, Picker, PieceRanges, ReaderId, RunId};

use crate::queue::{Index, Nanos};

/// One host's part in one task: what a daemon would have around its brain.
#[derive(Debug)]
pub(crate) struct Seat {
    pub host: Index,
    pub task: u32,
    /// Alive with its host.
    pub alive: bool,
    pub picker: Option<Box<Picker>>,
    /// Whether the picker may have decided something that is not done yet.
    pub asked: bool,
    /// When its next tick is due, [`Nanos::MAX`] without one.
    pub wake: Nanos,
    pub held: PieceSet,
    pub flights: Flat<PieceIndex, InFlight>,
    pub attempts: Flat<AttemptId, Request>,
    pub runs: Flat<RunId, Index>,
    pub vouched: PieceSet,
    pub leases: PieceRanges,
    pub told: Parents,
    /// Links to parents, by who they are.
    pub parents: Flat<PeerId, Index>,
    /// Links from children.
    pub children: Vec<Index>,
    /// Links from children that wait for a piece.
    pub waiting: Vec<(PieceIndex, Index)>,
    pub readers: Vec<Reader>,
    /// Readers so far, to number them.
    pub numbered: u64,
    /// Readers to be opened as soon as the content is known: what they are reported in, and when they came.
    pub opening: Vec<(Index, Nanos)>,
    /// It asked the origin what the content is: that transfer stands.
    pub learned: bool,
    /// Whether the supernode was told of it, or is being told.
    pub joined: bool,
    pub gained: PieceSet,
    pub lost: PieceSet,
    /// What its children are to be told.
    pub news: Vec<News>,
    pub news_due: bool,
    /// When the supernode hears what changed, [`Nanos::MAX`] when nothing did; when it first did, and
    /// last.
    pub have_at: Nanos,
    pub have_first: Option<Nanos>,
    pub have_last: Option<Nanos>,
    pub progress_due: bool,
    pub pulse_due: bool,
    pub pulse_bytes: u64,
}

/// A piece being received.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InFlight {
    /// Bytes there, from the first on: all of a block that has begun to come, for it is passed on as
    /// it comes.
    pub bytes: u32,
    /// What of the last block had still to come when its beginning came, when that was, and when it has
    /// come in full.
    pub coming: u32,
    pub since: Nanos,
    pub full_at: Nanos,
    /// Among them are wrong ones.
    pub tainted: bool,
    /// All bytes are there and wait for the digest: the request that brought the last, and over
    /// which link, if it brought all.
    pub complete: Option<(AttemptId, Option<Index>)>,
}

impl InFlight {
    /// Bytes that have come by now.
    pub fn come(&self, now: Nanos) -> u64 {
        let left = self.full_at.saturating_sub(now);
        let coming = u64::from(self.coming) * left / (self.full_at - self.since).max(1);
        u64::from(self.bytes) - coming
    }
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
    pub id: ReaderId,
    /// What it is reported in.
    pub visit: Index,
    pub next: PieceIndex,
    pub end: PieceIndex,
    pub taking: bool,
    pub came: Nanos,
    pub last_took: Option<Nanos>,
}

/// A child's use of a parent, in one task.
#[derive(Debug)]
pub(crate) struct Link {
    /// The child's seat.
    pub child: Index,
    /// The parent's seat.
    pub parent: Index,
    pub sender: Index,
    pub receiver: Index,
    /// One way.
    pub latency: Nanos,
    /// What carries it, for all tasks that the two share.
    pub conn: Index,
    pub up: bool,
    /// At the parent: what the child waits for.
    pub wants: Flat<PieceIndex, Want>,
    /// Announcements for this child alone on their way.
    pub news: Vec<News>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub attempt: AttemptId,
    pub sent: u32,
    /// Its place in its connection's line.
    pub urgency: u32,
    pub since: u64,
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
    pub seat: Index,
    pub id: RunId,
    pub conn: Index,
    pub open: bool,
    /// The piece it sends now, and how much of it is sent.
    pub piece: PieceIndex,
    pub sent: u32,
    pub until: PieceIndex,
    pub goal: Option<PieceIndex>,
    /// What the origin has sent of the burst, and when the burst began.
    pub burst: (u64, Nanos),
}

impl Seat {
    pub fn new(host: Index, task: u32) -> Self {
        Self {
            host,
            task,
            alive: true,
            picker: None,
            asked: false,
            wake: Nanos::MAX,
            held: PieceSet::new(),
            flights: Flat::default(),
            attempts: Flat::default(),
            runs: Flat::default(),
            vouched: PieceSet::new(),
            leases: PieceRanges::new(),
            told: Parents::default(),
            parents: Flat::default(),
            children: Vec::new(),
            waiting: Vec::new(),
            readers: Vec::new(),
            numbered: 0,
            opening: Vec::new(),
            learned: false,
            joined: false,
            gained: PieceSet::new(),
            lost: PieceSet::new(),
            news: Vec::new(),
            news_due: false,
            have_at: Nanos::MAX,
            have_first: None,
            have_last: None,
            progress_due: false,
            pulse_due: false,
            pulse_bytes: 0,
        }
    }

    /// Bytes of a piece that can be passed on.
    pub fn available(&self, piece: PieceIndex, size: u32) -> u32 {
        if self.held.contains(piece) {
            size
        } else {
            self.flights.get(piece).map_or(0, |flight| flight.bytes)
        }
    }

    /// The link a request was made on, if it is under way on that link.
    pub fn request(&mut self, attempt: AttemptId, link: Index) -> Option<&mut Request> {
        self.attempts
            .get_mut(attempt)
            .filter(|request| request.link == link)
    }

    /// Whether a request for the piece is under way.
    pub fn asks_for(&self, piece: PieceIndex) -> bool {
        self.attempts.values().any(|request| request.piece == piece)
    }

    /// A child waits for a piece no more.
    pub fn waits_no_more(&mut self, piece: PieceIndex, link: Index) {
        if let Some(at) = self
            .waiting
            .iter()
            .position(|&waits| waits == (piece, link))
        {
            self.waiting.swap_remove(at);
        }
    }
}
