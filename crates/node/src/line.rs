//! Who goes first: what readers wait for, and what is only stocked up on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Something that foreground and background share. Whoever is of the background uses it only
/// while it is free.
#[derive(Debug, Default)]
pub(crate) struct Line {
    claims: AtomicUsize,
    yielding: AtomicUsize,
    /// Notified when it gets free, when it is so no more, and when that begins to matter.
    changed: Notify,
}

/// Foreground that uses it, or would if it could.
#[derive(Debug)]
pub(crate) struct LineClaim(Arc<Line>);

/// Background that looks whether it is free.
#[derive(Debug)]
pub(crate) struct Yielding(Arc<Line>);

impl Line {
    pub fn claim(self: &Arc<Self>) -> LineClaim {
        if self.claims.fetch_add(1, Ordering::SeqCst) == 0 {
            self.changed.notify_waiters();
        }
        LineClaim(self.clone())
    }

    pub fn yielding(self: &Arc<Self>) -> Yielding {
        if self.yielding.fetch_add(1, Ordering::SeqCst) == 0 {
            // Who makes claims only where they matter makes them now.
            self.changed.notify_waiters();
        }
        Yielding(self.clone())
    }

    pub fn is_free(&self) -> bool {
        self.claims.load(Ordering::SeqCst) == 0
    }

    /// Whether anybody yields: where nobody does, claims need not be made.
    pub fn matters(&self) -> bool {
        self.yielding.load(Ordering::SeqCst) > 0
    }

    /// Ends at the next change after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }
}

impl Drop for LineClaim {
    fn drop(&mut self) {
        if self.0.claims.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl Drop for Yielding {
    fn drop(&mut self) {
        self.0.yielding.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn it_is_free_when_the_last_claim_is_gone_and_says_so() {
        let line = Arc::new(Line::default());
        assert!(line.is_free());
        let mut taken = pin!(line.changed());
        let (first, second) = (line.claim(), line.claim());
        assert!(!line.is_free());
        assert!(taken.as_mut().now_or_never().is_some());
        let mut free = pin!(line.changed());
        drop(first);
        assert!(free.as_mut().now_or_never().is_none());
        drop(second);
        assert!(line.is_free());
        assert!(free.now_or_never().is_some());
    }

    #[test]
    fn it_matters_while_somebody_yields() {
        let line = Arc::new(Line::default());
        assert!(!line.matters());
        let yielding = line.yielding();
        assert!(line.matters());
        drop(yielding);
        assert!(!line.matters());
    }
}
