//! One request that this member has made to a parent, as a state: from the decision to ask to the verdict on
//! what came.
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
//! What ties brain, table, link and store together is written at the table of requests, which checks it.
//!
//! A transfer from the origin is no request: it goes over many pieces, what it brings needs no verdict, and
//! `driver/origin.rs` has it.

use std::sync::Arc;

use pantala_core::PieceIndex;
use pantala_store::{Arrival, PieceBuffer, PieceWriter, TaskPieces};
use pantala_window::ParentId;
use tokio::task::AbortHandle;

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
    AwaitingRoom(#[expect(dead_code, reason = "it is only dropped")] Option<Waiting>),
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
    pub(super) fn may_become(self, next: Stage) -> bool {
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
    /// The brain has decided to ask.
    pub fn new(piece: PieceIndex, parent: ParentId, urgency: u32, hedge: bool) -> Self {
        Self {
            piece,
            parent,
            urgency,
            hedge,
            state: State::AwaitingRoom(None),
        }
    }

    /// A task waits for memory, and is ended when the request is over.
    pub fn awaits_room(&mut self, waiting: AbortHandle) {
        debug_assert_eq!(self.stage(), Stage::AwaitingRoom);
        self.state = State::AwaitingRoom(Some(Waiting(waiting)));
    }

    /// It has been handed to its link.
    pub fn was_asked(&mut self, asked: Asked) {
        self.becomes(|_| State::Asked(asked));
    }

    /// The parent has too much to do.
    pub fn was_turned_away(&mut self) {
        self.becomes(|state| match state {
            State::Asked(asked) => State::TurnedAway(asked),
            other => other,
        });
    }

    /// All bytes are here.
    pub fn was_fetched(&mut self) {
        self.becomes(|state| match state {
            State::Asked(asked) => State::Fetched(asked),
            other => other,
        });
    }

    /// It gets its verdict, and is over: the bytes, and the parent if these are all its own.
    pub fn judged(self) -> Option<(Arc<PieceBuffer>, Option<ParentId>)> {
        let State::Fetched(Asked {
            buffer, goes_on, ..
        }) = self.state
        else {
            debug_assert!(false, "a verdict on what has not come");
            return None;
        };
        Some((buffer, (!goes_on).then_some(self.parent)))
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

    pub fn stage(&self) -> Stage {
        match &self.state {
            State::AwaitingRoom(_) => Stage::AwaitingRoom,
            State::Asked(asked) if asked.buffer.is_empty() => Stage::Asked,
            State::Asked(_) => Stage::Receiving,
            State::TurnedAway(_) => Stage::TurnedAway,
            State::Fetched(_) => Stage::Fetched,
        }
    }

    /// Whether its link has it.
    pub fn is_at_link(&self) -> bool {
        matches!(self.state, State::Asked(_))
    }

    /// Whether it may have bytes.
    pub fn has_buffer(&self) -> bool {
        self.asked().is_some()
    }

    /// Whether it has bytes.
    pub fn has_bytes(&self) -> bool {
        self.asked().is_some_and(|asked| !asked.buffer.is_empty())
    }

    /// Nobody wants it any more. What the link has read until now has been shown, or never will be.
    pub fn end_arrival(&self) {
        if let Some(asked) = self.asked() {
            asked.arrival.end();
        }
    }

    /// How many bytes it has, if there are more than when this was asked last.
    pub fn progress(&mut self) -> Option<u64> {
        let (State::Asked(asked) | State::TurnedAway(asked) | State::Fetched(asked)) =
            &mut self.state
        else {
            return None;
        };
        let bytes = asked.buffer.len() as u64;
        let more = bytes > asked.reported;
        asked.reported = bytes;
        more.then_some(bytes)
    }

    fn asked(&self) -> Option<&Asked> {
        match &self.state {
            State::AwaitingRoom(_) => None,
            State::Asked(asked) | State::TurnedAway(asked) | State::Fetched(asked) => Some(asked),
        }
    }

    /// Shows what its link has brought.
    #[cfg(test)]
    pub fn show_as_its_link_does(&self) {
        if let Some(asked) = self.asked() {
            asked.arrival.show(self.piece, &asked.buffer);
        }
    }
}
