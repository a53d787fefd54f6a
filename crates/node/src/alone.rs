//! How many responses there may be that are for one reader alone.
//!
//! What such a response has read ahead of its reader cannot be given to anybody else, and a reader that
//! stops reading keeps it. So all of them together have at most half of the memory; who comes when they have
//! it waits. Shared content does not count here.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::run::ORIGIN_BUFFER;

/// The places for responses that are not shared.
pub(crate) struct Alone {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// One of them, held for as long as the response's body.
pub(crate) type Place = OwnedSemaphorePermit;

/// Counts who waits for a place, also when the wait is broken off.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Alone {
    pub fn new(memory: u64) -> Self {
        let places = usize::try_from(memory / 2 / ORIGIN_BUFFER).unwrap_or(usize::MAX);
        Self {
            places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
        }
    }

    /// A place when there is one.
    pub fn try_enter(&self) -> Option<Place> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// A place, when its turn comes. Cancel-safe.
    pub async fn enter(&self) -> Place {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        match self.places.clone().acquire_owned().await {
            Ok(place) => place,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Whether there is no place.
    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Whether somebody waits for one.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}
