use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::slabs::Slabs;

/// One hard cap on content bytes in memory, shared by pieces in flight, windows and cache.
///
/// When there is no room the budget first asks whoever registered with [`Budget::on_pressure`] to
/// give something back (the piece data cache does), then makes the caller wait in line. The line
/// is first come, first served: a large request is not overtaken for ever by small ones.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    line: Mutex<VecDeque<Waiting>>,
    pressure: OnceLock<Weak<dyn Evict>>,
    slabs: Arc<Slabs>,
}

/// What can give memory back: the piece data cache.
pub(crate) trait Evict: Send + Sync {
    /// Lets go of one piece that nobody needs; `false` when there is none. What was let go may
    /// still be held by an upload, so that the memory comes back later.
    fn evict_one(&self) -> bool;
}

impl std::fmt::Debug for dyn Evict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Evict")
    }
}

#[derive(Debug)]
struct Waiting {
    bytes: u64,
    grant: oneshot::Sender<Charge>,
}

/// Bytes taken from the budget; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            line: Mutex::new(VecDeque::new()),
            pressure: OnceLock::new(),
            slabs: Arc::default(),
        })
    }

    pub(crate) fn on_pressure(&self, evict: Weak<dyn Evict>) {
        // A second store on the same budget would be a defect; the first one stays.
        let _ = self.pressure.set(evict);
    }

    /// The cap in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes charged now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were ever charged at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// How many callers wait for room.
    pub fn waiting(&self) -> usize {
        self.line.lock().len()
    }

    /// Takes `bytes` at once, evicting for it when needed; `None` when there is no room or others
    /// wait already.
    pub fn try_charge(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        if self.waiting() > 0 {
            return None;
        }
        self.charge_or_evict(bytes)
    }

    /// Takes `bytes`, waiting in line for room. Cancel-safe: dropping the future leaves the line.
    ///
    /// More than the whole budget is never granted: the future then never ends, so callers check
    /// their sizes against [`Budget::limit`] first.
    pub async fn charge(self: &Arc<Self>, bytes: u64) -> Charge {
        loop {
            let granted = {
                let mut line = self.line.lock();
                if line.is_empty() {
                    // Evicting takes the store's locks and may give charges back, which looks at
                    // the line: not while it is locked.
                    drop(line);
                    if let Some(charge) = self.charge_or_evict(bytes) {
                        return charge;
                    }
                    line = self.line.lock();
                }
                let (grant, granted) = oneshot::channel();
                line.push_back(Waiting { bytes, grant });
                granted
            };
            // What was freed between the attempt and the queueing must not be missed.
            self.serve_line();
            if let Ok(charge) = granted.await {
                return charge;
            }
        }
    }

    /// Hands free or evictable memory to who waits. Called whenever something may have become
    /// evictable; giving a charge back calls it too.
    pub fn serve_line(self: &Arc<Self>) {
        loop {
            let Some(bytes) = self.line.lock().front().map(|first| first.bytes) else {
                return;
            };
            let Some(charge) = self.charge_or_evict(bytes) else {
                return;
            };
            let first = {
                let mut line = self.line.lock();
                // Somebody else may have served the first in the meantime.
                match line.front() {
                    Some(first) if first.bytes == bytes => line.pop_front(),
                    _ => None,
                }
            };
            match first {
                // A waiter that went away gives the charge back, and the loop goes on.
                Some(waiting) => drop(waiting.grant.send(charge)),
                None => drop(charge),
            }
        }
    }

    fn charge_or_evict(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        loop {
            if self.take(bytes) {
                return Some(Charge {
                    budget: self.clone(),
                    bytes,
                });
            }
            if bytes > self.limit || !self.pressure.get()?.upgrade()?.evict_one() {
                return None;
            }
        }
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.limit)
            });
        if let Ok(before) = taken {
            self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

impl Charge {
    /// How many bytes it stands for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where its memory comes from.
    pub(crate) fn slabs(&self) -> &Arc<Slabs> {
        &self.budget.slabs
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.serve_line();
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_limit() {
        let budget = Budget::new(100);
        let a = budget.try_charge(60).unwrap();
        assert!(budget.try_charge(41).is_none());
        let b = budget.try_charge(40).unwrap();
        assert_eq!((budget.used(), a.bytes(), b.bytes()), (100, 60, 40));
        drop((a, b));
        assert_eq!((budget.used(), budget.peak()), (0, 100));
    }

    #[tokio::test]
    async fn who_waits_is_served_in_order() {
        let budget = Budget::new(100);
        let all = budget.try_charge(100).unwrap();
        let mut big = Box::pin(budget.charge(90));
        let mut small = Box::pin(budget.charge(20));
        assert!(futures_pending(&mut big).await);
        assert!(futures_pending(&mut small).await);
        drop(all);
        // 20 would have fitted beside 60, but 90 came first.
        let big = big.await;
        assert!(futures_pending(&mut small).await);
        drop(big);
        assert_eq!(small.await.bytes(), 20);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_takes_nothing() {
        let budget = Budget::new(10);
        let all = budget.try_charge(10).unwrap();
        let mut gone = Box::pin(budget.charge(10));
        assert!(futures_pending(&mut gone).await);
        drop(gone);
        drop(all);
        assert_eq!(budget.used(), 0);
        assert!(budget.try_charge(10).is_some());
    }

    async fn futures_pending<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
        tokio::select! { biased; _ = future => false, () = std::future::ready(()) => true }
    }
}
