//! The right to use this peer's uplink, which few transfers have at a time.
//!
//! Foreground and background have slots of their own. Beside a slot the background needs a line in which
//! no foreground stands: see [`Place`].

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

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
    /// Waits in line for a slot.
    pub async fn take(server: &PeerServer, background: bool) -> Self {
        let slots = if background {
            &server.background_slots
        } else {
            &server.slots
        };
        // The semaphore is fair: who waits longest comes next. It is never closed.
        let permit = slots.clone().acquire_owned().await.ok();
        let _level = server.metrics.upload();
        Self { permit, _level }
    }

    /// Gives the uplink to others and goes on at the child's own pace.
    pub fn lend(&mut self) {
        self.permit = None;
    }

    /// Whether the child is slower than this peer.
    pub fn is_own_pace(&self) -> bool {
        self.permit.is_none()
    }
}

/// A child's place in the line for the uplink, in which the background lets all others go first.
pub(super) struct Place {
    line: Arc<Line>,
    /// Made while a foreground request could use the uplink.
    claim: Option<LineClaim>,
    /// A background request could use the uplink if nobody else did.
    yields: bool,
}

impl Place {
    pub fn new(line: &Arc<Line>) -> Self {
        let line = line.clone();
        Self {
            line,
            claim: None,
            yields: false,
        }
    }

    pub fn line(&self) -> &Line {
        &self.line
    }

    /// A foreground request could use the uplink.
    pub fn claim(&mut self) {
        let line = &self.line;
        self.claim.get_or_insert_with(|| line.claim());
    }

    /// No foreground request of this child could use the uplink.
    pub fn leave(&mut self) {
        self.claim = None;
    }

    /// Whether a background request waits until nobody else needs the uplink.
    pub fn yields(&self) -> bool {
        self.yields
    }

    pub fn set_yields(&mut self, yields: bool) {
        self.yields = yields;
    }
}
