use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use pantala_core::{Geometry, PieceIndex, TaskId, Turn, control::Copies};

use crate::{
    Budget, Eviction, Keep, TaskPieces,
    budget::Evict,
    sync::{AtomicU64, Mutex, Ordering, Rank},
};

/// The piece data cache and the pieces in flight of one peer.
#[derive(Debug, Clone)]
pub struct Store {
    shelf: Arc<Shelf>,
}

/// Figures for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Pieces held.
    pub pieces: usize,
    /// Pieces evicted since the start.
    pub evicted: u64,
    /// Bytes charged to the budget.
    pub used: u64,
    /// The budget.
    pub limit: u64,
}

#[derive(Debug)]
pub(crate) struct Shelf {
    budget: Arc<Budget>,
    tasks: Mutex<HashMap<TaskId, Arc<TaskPieces>>>,
    keep: Mutex<Keep>,
    evicted: AtomicU64,
}

/// Pieces that are looked at for one eviction; those that an upload holds are passed over.
const EVICTION_LOOKS: usize = 64;

impl Store {
    /// An empty store on a budget.
    pub fn new(budget: Arc<Budget>, eviction: Eviction) -> Self {
        let shelf = Arc::new(Shelf {
            budget: budget.clone(),
            tasks: Mutex::new(Rank::Tasks, HashMap::new()),
            keep: Mutex::new(Rank::Keep, Keep::new(eviction)),
            evicted: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&shelf);
        budget.on_pressure(weak as Weak<dyn Evict>);
        Self { shelf }
    }

    /// The budget everything is charged to.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.shelf.budget
    }

    /// The pieces of a task, made when they are new here.
    pub fn open(&self, task: TaskId, geometry: Geometry) -> Arc<TaskPieces> {
        let mut tasks = self.shelf.tasks.lock();
        let shelf = Arc::downgrade(&self.shelf);
        tasks
            .entry(task)
            .or_insert_with(|| TaskPieces::new(task, geometry, shelf))
            .clone()
    }

    /// The pieces of a task, when there are any here.
    pub fn get(&self, task: &TaskId) -> Option<Arc<TaskPieces>> {
        self.shelf.tasks.lock().get(task).cloned()
    }

    /// Forgets a task and all its pieces.
    pub fn remove(&self, task: &TaskId) {
        // Closing takes other locks: not while the table is locked.
        let removed = self.shelf.tasks.lock().remove(task);
        if let Some(pieces) = removed {
            pieces.close();
        }
        self.shelf.keep.lock().forget(*task);
    }

    /// This peer's place among those who keep the pieces of a task that is open here.
    pub fn turn(&self, task: &TaskId, turn: Turn) {
        // With the table locked: a place of a task that has gone would stay for ever.
        let tasks = self.shelf.tasks.lock();
        if tasks.contains_key(task) {
            self.shelf.keep.lock().turn(*task, turn);
        }
    }

    /// Who else has a piece, as far as the supernode knows.
    pub fn copies(&self, task: &TaskId, piece: PieceIndex, copies: Copies) {
        self.shelf.keep.lock().copies(*task, piece, copies);
    }

    /// Figures for the metrics.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            pieces: self.shelf.keep.lock().len(),
            evicted: self.shelf.evicted.load(Ordering::Relaxed),
            used: self.shelf.budget.used(),
            limit: self.shelf.budget.limit(),
        }
    }
}

impl Shelf {
    pub(crate) fn sealed(&self, task: TaskId, piece: PieceIndex, pins: u32, claimed: bool) {
        let mut keep = self.keep.lock();
        keep.insert(task, piece, pins);
        keep.claim(task, piece, claimed);
    }

    /// Something may have become evictable.
    pub(crate) fn nudge(&self) {
        self.budget.nudge();
    }

    pub(crate) fn pinned(&self, task: TaskId, piece: PieceIndex, pins: u32) {
        self.keep.lock().set_pins(task, piece, pins);
        if pins == 0 {
            self.nudge();
        }
    }

    pub(crate) fn claimed(&self, task: TaskId, piece: PieceIndex, claimed: bool) {
        self.keep.lock().claim(task, piece, claimed);
    }

    pub(crate) fn touched(&self, task: TaskId, piece: PieceIndex) {
        self.keep.lock().touch(task, piece);
        // An upload has just let go of a piece that could not be evicted before.
        self.nudge();
    }

    pub(crate) fn gone(&self, task: TaskId, piece: PieceIndex) {
        self.keep.lock().remove(task, piece);
    }
}

impl Evict for Shelf {
    fn evict_one(&self) -> bool {
        let candidates: Vec<_> = self.keep.lock().candidates().take(EVICTION_LOOKS).collect();
        for (task, piece) in candidates {
            let Some(pieces) = self.tasks.lock().get(&task).cloned() else {
                self.gone(task, piece);
                continue;
            };
            // A race for the same piece is lost by finding it gone, pinned or in use.
            if let Some(buffer) = pieces.evict(piece) {
                self.gone(task, piece);
                self.evicted.fetch_add(1, Ordering::Relaxed);
                drop(buffer);
                pieces.wake();
                return true;
            }
        }
        false
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::{Change, PieceBuffer, Slot};

    const TASK: TaskId = TaskId::from_bytes([1; 32]);

    fn store(limit: u64) -> (Store, Arc<TaskPieces>) {
        let store = Store::new(Budget::new(limit), Eviction::default());
        let pieces = store.open(TASK, Geometry::new(None));
        (store, pieces)
    }

    fn put(store: &Store, pieces: &TaskPieces, piece: u32, bytes: u64) {
        let charge = store.budget().try_charge(bytes).expect("room");
        let (buffer, mut writer) = PieceBuffer::charged(charge);
        writer.append(&vec![piece as u8; bytes as usize]);
        drop(writer);
        pieces.seal(PieceIndex::new(piece), buffer);
    }

    fn holds(pieces: &TaskPieces, piece: u32) -> bool {
        matches!(pieces.slot(PieceIndex::new(piece)), Slot::Held(_))
    }

    #[test]
    fn room_is_made_by_evicting_the_oldest() {
        let (store, pieces) = store(30);
        (0..3).for_each(|i| put(&store, &pieces, i, 10));
        let (held, _, mut news) = pieces.follow();
        assert_eq!(held.len(), 3);
        put(&store, &pieces, 3, 10);
        assert!(!holds(&pieces, 0) && holds(&pieces, 1) && holds(&pieces, 3));
        assert_eq!(news.try_recv(), Ok(Change::Evicted(PieceIndex::new(0))));
        assert_eq!(news.try_recv(), Ok(Change::Held(PieceIndex::new(3))));
        assert_eq!(
            store.stats(),
            StoreStats {
                pieces: 3,
                evicted: 1,
                used: 30,
                limit: 30
            }
        );
    }

    #[test]
    fn what_a_window_or_an_upload_needs_stays() {
        let (store, pieces) = store(20);
        pieces.set_pins(PieceIndex::new(0), 1);
        put(&store, &pieces, 0, 10);
        put(&store, &pieces, 1, 10);
        let Slot::Held(upload) = pieces.slot(PieceIndex::new(1)) else {
            panic!("held")
        };
        assert!(store.budget().try_charge(10).is_none());
        drop(upload);
        assert!(store.budget().try_charge(10).is_some());
        assert!(holds(&pieces, 0) && !holds(&pieces, 1));
    }

    #[test]
    fn what_a_child_waits_for_stays_while_there_is_anything_else() {
        let (store, pieces) = store(40);
        let claim = pieces.claim(PieceIndex::new(0));
        for i in [0, 1, 9, 10] {
            put(&store, &pieces, i, 10);
        }
        let rooms: Vec<_> = (0..3).map(|_| store.budget().try_charge(10)).collect();
        assert!(rooms.iter().all(Option::is_some));
        // The one claimed, and those it is about to ask for, go last; but go, when all else has.
        let left: Vec<u32> = [0, 1, 9, 10]
            .into_iter()
            .filter(|&i| holds(&pieces, i))
            .collect();
        assert_eq!(left, [1]);
        drop(claim);
        assert!(store.budget().try_charge(10).is_some());
    }

    #[tokio::test]
    async fn an_unpinned_piece_makes_room_for_who_waits() {
        let (store, pieces) = store(10);
        pieces.set_pins(PieceIndex::new(0), 1);
        put(&store, &pieces, 0, 10);
        let budget = store.budget().clone();
        let waiting = tokio::spawn(async move { budget.charge(10).await.bytes() });
        while store.budget().waiting() == 0 {
            tokio::task::yield_now().await;
        }
        pieces.set_pins(PieceIndex::new(0), 0);
        assert_eq!(waiting.await.unwrap(), 10);
        assert!(!holds(&pieces, 0));
    }

    #[test]
    fn a_removed_task_gives_everything_back() {
        let (store, pieces) = store(30);
        put(&store, &pieces, 0, 10);
        store.remove(&TASK);
        assert!(pieces.is_closed() && store.get(&TASK).is_none());
        assert_eq!(store.budget().used(), 0);
        put(&store, &pieces, 1, 10);
        assert_eq!(store.budget().used(), 0, "a closed task keeps nothing");
    }
}
