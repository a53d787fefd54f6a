//! The upload room: what this peer sends to its children.
//!
//! Participants: a child dials, is given a seat ([`accept`]) and is attended by one [`child::Child`] for as long as
//! the connection lives. What it asks for are [`requests`], each in one of few states; what can be done for them now
//! is decided in [`next`]; what it is told of the tasks that it follows are its [`news`]; and everything leaves by
//! [`outgoing`]. Children share the uplink by [`slots`] and by a [`Line`], in which the background stands back.
//!
//! Goals: pieces leave from memory without a copy, complete ones and those in flight block by block as they arrive;
//! what a reader waits for goes before what nobody waits for; a child that takes nothing costs others nothing.
//!
//! Non-goals: to fetch, to verify or to choose what to keep. Nothing here knows where bytes come from, and only
//! [`accept`] knows that they leave by a socket.

mod accept;
mod child;
mod news;
mod next;
mod outgoing;
mod requests;
mod slots;

use std::sync::Arc;

use pantala_core::PeerId;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{line::Line, metrics::Metrics, seats::Seats, task::Tasks};

pub(crate) use accept::CHILDREN;

/// Serves pieces to children: complete ones from memory, and those in flight block by block as
/// they arrive.
pub(crate) struct PeerServer {
    pub me: PeerId,
    pub tasks: Arc<Tasks>,
    pub metrics: Metrics,
    /// Transfers that use this peer's uplink at once.
    pub slots: Arc<Semaphore>,
    /// The same for the background: it must not be found in a slot that a reader waits for.
    pub background_slots: Arc<Semaphore>,
    /// Children that may be connected at once.
    pub children: Arc<Seats>,
    /// This peer's uplink: the background has it only when nobody else has bytes to be sent.
    pub line: Arc<Line>,
    pub tracker: TaskTracker,
    pub cancel: CancellationToken,
}

#[cfg(test)]
mod tests;
