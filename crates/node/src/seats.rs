//! Places for connections, and who makes room when there are too many.
//!
//! A full table turns nobody away while a connection without a request is left: the one that was so the
//! longest makes room. Beyond the limit there may be a few more, for what must always be answered; of
//! those as well the oldest one without a request makes room.
//!
//! This module must not know what requests are about.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Connections that may be about to make room while others have theirs already.
const LEAVING: usize = 64;
/// The part of all connections that one address may have which is not this host's.
const ONE_ADDRESS: usize = 4;

/// The places there are.
pub struct Seats {
    limit: usize,
    beyond: usize,
    table: Mutex<Table>,
    /// How many were turned away for whom a connection that stands still may be ended.
    turned_away: AtomicUsize,
}

#[derive(Default)]
struct Table {
    /// Those that may ask for anything, and those beyond the limit.
    open: [usize; 2],
    by_address: HashMap<IpAddr, usize>,
    /// Those without a request, the oldest first, of each kind.
    idle: [BTreeMap<u64, Arc<Place>>; 2],
    clock: u64,
}

/// A connection's place in the table.
struct Place {
    addr: IpAddr,
    /// Index into the table's pairs: 1 beyond the limit.
    kind: usize,
    close: CancellationToken,
    /// It belongs to a tunnel now: it is never without a request again.
    engaged: AtomicBool,
    /// It has had a request.
    used: AtomicBool,
}

/// A connection that is counted until this is dropped.
pub struct Seat {
    seats: Arc<Seats>,
    place: Arc<Place>,
    /// When it was without a request last; `None` while it has one.
    idle_since: Mutex<Option<u64>>,
}

/// A request, or its answer, is under way on a connection.
pub struct InUse(Arc<Seat>);

impl Seats {
    /// So many, and so many more beyond them.
    pub fn new(limit: usize, beyond: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            beyond,
            table: Mutex::default(),
            turned_away: AtomicUsize::new(0),
        })
    }

    /// A seat for a new connection; `None` when there is none left beyond the limit either.
    pub fn admit(self: &Arc<Self>, addr: IpAddr) -> Option<Arc<Seat>> {
        self.admit_as(addr, false)
    }

    /// A seat beyond the limit, for a connection for which there is no room but for what must always be
    /// answered.
    pub fn admit_beyond(self: &Arc<Self>, addr: IpAddr) -> Option<Arc<Seat>> {
        self.admit_as(addr, true)
    }

    fn admit_as(self: &Arc<Self>, addr: IpAddr, beyond: bool) -> Option<Arc<Seat>> {
        let addr = addr.to_canonical();
        let mut table = self.table.lock();
        let of_address = table.by_address.get(&addr).copied().unwrap_or(0);
        let crowd = !addr.is_loopback() && of_address >= (self.limit / ONE_ADDRESS).max(1);
        let kind = if crowd || beyond {
            1
        } else if table.open[0] < self.limit {
            self.turned_away.store(0, Ordering::Relaxed);
            0
        } else if table.open[0] < self.limit + LEAVING && table.make_room(0) {
            0
        } else {
            1
        };
        if kind == 1 && table.open[1] >= self.beyond {
            let most = self.beyond + LEAVING;
            if self.beyond == 0 || table.open[1] >= most || !table.make_room(1) {
                return None;
            }
        }
        table.open[kind] += 1;
        *table.by_address.entry(addr).or_default() += 1;
        let place = Arc::new(Place {
            addr,
            kind,
            close: CancellationToken::new(),
            engaged: AtomicBool::new(false),
            used: AtomicBool::new(false),
        });
        let since = table.idles(&place);
        drop(table);
        Some(Arc::new(Seat {
            seats: self.clone(),
            place,
            idle_since: Mutex::new(Some(since)),
        }))
    }

    /// How many connections there are, those beyond the limit included.
    pub fn open(&self) -> usize {
        self.table.lock().open.iter().sum()
    }

    /// Somebody could not be served for want of a place: a connection that stands still may be ended
    /// instead.
    pub fn turn_away(&self) {
        let limit = self.limit;
        let more = |count: usize| Some((count + 1).min(limit));
        let _ = self
            .turned_away
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether a connection that stands still has to make room for one that was turned away.
    pub fn takes_back(&self) -> bool {
        let less = |count: usize| count.checked_sub(1);
        self.turned_away
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

impl std::fmt::Debug for Seats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seats")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat")
            .field("addr", &self.place.addr)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InUse")
    }
}

impl Table {
    fn idles(&mut self, place: &Arc<Place>) -> u64 {
        self.clock += 1;
        self.idle[place.kind].insert(self.clock, place.clone());
        self.clock
    }

    /// Has the connection closed that was without a request the longest, if there is one.
    fn make_room(&mut self, kind: usize) -> bool {
        let oldest = self.idle[kind].pop_first();
        oldest.is_some_and(|(_, place)| {
            place.close.cancel();
            true
        })
    }
}

impl Seat {
    /// A request has come. What is made of it keeps this until the answer was handed over.
    pub fn begin(self: &Arc<Self>) -> InUse {
        if let Some(since) = self.idle_since.lock().take() {
            let mut table = self.seats.table.lock();
            table.idle[self.place.kind].remove(&since);
        }
        self.place.used.store(true, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// From now on it is always in use.
    pub fn engage(&self) {
        self.place.engaged.store(true, Ordering::Relaxed);
    }

    /// Whether it has no request.
    pub fn is_idle(&self) -> bool {
        self.idle_since.lock().is_some()
    }

    /// Whether it has ever had a request: the end of the last answer may be on its way still.
    pub fn was_used(&self) -> bool {
        self.place.used.load(Ordering::Relaxed)
    }

    /// Whether it is beyond the limit: only for what must always be answered.
    pub fn is_beyond(&self) -> bool {
        self.place.kind == 1
    }

    /// Whether it has to make room as soon as it is idle.
    pub fn has_to_close(&self) -> bool {
        self.place.close.is_cancelled()
    }

    /// Ends when it has to make room, if it is idle still.
    pub fn closing(&self) -> impl Future<Output = ()> + '_ {
        self.place.close.cancelled()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let seat = &self.0;
        if seat.place.engaged.load(Ordering::Relaxed) {
            return;
        }
        let mut idle_since = seat.idle_since.lock();
        if idle_since.is_none() {
            *idle_since = Some(seat.seats.table.lock().idles(&seat.place));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.table.lock();
        if let Some(since) = self.idle_since.get_mut().take() {
            table.idle[self.place.kind].remove(&since);
        }
        table.open[self.place.kind] -= 1;
        if let Some(count) = table.by_address.get_mut(&self.place.addr) {
            *count -= 1;
            if *count == 0 {
                table.by_address.remove(&self.place.addr);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt as _;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn there(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    fn is_closing(seat: &Seat) -> bool {
        seat.closing().now_or_never().is_some()
    }

    #[test]
    fn the_one_without_a_request_for_the_longest_makes_room() {
        let seats = Seats::new(3, 4);
        let three: Vec<_> = (0..3).filter_map(|_| seats.admit(HERE)).collect();
        let busy = three[0].begin();
        drop(three[1].begin());
        let fourth = seats.admit(HERE).unwrap();
        assert!(!fourth.is_beyond());
        let closing: Vec<bool> = three.iter().map(|seat| is_closing(seat)).collect();
        assert_eq!(closing, [false, false, true]);
        drop(busy);
    }

    #[test]
    fn some_are_served_when_all_are_busy() {
        let seats = Seats::new(2, 4);
        let busy: Vec<_> = (0..2).map(|_| seats.admit(HERE).unwrap().begin()).collect();
        let silent: Vec<_> = (0..4).map(|_| seats.admit(HERE).unwrap()).collect();
        assert!(silent.iter().all(|seat| seat.is_beyond()));
        let operator = seats.admit(HERE).unwrap();
        assert!(operator.is_beyond() && is_closing(&silent[0]) && !is_closing(&silent[1]));
        // One that was turned away is worth one that stands still.
        seats.turn_away();
        assert!(seats.takes_back() && !seats.takes_back());
        drop((busy, silent, operator));
        assert!(!seats.admit(HERE).unwrap().is_beyond());
        assert!(seats.table.lock().by_address.is_empty());
    }

    #[test]
    fn one_address_does_not_take_all() {
        let seats = Seats::new(8, 4);
        let one: Vec<_> = (0..2).map(|_| seats.admit(there(1)).unwrap()).collect();
        assert!(one.iter().all(|seat| !seat.is_beyond()));
        assert!(seats.admit(there(1)).unwrap().is_beyond());
        assert!(!seats.admit(there(2)).unwrap().is_beyond());
        let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
        assert!(seats.admit(mapped.into()).unwrap().is_beyond());
    }

    #[test]
    fn one_without_room_is_beyond_the_limit() {
        let seats = Seats::new(4, 1);
        let without = seats.admit_beyond(HERE).unwrap();
        assert!(without.is_beyond() && !seats.admit(HERE).unwrap().is_beyond());
        assert_eq!(seats.open(), 1);
    }

    #[test]
    fn a_tunnel_makes_room_for_nobody() {
        let seats = Seats::new(1, 4);
        let tunnel = seats.admit(HERE).unwrap();
        let request = tunnel.begin();
        tunnel.engage();
        drop(request);
        assert!(!tunnel.is_idle());
        assert!(seats.admit(HERE).unwrap().is_beyond());
    }
}
