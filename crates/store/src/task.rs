use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use pantala_core::{Geometry, PieceIndex, PieceSet, TaskId};
use tokio::sync::{Notify, broadcast};

use crate::{
    PieceBuffer,
    store::Shelf,
    sync::{Mutex, Rank},
};

/// What this peer has of a piece.
#[derive(Debug, Clone)]
pub enum Slot {
    /// Nothing.
    Missing,
    /// It is arriving. `trusted` bytes come straight from the origin and are as good as it; others
    /// are unverified: children may have them, readers may not.
    Filling {
        /// The buffer that is furthest.
        buffer: Arc<PieceBuffer>,
        /// Whether a reader may have the bytes before the piece is complete.
        trusted: bool,
    },
    /// It is complete and verified.
    Held(Arc<PieceBuffer>),
}

/// News about a task's pieces, in the order in which it happened: each says what a piece's slot has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The first bytes of a piece are there.
    Receiving(PieceIndex),
    /// A piece is complete and verified.
    Held(PieceIndex),
    /// A piece that was held has left for others. It was right, and was announced.
    Evicted(PieceIndex),
    /// A piece that was arriving was given up before it was held: its bytes were wrong, or nobody needs it.
    Abandoned(PieceIndex),
    /// The content's length is known now, in bytes.
    Ended(u64),
    /// The task was poisoned or abandoned: there will be nothing more.
    Closed,
}

/// News that may wait for a slow listener before it has to ask for the whole state anew.
const NEWS_BACKLOG: usize = 1024;

/// One task's pieces on this peer: what is held, what is arriving, and who wants to hear of it.
#[derive(Debug)]
pub struct TaskPieces {
    id: TaskId,
    shelf: Weak<Shelf>,
    state: Mutex<State>,
    news: broadcast::Sender<Change>,
    wakers: Mutex<Vec<Waker>>,
}

/// Somebody who waits for bytes.
#[derive(Debug)]
struct Waker {
    notify: Weak<Notify>,
    /// Whether bytes that are not verified yet are of use to it.
    unverified: bool,
}

/// What is behind the lock.
///
/// Whatever takes a buffer out of a slot hands it on, for its caller to drop once the lock is released: it
/// may be the last holder, and giving a piece's memory back takes system calls.
#[derive(Debug)]
struct State {
    geometry: Geometry,
    slots: BTreeMap<PieceIndex, Entry>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Entry {
    slot: Option<Present>,
    pins: u32,
    claims: u32,
}

impl Entry {
    /// Whether nothing would be lost by forgetting it.
    fn is_idle(&self) -> bool {
        self.slot.is_none() && self.pins == 0 && self.claims == 0
    }
}

/// A child waits for the piece: while this lives, it leaves the cache only when nothing else is
/// left to make room, and so do the next [`AHEAD`], which the child is about to ask for.
#[derive(Debug)]
pub struct Claim {
    pieces: Arc<TaskPieces>,
    piece: PieceIndex,
}

/// Pieces behind a claimed one that are kept for the same child. A child in step is behind by less
/// than its window, unless that is small or the child has just been held up.
const AHEAD: u32 = 4;

impl Drop for Claim {
    fn drop(&mut self) {
        self.pieces.set_claim(self.piece, false);
    }
}

#[derive(Debug)]
enum Present {
    Filling {
        buffer: Arc<PieceBuffer>,
        trusted: bool,
    },
    Held(Arc<PieceBuffer>),
}

/// One transfer's way to show what it brings of pieces, from whomever, until it is ended.
///
/// A piece begins here and nowhere else: the first bytes of one of which there was nothing are news
/// ([`Change::Receiving`]), and whoever waits for bytes that it may have is woken by any.
#[derive(Debug)]
pub struct Arrival {
    pieces: Arc<TaskPieces>,
    trusted: bool,
    /// Written and read with the pieces locked, so that nothing is shown once it has been ended.
    ended: AtomicBool,
}

impl Arrival {
    /// More bytes of a piece came into `buffer`: that is what children (and readers, when they are trusted)
    /// see of the piece from now on. An untrusted buffer never replaces one that is further.
    pub fn show(&self, piece: PieceIndex, buffer: &Arc<PieceBuffer>) {
        self.pieces.arrived(self, piece, buffer);
    }

    /// Nobody wants what the transfer brings any more. What it has shown stays until
    /// [`TaskPieces::abandon`]; it shows nothing more, though its own task may not have heard of that yet.
    pub fn end(&self) {
        let _state = self.pieces.state.lock();
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Waker {
    fn wake(&self) {
        if let Some(notify) = self.notify.upgrade() {
            notify.notify_one();
        }
    }
}

impl TaskPieces {
    pub(crate) fn new(id: TaskId, geometry: Geometry, shelf: Weak<Shelf>) -> Arc<Self> {
        Arc::new(Self {
            id,
            shelf,
            state: Mutex::new(
                Rank::Pieces,
                State {
                    geometry,
                    slots: BTreeMap::new(),
                    closed: false,
                },
            ),
            news: broadcast::Sender::new(NEWS_BACKLOG),
            wakers: Mutex::new(Rank::Wakers, Vec::new()),
        })
    }

    /// Which task.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// How the content is cut, as far as known.
    pub fn geometry(&self) -> Geometry {
        self.state.lock().geometry
    }

    /// What there is of a piece.
    pub fn slot(&self, piece: PieceIndex) -> Slot {
        match self
            .state
            .lock()
            .slots
            .get(&piece)
            .and_then(|entry| entry.slot.as_ref())
        {
            None => Slot::Missing,
            Some(Present::Filling { buffer, trusted }) => Slot::Filling {
                buffer: buffer.clone(),
                trusted: *trusted,
            },
            Some(Present::Held(buffer)) => Slot::Held(buffer.clone()),
        }
    }

    /// The pieces that are complete, and those whose first bytes are there; the news from now on
    /// starts exactly after this state.
    pub fn follow(&self) -> (PieceSet, PieceSet, broadcast::Receiver<Change>) {
        let state = self.state.lock();
        let (mut held, mut receiving) = (PieceSet::new(), PieceSet::new());
        for (&piece, entry) in &state.slots {
            match &entry.slot {
                Some(Present::Held(_)) => held.insert(piece),
                Some(Present::Filling { buffer, .. }) if !buffer.is_empty() => {
                    receiving.insert(piece)
                }
                _ => false,
            };
        }
        (held, receiving, self.news.subscribe())
    }

    /// The first piece from this one on that is not held. Costs the pieces that are.
    pub fn first_gap(&self, from: PieceIndex) -> PieceIndex {
        let state = self.state.lock();
        let mut gap = from;
        for (&piece, entry) in state.slots.range(from..) {
            if piece != gap || !matches!(entry.slot, Some(Present::Held(_))) {
                break;
            }
            gap = gap.next();
        }
        gap
    }

    /// Has `waker` notified whenever bytes arrive or anything changes, until it is dropped. For a
    /// child, who takes bytes that are not verified yet.
    pub fn wake_on_progress(&self, waker: &Arc<Notify>) {
        self.add_waker(waker, true);
    }

    /// As [`TaskPieces::wake_on_progress`], for a reader: it is left asleep while bytes arrive that
    /// it may not have yet.
    pub fn wake_on_readable(&self, waker: &Arc<Notify>) {
        self.add_waker(waker, false);
    }

    fn add_waker(&self, waker: &Arc<Notify>, unverified: bool) {
        let mut wakers = self.wakers.lock();
        wakers.retain(|waker| waker.notify.strong_count() > 0);
        wakers.push(Waker {
            notify: Arc::downgrade(waker),
            unverified,
        });
    }

    /// Has `waker` notified no more.
    pub fn wake_no_more(&self, waker: &Arc<Notify>) {
        let mut wakers = self.wakers.lock();
        wakers.retain(|other| other.notify.as_ptr() != Arc::as_ptr(waker));
    }

    /// Tells everybody who waits that bytes arrived.
    pub fn wake(&self) {
        for waker in self.wakers.lock().iter() {
            waker.wake();
        }
    }

    /// Tells children that bytes arrived that nobody has verified.
    fn wake_children(&self) {
        for waker in self.wakers.lock().iter().filter(|waker| waker.unverified) {
            waker.wake();
        }
    }

    /// A transfer's way to show what it brings of these pieces. `trusted` bytes come straight from the
    /// origin.
    pub fn arrival(self: &Arc<Self>, trusted: bool) -> Arc<Arrival> {
        Arc::new(Arrival {
            pieces: self.clone(),
            trusted,
            ended: AtomicBool::new(false),
        })
    }

    fn arrived(&self, arrival: &Arrival, piece: PieceIndex, buffer: &Arc<PieceBuffer>) {
        debug_assert!(!buffer.is_empty(), "no byte has come");
        let trusted = arrival.trusted;
        let (before, begins) = {
            let mut state = self.state.lock();
            if state.closed || arrival.ended.load(Ordering::Relaxed) {
                return;
            }
            let entry = state.slots.entry(piece).or_default();
            let replaces = match &entry.slot {
                Some(Present::Held(_)) => return,
                Some(Present::Filling {
                    buffer: old,
                    trusted: old_trusted,
                }) => {
                    let same = Arc::ptr_eq(old, buffer) && *old_trusted == trusted;
                    !same && (trusted, buffer.len()) >= (*old_trusted, old.len())
                }
                None => true,
            };
            let begins = entry.slot.is_none();
            let new = || Present::Filling {
                buffer: buffer.clone(),
                trusted,
            };
            let before = replaces.then(|| entry.slot.replace(new()));
            (before, begins)
        };
        drop(before);
        if begins {
            let _ = self.news.send(Change::Receiving(piece));
        }
        match trusted {
            true => self.wake(),
            false => self.wake_children(),
        }
    }

    /// The pieces of which bytes are here that nobody has verified.
    pub fn unverified(&self) -> PieceSet {
        let state = self.state.lock();
        let mut unverified = PieceSet::new();
        for (&piece, entry) in &state.slots {
            if matches!(entry.slot, Some(Present::Filling { trusted: false, .. })) {
                unverified.insert(piece);
            }
        }
        unverified
    }

    /// The piece is complete and its bytes are right: it goes into the piece data cache.
    pub fn seal(&self, piece: PieceIndex, buffer: Arc<PieceBuffer>) {
        let shelf = self.shelf.upgrade();
        let (before, pins) = {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            let entry = state.slots.entry(piece).or_default();
            let before = entry.slot.replace(Present::Held(buffer));
            if let Some(shelf) = &shelf {
                // Before anybody can change what was read here: a claim that ends meanwhile would
                // be taken for one that lasts.
                shelf.sealed(self.id, piece, entry.pins, entry.claims > 0);
            }
            (before, entry.pins)
        };
        drop(before);
        if let Some(shelf) = shelf.filter(|_| pins == 0) {
            shelf.nudge();
        }
        let _ = self.news.send(Change::Held(piece));
        self.wake();
    }

    /// What was arriving of a piece is given up (its bytes were wrong, or nobody wants it).
    pub fn abandon(&self, piece: PieceIndex) {
        let lost = {
            let mut state = self.state.lock();
            let State { slots, .. } = &mut *state;
            match slots.get_mut(&piece) {
                Some(entry) if matches!(entry.slot, Some(Present::Filling { .. })) => {
                    let lost = entry.slot.take();
                    if entry.is_idle() {
                        slots.remove(&piece);
                    }
                    lost
                }
                _ => None,
            }
        };
        if lost.is_some() {
            drop(lost);
            let _ = self.news.send(Change::Abandoned(piece));
            self.wake();
        }
    }

    /// Says how many windows need a piece; a pinned one is not evicted.
    pub fn set_pins(&self, piece: PieceIndex, pins: u32) {
        let held = {
            let mut state = self.state.lock();
            let entry = state.slots.entry(piece).or_default();
            entry.pins = pins;
            let held = matches!(entry.slot, Some(Present::Held(_)));
            if entry.is_idle() {
                state.slots.remove(&piece);
            }
            held
        };
        if held && let Some(shelf) = self.shelf.upgrade() {
            shelf.pinned(self.id, piece, pins);
        }
    }

    /// A child waits for a piece, whether it is here yet or not.
    pub fn claim(self: &Arc<Self>, piece: PieceIndex) -> Claim {
        self.set_claim(piece, true);
        let pieces = self.clone();
        Claim { pieces, piece }
    }

    fn set_claim(&self, piece: PieceIndex, more: bool) {
        let shelf = self.shelf.upgrade();
        let mut state = self.state.lock();
        let last = piece.get().saturating_add(AHEAD);
        for piece in (piece.get()..=last).map(PieceIndex::new) {
            let entry = state.slots.entry(piece).or_default();
            entry.claims = if more {
                entry.claims + 1
            } else {
                // What was closed meanwhile has forgotten its claims.
                entry.claims.saturating_sub(1)
            };
            if let (Some(Present::Held(_)), Some(shelf)) = (&entry.slot, &shelf) {
                shelf.claimed(self.id, piece, entry.claims > 0);
            }
            if entry.is_idle() {
                state.slots.remove(&piece);
            }
        }
        // The last to know the shelf gives its memory back, which takes other locks.
        drop(state);
    }

    /// A reader or child used a held piece.
    pub fn touch(&self, piece: PieceIndex) {
        if let Some(shelf) = self.shelf.upgrade() {
            shelf.touched(self.id, piece);
        }
    }

    /// The content's length became known.
    pub fn ended(&self, length: u64) {
        {
            let mut state = self.state.lock();
            if state.geometry.length().is_some() {
                return;
            }
            state.geometry = state.geometry.ended(length);
        }
        let _ = self.news.send(Change::Ended(length));
        self.wake();
    }

    /// Lets go of everything, for good: the content is wrong, or the peer stops.
    pub fn close(&self) {
        let slots = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.slots)
        };
        if let Some(shelf) = self.shelf.upgrade() {
            slots.keys().for_each(|&piece| shelf.gone(self.id, piece));
        }
        drop(slots);
        let _ = self.news.send(Change::Closed);
        self.wake();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// How many pieces are held.
    pub fn held(&self) -> usize {
        let state = self.state.lock();
        state
            .slots
            .values()
            .filter(|entry| matches!(entry.slot, Some(Present::Held(_))))
            .count()
    }

    /// Evicts a held piece that no window needs and no upload holds; gives the bytes it took.
    pub(crate) fn evict(&self, piece: PieceIndex) -> Option<Arc<PieceBuffer>> {
        let buffer = {
            let mut state = self.state.lock();
            let entry = state.slots.get(&piece)?;
            match &entry.slot {
                Some(Present::Held(buffer))
                    if entry.pins == 0 && Arc::strong_count(buffer) == 1 => {}
                _ => return None,
            }
            let entry = state.slots.get_mut(&piece)?;
            let evicted = entry.slot.take();
            if entry.is_idle() {
                state.slots.remove(&piece);
            }
            match evicted? {
                Present::Held(buffer) => buffer,
                Present::Filling { .. } => return None,
            }
        };
        let _ = self.news.send(Change::Evicted(piece));
        Some(buffer)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Budget;

    #[tokio::test]
    async fn a_reader_sleeps_while_bytes_come_that_it_may_not_have() {
        let pieces = TaskPieces::new(
            TaskId::from_bytes([1; 32]),
            Geometry::new(None),
            Weak::new(),
        );
        let (reader, child) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        pieces.wake_on_readable(&reader);
        pieces.wake_on_progress(&child);
        let woken = async |waker: &Notify| {
            let woken = tokio::time::timeout(Duration::ZERO, waker.notified()).await;
            woken.is_ok()
        };
        let (buffer, mut writer) = PieceBuffer::charged(Budget::new(8).try_charge(8).unwrap());
        writer.append(b"a");
        let piece = PieceIndex::new(0);
        pieces.arrival(false).show(piece, &buffer);
        assert_eq!((woken(&reader).await, woken(&child).await), (false, true));
        pieces.arrival(true).show(piece, &buffer);
        assert_eq!((woken(&reader).await, woken(&child).await), (true, true));
        pieces.wake_no_more(&child);
        pieces.seal(piece, buffer);
        assert_eq!((woken(&reader).await, woken(&child).await), (true, false));
    }

    /// However its bytes come, a piece begins once, and what becomes of it has a word of its own.
    #[test]
    fn a_piece_begins_once_and_ends_in_one_of_three_ways() {
        let budget = Budget::new(32);
        let store = crate::Store::new(budget.clone(), crate::Eviction::default());
        let pieces = store.open(TaskId::from_bytes([1; 32]), Geometry::new(None));
        let buffer = |bytes: &[u8]| {
            let (buffer, mut writer) = PieceBuffer::charged(budget.try_charge(8).unwrap());
            writer.append(bytes);
            buffer
        };
        let (_, _, mut news) = pieces.follow();
        let mut heard = || std::iter::from_fn(|| news.try_recv().ok()).collect::<Vec<_>>();
        let piece = PieceIndex::new(0);
        let (first, second) = (buffer(b"ab"), buffer(b"abc"));
        let (from_peers, from_origin) = (pieces.arrival(false), pieces.arrival(true));
        from_peers.show(piece, &first);
        from_peers.show(piece, &first);
        from_peers.show(piece, &second);
        assert_eq!(heard(), [Change::Receiving(piece)]);
        from_peers.show(piece, &first);
        assert!(matches!(pieces.slot(piece), Slot::Filling { buffer, .. } if buffer.len() == 3));
        pieces.abandon(piece);
        pieces.abandon(piece);
        assert_eq!(heard(), [Change::Abandoned(piece)]);
        from_origin.show(piece, &second);
        pieces.seal(piece, second);
        from_origin.show(piece, &first);
        pieces.abandon(piece);
        assert_eq!(heard(), [Change::Receiving(piece), Change::Held(piece)]);
        assert!(pieces.evict(piece).is_some());
        assert_eq!(heard(), [Change::Evicted(piece)]);
    }

    #[test]
    fn a_transfer_that_was_ended_shows_nothing() {
        let budget = Budget::new(32);
        let store = crate::Store::new(budget.clone(), crate::Eviction::default());
        let pieces = store.open(TaskId::from_bytes([1; 32]), Geometry::new(None));
        let (buffer, mut writer) = PieceBuffer::charged(budget.try_charge(8).unwrap());
        let (arrival, piece) = (pieces.arrival(false), PieceIndex::new(0));
        writer.append(b"a");
        arrival.show(piece, &buffer);
        arrival.end();
        pieces.abandon(piece);
        writer.append(b"b");
        arrival.show(piece, &buffer);
        assert!(matches!(pieces.slot(piece), Slot::Missing));
        drop((buffer, writer));
        assert_eq!(budget.used(), 0);
    }
}
