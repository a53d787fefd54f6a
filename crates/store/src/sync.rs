//! The locks of this crate, with the order in which they may be taken.
//!
//! Each lock has a [`Rank`]. A thread that holds a lock may only take locks of higher ranks: debug
//! builds check that at each [`Mutex::lock`]. Code that takes locks of any rank, as an eviction does, says so with
//! [`assert_unlocked`]. With the feature `loom` the locks are loom's, so that its models see every order.
//!
//! This module must not know what is behind a lock.

use std::ops::{Deref, DerefMut};

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[cfg(feature = "loom")]
use loom::sync as imp;
#[cfg(not(feature = "loom"))]
use parking_lot as imp;

/// The place of a lock in the order. A higher one is taken later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The table of all tasks.
    Tasks,
    /// What one task has of its pieces.
    Pieces,
    /// Who waits for a task's bytes.
    Wakers,
    /// The order of eviction.
    Keep,
    /// Who waits for memory.
    Line,
    /// The memory that no piece uses.
    Slabs,
}

/// A mutex that knows its place in the order.
#[derive(Debug)]
pub(crate) struct Mutex<T> {
    rank: Rank,
    inner: imp::Mutex<T>,
}

/// The right to what is behind a [`Mutex`].
pub(crate) struct Guard<'a, T> {
    // Before the note that the lock is held: the lock is released first.
    inner: imp::MutexGuard<'a, T>,
    _held: held::Held,
}

impl<T> Mutex<T> {
    pub fn new(rank: Rank, value: T) -> Self {
        let inner = imp::Mutex::new(value);
        Self { rank, inner }
    }

    pub fn lock(&self) -> Guard<'_, T> {
        let _held = held::Held::new(self.rank);
        #[cfg(feature = "loom")]
        let inner = self.inner.lock().unwrap();
        #[cfg(not(feature = "loom"))]
        let inner = self.inner.lock();
        Guard { inner, _held }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// Checks in debug builds that this thread holds no lock of this crate: what follows takes some, in
/// an order of its own.
#[inline]
#[track_caller]
pub(crate) fn assert_unlocked() {
    held::assert_none();
}

/// The locks this thread holds. Under loom many of its threads share one of the system's, and loom
/// itself finds wrong orders; release builds trust the debug builds.
#[cfg(all(debug_assertions, not(feature = "loom")))]
mod held {
    use std::cell::RefCell;

    use super::Rank;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// One lock that this thread holds or is about to take.
    pub struct Held(Rank);

    impl Held {
        #[track_caller]
        pub fn new(rank: Rank) -> Self {
            HELD.with_borrow_mut(|held| {
                let last = held.iter().max();
                assert!(
                    last.is_none_or(|&last| last < rank),
                    "{rank:?} is locked while {held:?} are: a defect, it can deadlock"
                );
                held.push(rank);
            });
            Self(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.with_borrow_mut(|held| held.retain(|&rank| rank != self.0));
        }
    }

    #[track_caller]
    pub fn assert_none() {
        HELD.with_borrow(|held| {
            assert!(
                held.is_empty(),
                "memory is made room in while {held:?} are locked: a defect, it can deadlock"
            );
        });
    }
}

#[cfg(not(all(debug_assertions, not(feature = "loom"))))]
mod held {
    pub struct Held;

    impl Held {
        #[inline]
        pub fn new(_: super::Rank) -> Self {
            Self
        }
    }

    #[inline]
    pub fn assert_none() {}
}

#[cfg(all(test, debug_assertions, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_in_their_order() {
        let (low, high) = (Mutex::new(Rank::Tasks, 1), Mutex::new(Rank::Keep, 2));
        let (first, second) = (low.lock(), high.lock());
        assert_eq!((*first, *second), (1, 2));
        // They may be released in any order.
        drop((first, second));
        assert_unlocked();
    }

    #[test]
    #[should_panic(expected = "it can deadlock")]
    fn another_order_is_found_without_a_second_thread() {
        let (low, high) = (Mutex::new(Rank::Tasks, ()), Mutex::new(Rank::Keep, ()));
        let _second = high.lock();
        drop(low.lock());
    }

    #[test]
    #[should_panic(expected = "it can deadlock")]
    fn nothing_is_evicted_under_a_lock() {
        let lock = Mutex::new(Rank::Pieces, ());
        let _guard = lock.lock();
        assert_unlocked();
    }
}
