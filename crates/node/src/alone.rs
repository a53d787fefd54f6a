//! How many responses there may be that are for one reader alone, and read ahead of it.
//!
//! What such a response has read ahead of its reader cannot be given to anybody else, and a reader that
//! stops reading keeps it. So all of them together have at most half of the memory; a reader that comes when
//! they have it waits. Shared content does not count here. An answer that is passed on does not wait: it has a place while
//! there is one and more than a little of it is here (`pantala_proxy`).
//!
//! A place is asked back from a reader that stands still only while another reader waits for whom none has
//! been asked back yet: no more readers are ended than others are served in their stead.
//!
//! This module must not know how long a reader stands still, nor how it is ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use pantala_store::Charge;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::run::ORIGIN_BUFFER;

/// The places for responses that are not shared.
pub(crate) struct Alone(Arc<Mutex<Table>>);

struct Table {
    free: usize,
    /// The readers that wait, by their tickets: the first is the one that has waited the longest. There is
    /// one for each open request at most.
    line: BTreeMap<u64, oneshot::Sender<Place>>,
    tickets: u64,
    /// The places that have been asked back and are not given back yet.
    asked_back: usize,
}

/// One of the places, and the memory for what is read ahead. Held by the response's body or by the bytes of it that are
/// on their way to its reader, until the last of them is dropped: that gives it to the first in the line.
#[derive(Clone)]
pub struct Place(Arc<Held>);

struct Held {
    table: Arc<Mutex<Table>>,
    /// It is counted among those that have been asked back. Read and written under the table's lock.
    asked_back: AtomicBool,
    memory: OnceLock<Charge>,
}

/// The way to ask the place back that a response has now, from its reader.
#[derive(Clone, Default)]
pub struct Claim(Arc<Mutex<Weak<Held>>>);

/// A reader's ticket in the line, returned also when the wait is broken off.
struct Ticket<'a> {
    table: &'a Mutex<Table>,
    number: u64,
}

impl Alone {
    pub fn new(memory: u64) -> Self {
        let places = usize::try_from(memory / 2 / ORIGIN_BUFFER).unwrap_or(usize::MAX);
        Self::with_places(places.max(1))
    }

    fn with_places(free: usize) -> Self {
        Self(Arc::new(Mutex::new(Table {
            free,
            line: BTreeMap::new(),
            tickets: 0,
            asked_back: 0,
        })))
    }

    /// A place when there is one.
    pub fn try_enter(&self) -> Option<Place> {
        let mut table = self.0.lock();
        table.free = table.free.checked_sub(1)?;
        Some(Place::new(&self.0))
    }

    /// A place, when its turn comes. Cancel-safe.
    pub async fn enter(&self) -> Place {
        // The ticket is returned before the channel is closed.
        let (mut place, _ticket) = {
            let mut table = self.0.lock();
            if let Some(left) = table.free.checked_sub(1) {
                table.free = left;
                return Place::new(&self.0);
            }
            let (give, place) = oneshot::channel();
            table.tickets += 1;
            let number = table.tickets;
            table.line.insert(number, give);
            let table = &*self.0;
            (place, Ticket { table, number })
        };
        match (&mut place).await {
            Ok(place) => place,
            Err(_) => unreachable!("a ticket leaves the line with a place or with its reader"),
        }
    }

    /// Whether there is no place.
    pub fn is_full(&self) -> bool {
        self.0.lock().free == 0
    }
}

impl Place {
    fn new(table: &Arc<Mutex<Table>>) -> Self {
        Self(Arc::new(Held {
            table: table.clone(),
            asked_back: AtomicBool::new(false),
            memory: OnceLock::new(),
        }))
    }

    /// The same place, with the memory that was charged for it.
    pub(crate) fn with(self, memory: Charge) -> Self {
        let _ = self.0.memory.set(memory);
        self
    }

    /// The way to ask for it back.
    pub(crate) fn claim(&self) -> Claim {
        let claim = Claim::default();
        claim.is_for(self);
        claim
    }
}

impl Claim {
    /// The response has this place now.
    pub fn is_for(&self, place: &Place) {
        *self.0.lock() = Arc::downgrade(&place.0);
    }

    /// The place that the response has still, if any.
    pub fn place(&self) -> Option<Place> {
        self.0.lock().upgrade().map(Place)
    }

    /// Whether the place has to be given back at once, for another reader that waits for one. `false` when it
    /// was given back before.
    pub fn takes_back(&self) -> bool {
        let Some(Place(held)) = self.place() else {
            return false;
        };
        let mut table = held.table.lock();
        if held.asked_back.load(Ordering::Relaxed) {
            return true;
        }
        let takes = table.line.len() > table.asked_back;
        if takes {
            table.asked_back += 1;
            held.asked_back.store(true, Ordering::Relaxed);
        }
        takes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let next = {
            let mut table = self.table.lock();
            if self.asked_back.load(Ordering::Relaxed) {
                table.asked_back -= 1;
            }
            let next = table.line.pop_first();
            table.free += usize::from(next.is_none());
            next
        };
        if let Some((_, give)) = next {
            // Where that reader has just gone the place comes back, and goes to the next one.
            drop(give.send(Place::new(&self.table)));
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.table.lock().line.remove(&self.number);
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claim")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_place_goes_to_whoever_waits_the_longest() {
        let alone = Alone::with_places(1);
        let held = alone.try_enter().unwrap();
        assert!(alone.is_full() && alone.try_enter().is_none());
        let mut first = Box::pin(alone.enter());
        let mut gone = Box::pin(alone.enter());
        let mut last = Box::pin(alone.enter());
        for waiting in [&mut first, &mut gone, &mut last] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(gone);
        drop(held);
        assert!(last.as_mut().now_or_never().is_none());
        let held = first.now_or_never().unwrap();
        drop(held);
        let held = last.now_or_never().unwrap();
        assert!(alone.is_full());
        drop(held);
        assert!(alone.try_enter().is_some());
    }

    #[test]
    fn a_place_is_held_by_whoever_has_it_last() {
        let alone = Alone::with_places(1);
        let body = alone.try_enter().unwrap();
        let claim = body.claim();
        let bytes = body.clone();
        drop(body);
        let again = claim.place().unwrap();
        drop(bytes);
        assert!(alone.is_full());
        drop(again);
        assert!(!alone.is_full() && claim.place().is_none() && !claim.takes_back());
    }

    #[test]
    fn a_reader_that_leaves_the_line_leaves_no_place_behind() {
        let alone = Alone::with_places(1);
        let held = alone.try_enter().unwrap();
        let mut served = Box::pin(alone.enter());
        let mut next = Box::pin(alone.enter());
        assert!(served.as_mut().now_or_never().is_none());
        assert!(next.as_mut().now_or_never().is_none());
        drop(held);
        // It was given the place and never took it.
        drop(served);
        drop(next.now_or_never().unwrap());
        assert!(!alone.is_full());
    }

    #[test]
    fn no_more_places_are_asked_back_than_readers_wait() {
        let alone = Alone::with_places(3);
        let mut places: Vec<Place> = (0..3).filter_map(|_| alone.try_enter()).collect();
        let claims: Vec<Claim> = places.iter().map(Place::claim).collect();
        let asked = || claims.iter().map(Claim::takes_back).collect::<Vec<_>>();
        assert_eq!(asked(), [false; 3]);

        let mut waiting = Box::pin(alone.enter());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(asked(), [true, false, false]);
        // Another one is given back meanwhile, and the one that waits has that.
        places.remove(1);
        let served = waiting.now_or_never().unwrap();
        assert_eq!(asked(), [true, false, false]);
        let mut waiting = Box::pin(alone.enter());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(
            asked(),
            [true, false, false],
            "the first is on its way still"
        );
        places.remove(0);
        assert!(waiting.now_or_never().is_some());
        assert_eq!(asked(), [false; 3], "nothing is left to be given back");
        drop(served);
    }
}
