//! What this member has asked its parents for: one table of requests, from the decision to ask to the
//! verdict on what came.
//!
//! # States
//! A request is in exactly one of these, and [`Stage::may_become`] has the only ways from one to another:
//!
//! | state | its brain has it as | its link has | the parent has | memory |
//! | --- | --- | --- | --- | --- |
//! | awaiting room | under way | nothing | nothing | none; a place in the budget's line |
//! | asked | under way | the writer, under a number | a request of that number, as soon as it has heard | a buffer |
//! | receiving | under way | as before | as before | the buffer, which children see |
//! | turned away | under way, until the next tick | nothing | nothing | the buffer |
//! | fetched | complete | nothing | nothing | the buffer, which children see |
//!
//! It is over with the verdict, when it fails, when the brain cancels it, or when its piece comes by another
//! way. Then it is nowhere, but that the link may not have heard yet: until then the link keeps the buffer
//! and shows nothing of it. What a broken transfer had brought is left for the next request.
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
use pantala_store::{Arrival, PieceBuffer, PieceWriter, Slot, TaskPieces};
use pantala_window::{AttemptId, Failure, ParentId, Picker};
use tokio::task::AbortHandle;

/// The requests of one task. There are as many as its brain decides on: two for each piece of a window at
/// most.
pub(super) struct Requests {
    pieces: Arc<TaskPieces>,
    open: HashMap<AttemptId, Request>,
    /// What broken transfers left of pieces that readers here still need.
    left: HashMap<PieceIndex, PieceWriter>,
}

/// One request.
pub(super) struct Request {
    pub piece: PieceIndex,
    pub parent: ParentId,
    /// How urgent the brain finds it.
    pub urgency: u32,
    /// Another parent was asked for the piece before.
    pub hedge: bool,
    state: State,
}

enum State {
    AwaitingRoom(Option<Waiting>),
    Asked(Asked),
    TurnedAway(Asked),
    Fetched(Asked),
}

/// What has been handed to a link.
pub(super) struct Asked {
    arrival: Arc<Arrival>,
    buffer: Arc<PieceBuffer>,
    /// It went on with what another transfer began: wrong bytes may be either's.
    goes_on: bool,
    /// Bytes that the brain knows of.
    reported: u64,
}

/// A place in the budget's line, given up when dropped.
struct Waiting(AbortHandle);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The state of a request, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    AwaitingRoom,
    Asked,
    /// As asked; its link has brought bytes.
    Receiving,
    TurnedAway,
    Fetched,
}

impl Stage {
    /// Whether a request in this state may come into that one. From each it may be over.
    fn may_become(self, next: Stage) -> bool {
        match self {
            Stage::AwaitingRoom => matches!(next, Stage::Asked | Stage::Receiving),
            Stage::Asked | Stage::Receiving => {
                matches!(next, Stage::TurnedAway | Stage::Fetched)
            }
            Stage::TurnedAway | Stage::Fetched => false,
        }
    }
}

impl Asked {
    /// A request is about to be handed to a link: with a buffer that may have the beginning of the piece.
    pub fn new(pieces: &Arc<TaskPieces>, writer: &PieceWriter) -> Self {
        Self {
            arrival: pieces.arrival(false),
            buffer: writer.buffer().clone(),
            goes_on: writer.position() > 0,
            reported: 0,
        }
    }

    pub fn arrival(&self) -> Arc<Arrival> {
        self.arrival.clone()
    }
}

impl Request {
    fn asked(&self) -> Option<&Asked> {
        match &self.state {
            State::AwaitingRoom(_) => None,
            State::Asked(asked) | State::TurnedAway(asked) | State::Fetched(asked) => Some(asked),
        }
    }

    pub fn stage(&self) -> Stage {
        match &self.state {
            State::AwaitingRoom(_) => Stage::AwaitingRoom,
            State::Asked(asked) if asked.buffer.is_empty() => Stage::Asked,
            State::Asked(_) => Stage::Receiving,
            State::TurnedAway(_) => Stage::TurnedAway,
            State::Fetched(_) => Stage::Fetched,
        }
    }

    /// The one place in which a request comes into another state.
    fn becomes(&mut self, make: impl FnOnce(State) -> State) {
        let before = self.stage();
        let state = std::mem::replace(&mut self.state, State::AwaitingRoom(None));
        self.state = make(state);
        debug_assert!(
            before.may_become(self.stage()),
            "{before:?} became {:?}",
            self.stage()
        );
    }
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
        open.filter(|(_, request)| matches!(request.state, State::Asked(_)))
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
        let request = Request {
            piece,
            parent,
            urgency,
            hedge,
            state: State::AwaitingRoom(None),
        };
        self.open.insert(attempt, request);
        (!hedge).then(|| self.left.remove(&piece)).flatten()
    }

    /// A request waits for memory, in a task that ends when the request is over.
    pub fn waits(&mut self, attempt: AttemptId, waiting: AbortHandle) {
        let waiting = Waiting(waiting);
        if let Some(request) = self.open.get_mut(&attempt) {
            debug_assert_eq!(request.stage(), Stage::AwaitingRoom);
            request.state = State::AwaitingRoom(Some(waiting));
        }
    }

    /// A request has been handed to its link.
    pub fn asked(&mut self, attempt: AttemptId, asked: Asked) {
        if let Some(request) = self.open.get_mut(&attempt) {
            request.becomes(|_| State::Asked(asked));
        }
    }

    /// The parent has too much to do. The brain hears of it later.
    pub fn turned_away(&mut self, attempt: AttemptId) {
        if let Some(request) = self.open.get_mut(&attempt) {
            request.becomes(|state| match state {
                State::Asked(asked) => State::TurnedAway(asked),
                other => other,
            });
        }
    }

    /// All bytes are here. `false` when nobody wants them any more.
    pub fn fetched(&mut self, attempt: AttemptId) -> bool {
        let Some(request) = self.open.get_mut(&attempt) else {
            return false;
        };
        request.becomes(|state| match state {
            State::Asked(asked) => State::Fetched(asked),
            other => other,
        });
        true
    }

    // ---- over ---------------------------------------------------------------------------------

    /// Which request is to be judged next: of those whose piece's digest is known the first one in the
    /// content.
    pub fn next_to_judge(&self, known: impl Fn(PieceIndex) -> bool) -> Option<AttemptId> {
        let fetched = self.open.iter().filter(|(_, request)| {
            matches!(request.state, State::Fetched(_)) && known(request.piece)
        });
        let first = fetched.min_by_key(|&(&attempt, request)| (request.piece, attempt));
        first.map(|(&attempt, _)| attempt)
    }

    /// A request gets its verdict: gives its piece, the bytes, and the parent if these are all its own.
    pub fn judged(
        &mut self,
        attempt: AttemptId,
    ) -> Option<(PieceIndex, Arc<PieceBuffer>, Option<ParentId>)> {
        let Request {
            piece,
            parent,
            state,
            ..
        } = self.open.remove(&attempt)?;
        let State::Fetched(Asked {
            buffer, goes_on, ..
        }) = state
        else {
            debug_assert!(false, "a verdict on what has not come");
            return None;
        };
        Some((piece, buffer, (!goes_on).then_some(parent)))
    }

    /// A piece is held. Requests for it that a link still has are cancelled by the brain, which knows who
    /// is late by that; no other may keep its buffer, because a piece that somebody uses cannot be evicted.
    pub fn sealed(&mut self, piece: PieceIndex) {
        self.left.remove(&piece);
        self.open.retain(|_, request| {
            request.piece != piece
                || matches!(request.state, State::Asked(_) | State::TurnedAway(_))
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
        let asked = request.asked()?;
        // What the link has read until now has been shown, or never will be.
        asked.arrival.end();
        self.forget_bytes(&request);
        matches!(request.state, State::Asked(_)).then_some(request.parent)
    }

    /// A parent has gone. What waits for memory to be asked of it will not be asked.
    pub fn parent_gone(&mut self, parent: ParentId) {
        self.open.retain(|_, request| {
            request.parent != parent || !matches!(request.state, State::AwaitingRoom(_))
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
        let came = request
            .asked()
            .is_some_and(|asked| !asked.buffer.is_empty());
        match came {
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
        open.any(|request| request.piece == piece && request.asked().is_some())
    }

    // ---- how far they are ---------------------------------------------------------------------

    /// What came since this was asked last: each request's bytes.
    pub fn progress(&mut self) -> Vec<(AttemptId, u64)> {
        let mut news = Vec::new();
        for (&attempt, request) in &mut self.open {
            let (State::Asked(asked) | State::TurnedAway(asked) | State::Fetched(asked)) =
                &mut request.state
            else {
                continue;
            };
            let bytes = asked.buffer.len() as u64;
            if bytes > asked.reported {
                asked.reported = bytes;
                news.push((attempt, bytes));
            }
        }
        news
    }

    /// Bytes there of pieces that are not complete, among them those that come from the origin. What is there
    /// of a piece that two are asked for counts once.
    pub fn in_flight(&self, from_origin: impl Iterator<Item = PieceIndex>) -> u64 {
        let open = self.open.values();
        let asked = open.filter(|request| request.asked().is_some());
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
