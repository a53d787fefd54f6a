//! What peers and supernodes say to each other, as values. How it travels is the `wire` crate's
//! affair; the brains and the simulator speak it directly.

use std::{net::SocketAddr, time::Duration};

use crate::{ContentMeta, Error, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId, Turn};

/// Consecutive pieces: the first, and how many.
pub type PieceRun = (PieceIndex, u32);

/// How many pieces one [`FromPeer::Have`] or [`FromPeer::Resume`] speaks of at most, so that one short
/// message cannot cost much: who has more to say says it in several. The rest of a longer one is not
/// heard.
pub const PIECES_PER_MESSAGE: usize = 4096;

/// The longest pause after which a member dials again a parent that it was told of and could not reach.
/// It says each time that it does not reach it.
pub const REDIAL_MAX: Duration = Duration::from_secs(30);

/// Pieces from the first up to (not including) the end, or up to where the content ends.
pub type PieceSpan = (PieceIndex, Option<PieceIndex>);

/// A peer and where its peer server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr {
    /// Which peer.
    pub id: PeerId,
    /// Where children connect to.
    pub addr: SocketAddr,
}

/// What a peer says when it connects, before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Who it is and where it serves.
    pub peer: PeerAddr,
    /// The operator's labels (`rack`, `zone`, `region`), sorted.
    pub labels: Vec<(String, String)>,
}

/// The place of a request among everything that one peer asks for and changes, counted from 1.
///
/// The connection to the supernode keeps the order of messages. So an answer that names a request was made
/// after the supernode had heard all that the peer had said before that request, changes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Serial(u64);

impl Serial {
    /// The serial of no request: what carries it answers nobody.
    pub const NONE: Self = Self(0);

    /// The serial with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The serial of what comes next.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A reader on this peer wants content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// What it asks for.
    pub key: ResourceKey,
    /// Which request this is. The answer names it.
    pub serial: Serial,
    /// The URL without credentials, for the operator's eyes only.
    pub shown: String,
    /// The first byte it wants.
    pub start: u64,
    /// The task that the content's own name makes, where it has one: the content may be here already
    /// under another resource of the same origin.
    pub content: Option<TaskId>,
}

/// One resource, and the answer that a peer knows it to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownResource {
    /// The URL, and for whom.
    pub key: ResourceKey,
    /// The answer: its age, and how long it is fresh, count from now.
    pub meta: ContentMeta,
}

/// A peer that was connected before tells a supernode what it has (the supernode restarted, or
/// the connection broke).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The resource that this peer's readers asked for first.
    pub key: ResourceKey,
    /// The content that stood behind it, then.
    pub task: TaskId,
    /// What the first GET told of it.
    pub meta: ContentMeta,
    /// The resources that the content still stands behind, as far as this peer knows. A version that
    /// has been replaced stands behind none.
    pub resources: Vec<KnownResource>,
    /// Pieces it holds.
    pub held: Vec<PieceRun>,
    /// Digests it was told by a supernode or vouched for itself.
    pub digests: Vec<(PieceIndex, PieceDigest)>,
    /// The piece its reader needs next.
    pub position: PieceIndex,
    /// The pieces that this peer fetches from the origin, as `[first, end)` or up to the content's
    /// end: under an earlier lease, or because no supernode was there to lease anything. The peer
    /// goes on with those that are granted to it anew.
    pub leases: Vec<PieceSpan>,
    /// The URL without credentials, for the operator's eyes only.
    pub shown: String,
}

/// What the holder of a resource's first lease learned from the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// The content's metadata and the task it makes.
    Content {
        /// The task.
        task: TaskId,
        /// The metadata.
        meta: ContentMeta,
    },
    /// The origin says it is the same as before, and how it may be taken for fresh from now on.
    Unchanged {
        /// The content known before.
        task: TaskId,
        /// The metadata with its new headers and freshness.
        meta: ContentMeta,
    },
    /// The response is for this one reader: each asks the origin itself.
    Unshareable,
    /// The origin refused or failed.
    Failed {
        /// With what.
        error: Error,
    },
}

/// What is wrong with a parent, as its child sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It does not deliver in time.
    Slow,
    /// The link to it broke.
    Gone,
    /// No link to it could be made: whatever it holds, this child cannot have it.
    Unreachable,
    /// It sent wrong bytes.
    Corrupt {
        /// Of which piece.
        piece: PieceIndex,
    },
}

/// How long a packet takes to a peer and back, as another one measured it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// To whom.
    pub peer: PeerId,
    /// The least of what was measured; `None` where nothing came back.
    pub took: Option<Duration>,
}

/// A peer to its supernode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromPeer {
    /// A reader wants content.
    Register(Register),
    /// Tells a supernode that does not know this peer's task any more.
    Resume(Resume),
    /// The answer to [`ToPeer::Learn`].
    Learned {
        /// What was asked for.
        key: ResourceKey,
        /// The request that [`ToPeer::Learn`] named, or the peer's own where nobody told it to learn.
        serial: Serial,
        /// What came of it.
        learned: Learned,
    },
    /// What changed in the peer's memory, and how far its reader is.
    Have {
        /// Of which task.
        task: TaskId,
        /// Pieces that are complete now.
        gained: Vec<PieceRun>,
        /// Pieces that left memory.
        lost: Vec<PieceRun>,
        /// The piece its reader needs next.
        position: PieceIndex,
        /// Bytes there of pieces that are not complete: how quick a peer is shows long before its
        /// first piece is.
        in_flight: u64,
        /// Its reader takes more slowly than the network brings.
        reader_bound: bool,
    },
    /// A leased piece came from the origin; this is its digest.
    Sealed {
        /// Of which task.
        task: TaskId,
        /// Which piece.
        piece: PieceIndex,
        /// Its digest.
        digest: PieceDigest,
    },
    /// The content ended: its length is known now.
    Ended {
        /// Of which task.
        task: TaskId,
        /// Bytes.
        length: u64,
    },
    /// A piece has no source, or who was asked does not deliver.
    AskLease {
        /// Of which task.
        task: TaskId,
        /// Which piece.
        piece: PieceIndex,
        /// Somebody was asked for it already.
        late: bool,
    },
    /// The peer can't or won't use its lease from this piece on.
    ReturnLease {
        /// Of which task.
        task: TaskId,
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
    },
    /// The transfer from the origin failed under the peer's lease, which it gives back from this
    /// piece on. Whether somebody else has a better way there is for the supernode to find out.
    OriginFailed {
        /// Of which task.
        task: TaskId,
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
        /// The error that the transfer ended with.
        error: Error,
    },
    /// A lease holder's reader has no room for more: somebody else may have the lease from here on.
    /// The holder goes on with it until it is told that it is over. Where all of the content must come
    /// from one transfer, the holder's readers need no more of it, and it goes on for others alone.
    OfferLease {
        /// Of which task.
        task: TaskId,
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
    },
    /// A lease holder lives; this many bytes came from the origin since it last said so.
    Pulse {
        /// Of which task.
        task: TaskId,
        /// Bytes.
        bytes: u64,
    },
    /// A parent makes trouble.
    Trouble {
        /// In which task.
        task: TaskId,
        /// Which parent.
        peer: PeerId,
        /// What trouble.
        trouble: Trouble,
    },
    /// The whole content has not the digest it is named by.
    Poison {
        /// Which task.
        task: TaskId,
    },
    /// The peer has nothing more of this task and wants nothing.
    Leave {
        /// Which task.
        task: TaskId,
    },
    /// A request through this peer changed the content of a URL: all that is known of the URL is out of
    /// date (RFC 9111, 4.4).
    Changed {
        /// Any key of that URL.
        key: ResourceKey,
    },
    /// The answer to [`ToPeer::Measure`].
    RoundTrips {
        /// One for each peer that was named.
        round_trips: Vec<RoundTrip>,
    },
}

/// Where a peer gets a task's pieces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parents {
    /// Whom to ask first, one a stripe: piece `i` is of stripe `i mod len`. `None` where the peer
    /// is a root (it holds the source lease) or nobody has room.
    pub preferred: Vec<Option<PeerAddr>>,
    /// Others who have or will have pieces of it.
    pub others: Vec<PeerAddr>,
}

/// A task as a newcomer must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which task.
    pub task: TaskId,
    /// Its metadata.
    pub meta: ContentMeta,
    /// Digests vouched for so far.
    pub digests: Vec<(PieceIndex, PieceDigest)>,
    /// Where to get pieces.
    pub parents: Parents,
}

/// What a peer is told of who else has a piece that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// Nothing that its [`Turn`] does not say.
    #[default]
    Several,
    /// Nobody: this peer keeps it as long as it can.
    Sole,
    /// Another peer was told that it holds the last copy, and keeps that.
    Kept,
}

/// The supernode to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToPeer {
    /// The answer to [`FromPeer::Register`] where the content is known: at once, or as soon as
    /// who learns it has done so. Also the answer to [`FromPeer::Learned`], and,
    /// with [`Serial::NONE`], to [`FromPeer::Resume`].
    Known {
        /// What was asked for.
        key: ResourceKey,
        /// The request that it answers, and with it all that this peer made for the same resource before.
        serial: Serial,
        /// What stands behind it.
        known: Known,
    },
    /// The answer where nobody knows the content: this peer asks the origin for it, from the
    /// reader's first byte on, and says what it learned. It holds the source lease until then.
    Learn {
        /// What was asked for.
        key: ResourceKey,
        /// The request that led to this. [`FromPeer::Learned`] names it.
        serial: Serial,
        /// A content that may be what stands there: the one that was there before, or what another
        /// resource of the same origin has under the same name. The origin is asked whether it is.
        stale: Option<(TaskId, ContentMeta)>,
    },
    /// The answer where content is not shared: the reader's own request goes to the origin.
    Direct {
        /// What was asked for.
        key: ResourceKey,
        /// The request that it answers, and with it all that this peer made for the same resource before.
        serial: Serial,
    },
    /// The answer where the origin refused the peer that asked for all.
    Refused {
        /// What was asked for.
        key: ResourceKey,
        /// The request that it answers, and with it all that this peer made for the same resource before.
        serial: Serial,
        /// What the origin said.
        error: Error,
    },
    /// New parents; replaces what was said before.
    Parents {
        /// Of which task.
        task: TaskId,
        /// Who.
        parents: Parents,
    },
    /// The supernode vouches for these digests.
    Digests {
        /// Of which task.
        task: TaskId,
        /// Which.
        digests: Vec<(PieceIndex, PieceDigest)>,
    },
    /// The source lease for these pieces.
    Lease {
        /// Of which task.
        task: TaskId,
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
    },
    /// The source lease for these pieces is over.
    LeaseEnded {
        /// Of which task.
        task: TaskId,
        /// The first piece.
        first: PieceIndex,
        /// The piece after the last, or to the end.
        end: Option<PieceIndex>,
    },
    /// The content's length is known now.
    Ended {
        /// Of which task.
        task: TaskId,
        /// Bytes.
        length: u64,
    },
    /// The answer to [`FromPeer::AskLease`] where all of the content must come from one transfer and
    /// that is over: nobody has the piece, and nobody may bring it.
    Unobtainable {
        /// Of which task.
        task: TaskId,
        /// Which piece.
        piece: PieceIndex,
    },
    /// The supernode keeps no account of this task for this peer, which is a member of as many tasks
    /// as one peer may be: the peer goes on with it as without a supernode.
    Unlisted {
        /// Which task.
        task: TaskId,
    },
    /// The origin does not serve, or asks not to be asked for a while: whoever needs a piece that
    /// nobody has need not wait for it.
    OriginFailed {
        /// Of which task.
        task: TaskId,
        /// The error that the members who asked the origin met.
        error: Error,
    },
    /// The content is wrong: nobody may have it.
    Poisoned {
        /// Which task.
        task: TaskId,
    },
    /// The peer's place among those who keep the task's pieces; replaces what was said before.
    Turn {
        /// Of which task.
        task: TaskId,
        /// Its place.
        turn: Turn,
    },
    /// Who else has pieces that this peer holds.
    Copies {
        /// Of which task.
        task: TaskId,
        /// Which.
        pieces: Vec<PieceRun>,
        /// Who has them.
        copies: Copies,
    },
    /// The supernode does not know this peer's task: send [`FromPeer::Resume`].
    Unknown {
        /// Which task.
        task: TaskId,
    },
    /// A request through another peer changed the content of a URL: all that is known of the URL is out
    /// of date.
    Changed {
        /// Any key of that URL.
        key: ResourceKey,
    },
    /// Measure the round trips to these peers and answer with [`FromPeer::RoundTrips`].
    Measure {
        /// To whom.
        peers: Vec<PeerAddr>,
        /// Who is so near needs no second try, and no waiting for those further away.
        enough: Duration,
    },
}
