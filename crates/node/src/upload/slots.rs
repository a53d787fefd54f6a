//! The right to use this peer's uplink, which few transfers have at a time.
//!
//! Foreground and background have slots of their own. Beside a slot the background needs a line in which
//! no foreground stands: see [`Place`].

use std::{future::poll_fn, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use super::PeerServer;
use crate::{
    line::{Line, LineClaim},
    metrics::Level,
};

/// The right of one request to use the uplink.
pub(super) struct Slot {
    /// `None` when the child turned out to be slower than we are.
    permit: Option<OwnedSemaphorePermit>,
    _level: Level,
}

impl Slot {
    /// Gives the uplink to others and goes on at the child's own pace.
    pub fn lend(&mut self) {
        self.permit = None;
    }

    /// Whether the child is slower than this peer.
    pub fn is_own_pace(&self) -> bool {
        self.permit.is_none()
    }
}

/// A child's place among those that wait for a slot. The child goes on with everything else meanwhile.
#[derive(Default)]
pub(super) struct Queue(Option<Waiting>);

struct Waiting {
    background: bool,
    /// It is fair: who waits longest comes next. It is never closed.
    slots: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
}

impl Queue {
    /// A slot, if it is this child's turn; else it waits for one from now on.
    pub fn take(&mut self, server: &PeerServer, background: bool) -> Option<Slot> {
        let slots = if background {
            &server.background_slots
        } else {
            &server.slots
        };
        let permit = match self.0.take() {
            Some(mut waiting) if waiting.background == background => {
                let permit = waiting.permit.take();
                self.0 = permit.is_none().then_some(waiting);
                permit?
            }
            _ => self.join(slots, background)?,
        };
        let permit = Some(permit);
        let _level = server.metrics.upload();
        Some(Slot { permit, _level })
    }

    fn join(&mut self, slots: &Arc<Semaphore>, background: bool) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = slots.clone().try_acquire_owned() {
            return Some(permit);
        }
        self.0 = Some(Waiting {
            background,
            slots: PollSemaphore::new(slots.clone()),
            permit: None,
        });
        None
    }

    /// Ends when it is this child's turn; never, if it does not wait for one.
    pub async fn turn(&mut self) {
        let Some(waiting) = self.0.as_mut().filter(|waiting| waiting.permit.is_none()) else {
            return std::future::pending().await;
        };
        waiting.permit = poll_fn(|context| waiting.slots.poll_acquire(context)).await;
    }

    /// Nothing needs a slot.
    pub fn leave(&mut self) {
        self.0 = None;
    }
}
/// A child's place in the line for the uplink, in which the background lets all others go first.
pub(super) struct Place {
    line: Arc<Line>,
    /// Made while a foreground request could use the uplink.
    claim: Option<LineClaim>,
    /// Whether any could of those that have been looked at.
    claims: bool,
    /// Whether one of the background could if nobody else did.
    yields: bool,
}

impl Place {
    pub fn new(line: &Arc<Line>) -> Self {
        let line = line.clone();
        Self {
            line,
            claim: None,
            claims: false,
            yields: false,
        }
    }

    /// The child's requests are looked at anew, the foreground first.
    pub fn begin(&mut self) {
        self.claims = false;
        self.yields = false;
    }

    /// Whether a request may be sent of which bytes are here. One that goes at the child's own pace keeps nobody
    /// from the uplink.
    pub fn admits(&mut self, background: bool, own_pace: bool) -> bool {
        if background {
            if !self.claims {
                self.claim = None;
            }
            let free = !self.claims && self.line.is_free();
            self.yields |= !free;
            return free;
        }
        if !own_pace {
            self.claims = true;
            let line = &self.line;
            self.claim.get_or_insert_with(|| line.claim());
        }
        true
    }

    /// All requests have been looked at.
    pub fn end(&mut self) {
        if !self.claims {
            self.claim = None;
        }
    }

    /// The child is slower than this peer.
    pub fn leave(&mut self) {
        self.claim = None;
    }

    /// Whether background waits until nobody else needs the uplink.
    pub fn yields(&self) -> bool {
        self.yields
    }
}
