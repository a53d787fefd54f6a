use std::time::Duration;

use pantala_core::PieceIndex;

/// One reader of the task; the driver numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u64);

/// One parent we have a link to; the driver numbers them, a re-dialled one is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParentId(pub u64);

/// One request for one piece to one parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// One transfer from the origin over consecutive pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// How large windows are, in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowSize {
    /// Always this many, or the reader's share of memory when that is less.
    Static(u32),
    /// Grows while the reader waits for the network, shrinks while the network waits for the
    /// reader, between these bounds.
    Adaptive {
        /// Never smaller.
        min: u32,
        /// Never larger.
        max: u32,
    },
}

/// In which order the window's pieces are asked for, behind the first ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In order.
    Ascending,
    /// What the fewest parents have first; among equals in order.
    Rarest,
    /// What the fewest parents have first; among equals in an order that differs from peer to peer, so
    /// that they ask for different ones and can exchange them.
    RarestByLot,
}

/// What an operator or a simulation may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Window size.
    pub window: WindowSize,
    /// How long the head piece may make no progress before it is asked for a second time.
    pub patience: Duration,
    /// How many parents may be asked for one piece at the same time, 2 at most: 1 never asks twice.
    pub hedges: usize,
    /// In which order the window's pieces are asked for.
    pub order: Order,
    /// How many of the window's first pieces are asked for in order, whatever is rare.
    pub urgent: u32,
    /// How long a piece that nobody has may be wanted before the supernode is asked for its lease.
    pub ask_after: Duration,
    /// How long a lease is kept that the reader's window leaves no room to use; `None` keeps it
    /// for good (there is nobody else to use it).
    pub return_after: Option<Duration>,
    /// Whether all must come from the transfer that began it: then that is never bounded by what the
    /// first reader wanted, because no other can go on where it ends.
    pub single_transfer: bool,
    /// When the supernode is lost: the longest pause before the origin is asked. Each peer draws
    /// its own between a tenth of it and all of it.
    pub fallback: Duration,
    /// Requests that may wait at one parent.
    pub requests_per_parent: usize,
    /// Origin transfers at once.
    pub runs: usize,
    /// Seed of the only randomness there is: the pause of `fallback`.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: WindowSize::Adaptive { min: 4, max: 64 },
            patience: Duration::from_millis(200),
            hedges: 2,
            order: Order::Rarest,
            urgent: 2,
            ask_after: Duration::from_millis(60),
            return_after: Some(Duration::from_millis(300)),
            single_transfer: false,
            fallback: Duration::from_secs(2),
            requests_per_parent: 64,
            runs: 2,
            seed: 0,
        }
    }
}

/// Why a request to a parent came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The parent does not have the piece and will not get it.
    NotHere,
    /// The parent has too much to do.
    Busy,
    /// The link broke.
    Gone,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A reader came: it needs the pieces from `first` up to (not including) `end`, or to the
    /// content's end.
    ReaderOpened {
        /// Which.
        reader: ReaderId,
        /// Its first piece.
        first: PieceIndex,
        /// The piece after its last.
        end: Option<PieceIndex>,
    },
    /// A reader has taken all before `next`.
    ReaderTook {
        /// Which.
        reader: ReaderId,
        /// The piece it needs next.
        next: PieceIndex,
    },
    /// A reader has stopped taking what is there, or takes again. Nothing is kept or brought for a reader
    /// that rests: its memory serves others, and what it needs comes again when it goes on.
    ReaderRests {
        /// Which.
        reader: ReaderId,
        /// Whether it rests now.
        rests: bool,
    },
    /// A reader went away or is done.
    ReaderClosed {
        /// Which.
        reader: ReaderId,
    },
    /// The most pieces that one window may have: the readers' share of the memory budget.
    Share {
        /// In pieces, at least 1.
        pieces: u32,
    },
    /// The content ends after this many pieces.
    Ended {
        /// How many.
        pieces: u32,
    },
    /// There is a link to this parent now.
    ParentUp {
        /// Which.
        parent: ParentId,
    },
    /// The link to this parent is gone, and all requests on it.
    ParentDown {
        /// Which.
        parent: ParentId,
    },
    /// A parent holds pieces, complete and verified.
    ParentHolds {
        /// Which parent.
        parent: ParentId,
        /// The first piece.
        first: PieceIndex,
        /// How many.
        count: u32,
    },
    /// A parent has the first bytes of a piece.
    ParentReceiving {
        /// Which parent.
        parent: ParentId,
        /// Which piece.
        piece: PieceIndex,
    },
    /// A parent has pieces no more.
    ParentLost {
        /// Which parent.
        parent: ParentId,
        /// The first piece.
        first: PieceIndex,
        /// How many.
        count: u32,
    },
    /// The parents the supernode prefers, one a stripe (piece `i` is of stripe `i mod len`);
    /// `None` where there is none or no link to it yet.
    Preferred {
        /// By stripe.
        stripes: Vec<Option<ParentId>>,
    },
    /// This peer, and no other, fetches these pieces from the origin.
    LeaseGranted {
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
    },
    /// The lease for these pieces is over.
    LeaseEnded {
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
    },
    /// The supernode is there.
    SupernodeUp,
    /// The supernode is lost.
    SupernodeDown,
    /// The supernode vouched for these pieces' digests.
    Vouched {
        /// The first piece.
        first: PieceIndex,
        /// How many.
        count: u32,
    },
    /// A request has so many of its piece's bytes by now.
    Progress {
        /// Which request.
        attempt: AttemptId,
        /// Bytes of the piece, those it started with included.
        bytes: u64,
    },
    /// A request has all bytes of its piece; they are not verified yet.
    Fetched {
        /// Which request.
        attempt: AttemptId,
        /// The piece's size in bytes.
        bytes: u64,
    },
    /// A request came to nothing.
    Failed {
        /// Which request.
        attempt: AttemptId,
        /// Why.
        failure: Failure,
    },
    /// A piece is complete and right, from wherever it came.
    Sealed {
        /// Which.
        piece: PieceIndex,
    },
    /// The bytes that this request brought were wrong.
    Corrupt {
        /// Which request.
        attempt: AttemptId,
    },
    /// An origin transfer begins to receive a piece.
    RunAt {
        /// Which transfer.
        run: RunId,
        /// The piece.
        piece: PieceIndex,
    },
    /// An origin transfer failed for good (the origin client has retried already).
    RunFailed {
        /// Which transfer.
        run: RunId,
        /// Whether no retry can help (not found, denied, changed).
        fatal: bool,
        /// For how long the origin asked to be left alone.
        rest: Duration,
    },
    /// The supernode says that the origin serves nobody: what nobody has will not come.
    OriginFailed,
    /// A held piece was evicted from the cache.
    Evicted {
        /// Which.
        piece: PieceIndex,
    },
    /// What this peer's readers of the content are to others: foreground until told.
    Class(Class),
    /// Nothing but time has passed.
    Tick,
}

/// What a task's readers are to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// Somebody waits for the bytes.
    #[default]
    Foreground,
    /// Nobody does: that others go first makes no parent late.
    Background,
    /// Somebody else waits for bytes: what has begun to come is let come, nothing else is asked for.
    Paused,
}

/// Where a piece is asked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A parent, by a request.
    Parent(ParentId),
    /// The origin, by a run.
    Origin(RunId),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a parent for a piece.
    Fetch {
        /// The request's name in later events.
        attempt: AttemptId,
        /// Which piece.
        piece: PieceIndex,
        /// Of whom.
        parent: ParentId,
        /// How many pieces lie between the reader and this one: 0 is what it waits for.
        urgency: u32,
        /// It is asked of somebody else already: start from the bytes that are there.
        hedge: bool,
    },
    /// The request is not needed any more.
    Cancel {
        /// Which.
        attempt: AttemptId,
        /// Its piece.
        piece: PieceIndex,
    },
    /// Open a transfer from the origin at piece `first`, and read on up to `until`.
    OpenRun {
        /// The transfer's name in later events.
        run: RunId,
        /// Where it starts.
        first: PieceIndex,
        /// The piece it must not begin before told.
        until: PieceIndex,
        /// The piece after the last it can ever be needed for: what to ask the origin for.
        goal: Option<PieceIndex>,
    },
    /// A transfer may go on up to `until` now.
    ExtendRun {
        /// Which.
        run: RunId,
        /// The piece it must not begin before told.
        until: PieceIndex,
    },
    /// End a transfer.
    StopRun {
        /// Which.
        run: RunId,
    },
    /// Ask the supernode for the source lease of a piece, or for who has it.
    AskLease {
        /// Which piece.
        piece: PieceIndex,
        /// Somebody was asked for it already and does not deliver.
        late: bool,
    },
    /// Give the lease from this piece on back to the supernode.
    ReturnLease {
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
    },
    /// Give the lease from this piece on back to the supernode: the origin failed.
    BlameOrigin {
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
    },
    /// Tell the supernode that somebody else may have the lease from this piece on. The transfer
    /// waits for its reader meanwhile.
    OfferLease {
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
    },
    /// A window needs the piece from now on: do not evict it.
    Pin {
        /// Which.
        piece: PieceIndex,
    },
    /// No window needs the piece any more.
    Unpin {
        /// Which.
        piece: PieceIndex,
    },
    /// Tell the supernode that this parent does not deliver in time.
    ReportSlow {
        /// Which.
        parent: ParentId,
    },
    /// The origin cannot serve and nobody else can: the readers end with the origin's error.
    GiveUp,
}
