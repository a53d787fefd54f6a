use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock, Weak, atomic},
    task::{Context, Poll, Waker},
};

use crate::{
    slabs::Slabs,
    sync::{AtomicU64, Mutex, Ordering, Rank, assert_unlocked},
};

/// One hard cap on content bytes in memory, shared by pieces in flight, windows and cache.
///
/// When there is no room the caller asks the piece data cache to give something back, and then waits
/// in line. The line is first come, first served: a large request is not overtaken for ever by small
/// ones.
///
/// Only [`Budget::try_charge`] and [`Budget::charge`] evict: callers that hold none of the store's
/// locks. The end of a [`Charge`] can be anywhere, below any lock: it subtracts a number and wakes the
/// first in the line, which then looks for room in its own time.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    /// What each holder has of it. Only shown: nothing is decided by it, so no model needs to know.
    held: [atomic::AtomicU64; Holder::ALL.len()],
    line: Mutex<Line>,
    pressure: OnceLock<Weak<dyn Evict>>,
    slabs: Arc<Slabs>,
}

/// The part of the limit by which it may be exceeded by who lets go of more in the same moment.
const LOAN: u64 = 16;

/// What a charge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Pieces, held and on their way.
    Pieces,
    /// What transfers from origins read ahead.
    Origins,
    /// Copies of what clients that stand still have not taken.
    Copies,
    /// What clients' connections take by themselves.
    Connections,
}

impl Holder {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Pieces, Self::Origins, Self::Copies, Self::Connections];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pieces => "pieces",
            Self::Origins => "origins",
            Self::Copies => "copies",
            Self::Connections => "connections",
        }
    }
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

/// Those who wait for memory. The first one looks for it, the others wait to be the first.
#[derive(Debug, Default)]
struct Line {
    tickets: u64,
    waiting: VecDeque<(u64, Waker)>,
}

/// Bytes taken from the budget; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
    holder: Holder,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            held: Default::default(),
            line: Mutex::new(Rank::Line, Line::default()),
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

    /// Bytes charged now for one holder.
    pub fn used_by(&self, holder: Holder) -> u64 {
        self.held[holder as usize].load(atomic::Ordering::Relaxed)
    }

    /// The most bytes that were ever charged at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// How many callers wait for room.
    pub fn waiting(&self) -> usize {
        self.line.lock().waiting.len()
    }

    /// Takes `bytes` at once, evicting for it when needed; `None` when there is no room or others
    /// wait already. Not to be called while a lock of the store is held.
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
        let charging = Charging {
            budget: self.clone(),
            bytes,
            ticket: None,
        };
        charging.await
    }

    /// Has the first in the line look for room again: something may have become evictable. May be
    /// called below any lock; the end of a charge calls it too.
    pub fn nudge(&self) {
        // The lock orders it with whoever comes into the line: either that one is seen here, or it
        // sees what was freed.
        let first = self.line.lock().first();
        if let Some(first) = first {
            first.wake();
        }
    }

    /// Takes `bytes` ahead of those who wait, evicting for it when needed, for who is about to let go of
    /// more than that. So that it is not refused when everything is in the hands of such holders, it may
    /// exceed the limit by a sixteenth for that moment.
    pub fn charge_ahead(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let charge = self.charge_or_evict(bytes);
        charge.or_else(|| {
            let limit = self.limit.saturating_add(self.limit / LOAN);
            let lent = self.take(bytes, limit);
            lent.then(|| self.charged(bytes))
        })
    }

    fn charged(self: &Arc<Self>, bytes: u64) -> Charge {
        let (budget, holder) = (self.clone(), Holder::Pieces);
        self.held[holder as usize].fetch_add(bytes, atomic::Ordering::Relaxed);
        Charge {
            budget,
            bytes,
            holder,
        }
    }

    fn charge_or_evict(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        assert_unlocked();
        loop {
            if self.take(bytes, self.limit) {
                return Some(self.charged(bytes));
            }
            if bytes > self.limit || !self.pressure.get()?.upgrade()?.evict_one() {
                return None;
            }
        }
    }

    fn take(&self, bytes: u64, limit: u64) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= limit)
            });
        if let Ok(before) = taken {
            self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

impl Line {
    fn first(&self) -> Option<Waker> {
        self.waiting.front().map(|(_, waker)| waker.clone())
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|&(other, _)| other != ticket);
    }
}

/// A place in the line.
struct Charging {
    budget: Arc<Budget>,
    bytes: u64,
    /// `None` before it is in the line and after it has left it.
    ticket: Option<u64>,
}

impl Charging {
    /// Stands in line, with this waker; `true` when it is the first.
    fn stand(&mut self, waker: &Waker) -> bool {
        let mut line = self.budget.line.lock();
        let ticket = match self.ticket {
            Some(ticket) => ticket,
            None => {
                line.tickets += 1;
                let ticket = line.tickets;
                line.waiting.push_back((ticket, waker.clone()));
                self.ticket = Some(ticket);
                return line.waiting.len() == 1;
            }
        };
        if let Some((_, old)) = line.waiting.iter_mut().find(|(other, _)| *other == ticket) {
            old.clone_from(waker);
        }
        line.waiting
            .front()
            .is_some_and(|&(first, _)| first == ticket)
    }

    /// Leaves the line; who is the first now looks for room.
    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.budget.line.lock().leave(ticket);
            self.budget.nudge();
        }
    }
}

impl Future for Charging {
    type Output = Charge;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Charge> {
        let this = &mut *self;
        if this.ticket.is_none()
            && let Some(charge) = this.budget.try_charge(this.bytes)
        {
            return Poll::Ready(charge);
        }
        // First the place, then the look: what is freed in between wakes it.
        if this.stand(context.waker())
            && let Some(charge) = this.budget.charge_or_evict(this.bytes)
        {
            this.leave();
            return Poll::Ready(charge);
        }
        Poll::Pending
    }
}

impl Drop for Charging {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Charge {
    /// The same bytes, for another holder than pieces.
    pub fn held_by(mut self, holder: Holder) -> Self {
        let held = &self.budget.held;
        held[self.holder as usize].fetch_sub(self.bytes, atomic::Ordering::Relaxed);
        held[holder as usize].fetch_add(self.bytes, atomic::Ordering::Relaxed);
        self.holder = holder;
        self
    }

    /// How many bytes it stands for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where its memory comes from.
    pub(crate) fn slabs(&self) -> &Arc<Slabs> {
        &self.budget.slabs
    }

    /// What it is taken from.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let held = &self.budget.held[self.holder as usize];
        held.fetch_sub(self.bytes, atomic::Ordering::Relaxed);
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        // No more than that: whoever drops it may hold any lock.
        self.budget.nudge();
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

    #[test]
    fn it_is_known_who_holds_what() {
        let budget = Budget::new(100);
        let piece = budget.try_charge(60).unwrap();
        let copy = budget.charge_ahead(30).unwrap().held_by(Holder::Copies);
        let held = || Holder::ALL.map(|holder| budget.used_by(holder));
        assert_eq!(held(), [60, 0, 30, 0]);
        drop(piece);
        assert_eq!(held(), [0, 0, 30, 0]);
        drop(copy);
        assert_eq!((held(), budget.used()), ([0; 4], 0));
    }

    #[tokio::test]
    async fn who_lets_go_of_more_is_lent_a_little() {
        let budget = Budget::new(160);
        let all = budget.try_charge(160).unwrap();
        let mut waiting = Box::pin(budget.charge(150));
        assert!(futures_pending(&mut waiting).await);
        let lent = budget.charge_ahead(6).unwrap();
        let more = budget.charge_ahead(4).unwrap();
        assert!(budget.charge_ahead(1).is_none(), "one part in sixteen");
        drop(all);
        let charge = waiting.await;
        assert_eq!((charge.bytes(), budget.used()), (150, 160));
        drop((lent, more));
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
