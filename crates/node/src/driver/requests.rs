//! What this member has asked its parents for: one table of requests (`driver/request.rs` has their states),
//! and what broken transfers left for the next ones.
//!
//! # Invariants, checked in debug builds ([`Requests::check`])
//! 1. The brain and this table know of the same requests: for the same piece, of the same parent, and fetched
//!    here if and only if they are complete there.
//! 2. Only a request whose parent has gone is here and not in the brain: the link's last word is on its way.
//! 3. Unverified bytes of a piece are shown only while a request for it has bytes, or some are left of it.
//!
//! Nothing here asks anybody or decides anything: the driver does what the brain has decided, and says here
//! what came of it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use pantala_core::PieceIndex;
use pantala_store::{PieceBuffer, PieceWriter, Slot, TaskPieces};
use pantala_window::{AttemptId, Failure, ParentId, Picker};
use tokio::task::AbortHandle;

use super::request::{Asked, Request, Stage};

/// The requests of one task. There are as many as its brain decides on: two for each piece of a window at
/// most.
pub(super) struct Requests {
    pieces: Arc<TaskPieces>,
    open: HashMap<AttemptId, Request>,
    /// What broken transfers left of pieces that readers here still need.
    left: HashMap<PieceIndex, PieceWriter>,
}

impl Requests {
    pub fn new(pieces: Arc<TaskPieces>) -> Self {
        Self {
            pieces,
            open: HashMap::new(),
            left: HashMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn get(&self, attempt: AttemptId) -> Option<&Request> {
        self.open.get(&attempt)
    }

    /// Whether anything is asked of a parent.
    pub fn of_parent(&self, parent: ParentId) -> bool {
        self.open.values().any(|request| request.parent == parent)
    }

    /// The requests that links have.
    pub fn at_links(&self) -> impl Iterator<Item = (AttemptId, &Request)> {
        let open = self
            .open
            .iter()
            .map(|(&attempt, request)| (attempt, request));
        open.filter(|(_, request)| request.is_at_link())
    }

    // ---- from one state to the next -----------------------------------------------------------

    /// The brain has decided to ask. Gives what an earlier request left of the piece, if this one is to go
    /// on with it: then there is room for it.
    pub fn decided(
        &mut self,
        attempt: AttemptId,
        piece: PieceIndex,
        parent: ParentId,
        urgency: u32,
        hedge: bool,
    ) -> Option<PieceWriter> {
        let request = Request::new(piece, parent, urgency, hedge);
        self.open.insert(attempt, request);
        (!hedge).then(|| self.left.remove(&piece)).flatten()
    }

    /// A request waits for memory, in a task that ends when the request is over.
    pub fn waits(&mut self, attempt: AttemptId, waiting: AbortHandle) {
        if let Some(request) = self.open.get_mut(&attempt) {
            request.awaits_room(waiting);
        }
    }

    /// A request has been handed to its link.
    pub fn asked(&mut self, attempt: AttemptId, asked: Asked) {
        if let Some(request) = self.open.get_mut(&attempt) {
            request.was_asked(asked);
        }
    }

    /// The parent has too much to do. The brain hears of it later.
    pub fn turned_away(&mut self, attempt: AttemptId) {
        if let Some(request) = self.open.get_mut(&attempt) {
            request.was_turned_away();
        }
    }

    /// All bytes are here. `false` when nobody wants them any more.
    pub fn fetched(&mut self, attempt: AttemptId) -> bool {
        let request = self.open.get_mut(&attempt);
        request.map(Request::was_fetched).is_some()
    }

    // ---- over ---------------------------------------------------------------------------------

    /// Which request is to be judged next: of those whose piece's digest is known the first one in the
    /// content.
    pub fn next_to_judge(&self, known: impl Fn(PieceIndex) -> bool) -> Option<AttemptId> {
        let fetched = self
            .open
            .iter()
            .filter(|(_, request)| request.stage() == Stage::Fetched && known(request.piece));
        let first = fetched.min_by_key(|&(&attempt, request)| (request.piece, attempt));
        first.map(|(&attempt, _)| attempt)
    }

    /// A request gets its verdict: gives its piece, the bytes, and the parent if these are all its own.
    pub fn judged(
        &mut self,
        attempt: AttemptId,
    ) -> Option<(PieceIndex, Arc<PieceBuffer>, Option<ParentId>)> {
        let request = self.open.remove(&attempt)?;
        let piece = request.piece;
        let (buffer, parent) = request.judged()?;
        Some((piece, buffer, parent))
    }

    /// A piece is held. Requests for it that a link still has are cancelled by the brain, which knows who
    /// is late by that; no other may keep its buffer, because a piece that somebody uses cannot be evicted.
    pub fn sealed(&mut self, piece: PieceIndex) {
        self.left.remove(&piece);
        self.open.retain(|_, request| {
            let late = request.is_at_link() || request.stage() == Stage::TurnedAway;
            request.piece != piece || late
        });
    }

    /// A request failed; `writer` has what came of the piece. Of a broken transfer that is as good as any,
    /// and is left for the next one; of a refused one it may be wrong.
    pub fn failed(&mut self, attempt: AttemptId, failure: Failure, writer: Option<PieceWriter>) {
        let Some(request) = self.open.remove(&attempt) else {
            return;
        };
        let piece = request.piece;
        match writer.filter(|writer| writer.position() > 0) {
            Some(writer) if failure == Failure::Gone => self.leave(piece, writer),
            Some(_) => self.give_up(piece),
            None => self.release(piece),
        }
    }

    /// Requests that were turned away are over. Gives their names, which the brain is to hear.
    pub fn end_turned_away(&mut self) -> Vec<AttemptId> {
        let open = self.open.iter();
        let turned = open.filter(|(_, request)| request.stage() == Stage::TurnedAway);
        let turned: Vec<AttemptId> = turned.map(|(&attempt, _)| attempt).collect();
        for attempt in &turned {
            let Some(request) = self.open.remove(attempt) else {
                continue;
            };
            self.forget_bytes(&request);
        }
        turned
    }

    /// The brain has given a request up. Gives its parent if a link has it.
    pub fn cancelled(&mut self, attempt: AttemptId) -> Option<ParentId> {
        let request = self.open.remove(&attempt)?;
        request.end_arrival();
        self.forget_bytes(&request);
        request.is_at_link().then_some(request.parent)
    }

    /// A parent has gone. What waits for memory to be asked of it will not be asked.
    pub fn parent_gone(&mut self, parent: ParentId) {
        self.open.retain(|_, request| {
            request.parent != parent || request.stage() != Stage::AwaitingRoom
        });
    }

    /// Readers need nothing but pieces that `needed` says yes to: nothing is left of others.
    pub fn keep_left(&mut self, needed: impl Fn(PieceIndex) -> bool) {
        let unneeded = self.left.keys().copied().filter(|&piece| !needed(piece));
        for piece in unneeded.collect::<Vec<_>>() {
            self.left.remove(&piece);
            self.release(piece);
        }
    }

    /// A request is over, and what came of it is not gone on with.
    fn forget_bytes(&mut self, request: &Request) {
        match request.has_bytes() {
            true => self.give_up(request.piece),
            false => self.release(request.piece),
        }
    }

    fn leave(&mut self, piece: PieceIndex, writer: PieceWriter) {
        // Another way has brought it meanwhile.
        if !matches!(self.pieces.slot(piece), Slot::Held(_)) {
            self.left.insert(piece, writer);
        }
    }

    /// What came of a piece is not gone on with, unless another request is for the same one.
    fn give_up(&mut self, piece: PieceIndex) {
        if !self.is_coming(piece) {
            self.left.remove(&piece);
        }
        self.release(piece);
    }

    /// Children see nothing of a piece that no request brings and of which nothing is left.
    fn release(&self, piece: PieceIndex) {
        if !self.is_coming(piece)
            && !self.left.contains_key(&piece)
            && matches!(
                self.pieces.slot(piece),
                Slot::Filling { trusted: false, .. }
            )
        {
            self.pieces.abandon(piece);
        }
    }

    /// Whether a request may have bytes of the piece.
    fn is_coming(&self, piece: PieceIndex) -> bool {
        let mut open = self.open.values();
        open.any(|request| request.piece == piece && request.has_buffer())
    }

    // ---- how far they are ---------------------------------------------------------------------

    /// What came since this was asked last: each request's bytes.
    pub fn progress(&mut self) -> Vec<(AttemptId, u64)> {
        let open = self.open.iter_mut();
        let news = open.filter_map(|(&attempt, request)| Some((attempt, request.progress()?)));
        news.collect()
    }

    /// Bytes there of pieces that are not complete, among them those that come from the origin. What is there
    /// of a piece that two are asked for counts once.
    pub fn in_flight(&self, from_origin: impl Iterator<Item = PieceIndex>) -> u64 {
        let open = self.open.values();
        let asked = open.filter(|request| request.has_buffer());
        let asked = asked.map(|request| request.piece);
        let coming: BTreeSet<PieceIndex> = asked.chain(from_origin).collect();
        let bytes = |piece| match self.pieces.slot(piece) {
            Slot::Filling { buffer, .. } => buffer.len() as u64,
            Slot::Missing | Slot::Held(_) => 0,
        };
        coming.into_iter().map(bytes).sum()
    }

    /// Whether brain, table and store agree; see the module's invariants.
    pub fn check(&self, brain: &Picker, is_up: impl Fn(ParentId) -> bool) -> bool {
        let mut known = HashSet::new();
        for decided in brain.requests() {
            let Some(request) = self.open.get(&decided.attempt) else {
                debug_assert!(false, "only the brain knows of {decided:?}");
                return false;
            };
            let fetched = request.stage() == Stage::Fetched;
            let here = (request.piece, request.parent, fetched);
            debug_assert_eq!(here, (decided.piece, decided.parent, decided.complete));
            known.insert(decided.attempt);
        }
        for (attempt, request) in &self.open {
            debug_assert!(
                known.contains(attempt) || !is_up(request.parent),
                "the brain has forgotten {attempt:?}, {:?}",
                request.stage()
            );
        }
        let shown = self.pieces.unverified();
        let unowned = shown
            .iter()
            .find(|&piece| !self.is_coming(piece) && !self.left.contains_key(&piece));
        debug_assert_eq!(unowned, None, "bytes are shown that nobody brings");
        true
    }
}
