use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use pantala_core::{
    ContentMeta, Error, Generation, PeerId, PieceDigest, PieceIndex, PieceSet, ResourceKey, TaskId,
    control::{Known, PieceRun, ToPeer},
};
use pantala_origin::OriginBody;
use pantala_store::{Charge, PieceBuffer, PieceWriter, TaskPieces};
use pantala_window::{AttemptId, Failure, RunId, Snapshot};
use pantala_wire::control::MAX_RESOURCES;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{download::LinkHandle, rates::TaskRates, readers::Readers};

/// A content this peer streams or holds, as everybody but its driver sees it.
pub(crate) struct TaskHandle {
    pub id: TaskId,
    /// What was asked for first.
    pub key: ResourceKey,
    /// What it was found behind, the first included.
    pub resources: Mutex<Vec<ResourceKey>>,
    /// The URL without credentials.
    pub shown: String,
    pub meta: RwLock<ContentMeta>,
    pub pieces: Arc<TaskPieces>,
    pub readers: Readers,
    pub commands: mpsc::Sender<Command>,
    /// How fast its bytes may come and go.
    pub rates: TaskRates,
    /// The pieces a reader here still needs: what children may wait for.
    pub planned: Mutex<Planned>,
    /// Whether the whole content was found to have the digest it is named by.
    pub proven: std::sync::atomic::AtomicBool,
    /// Whether the one transfer that all of the content must come from is over, and something is
    /// missing: nobody can begin to read it any more.
    pub broken: std::sync::atomic::AtomicBool,
    /// Where this peer makes the one transfer that all of the content must come from: the piece up to
    /// which that has come; `u32::MAX` elsewhere.
    pub front: AtomicU32,
    /// Where that transfer brings a part of the content only: the piece after the last one. Nobody else is
    /// told of the task then. `u32::MAX` elsewhere.
    until: AtomicU32,
    /// Pieces that are not here yet and that children's readers wait for, and how many requests for
    /// each do.
    pub awaited: Mutex<BTreeMap<PieceIndex, usize>>,
    /// Children that follow the task.
    pub followers: AtomicUsize,
    /// Pieces of a single transfer that were sent to a child.
    pub served: Mutex<PieceSet>,
    /// Whether all of it is being read, or has been, because somebody asked for a part.
    pub read_ahead: std::sync::atomic::AtomicBool,
}

impl TaskHandle {
    /// A content of which nothing has happened yet, found behind this resource. Its driver takes the commands.
    pub fn new(
        (id, key): (TaskId, ResourceKey),
        shown: String,
        meta: ContentMeta,
        pieces: Arc<TaskPieces>,
        rates: TaskRates,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self {
            id,
            key,
            resources: vec![key].into(),
            shown,
            meta: meta.into(),
            pieces,
            readers: Readers::default(),
            commands,
            rates,
            planned: Mutex::new(Planned::Unknown),
            proven: false.into(),
            broken: false.into(),
            front: u32::MAX.into(),
            until: u32::MAX.into(),
            awaited: Default::default(),
            followers: 0.into(),
            served: Default::default(),
            read_ahead: false.into(),
        }
    }

    /// The content was found behind a resource.
    pub fn found_behind(&self, key: ResourceKey) {
        let mut resources = self.resources.lock();
        if !resources.contains(&key) {
            if resources.len() == MAX_RESOURCES {
                // Who asks there again after the supernode was lost asks the origin.
                resources.remove(0);
            }
            resources.push(key);
        }
    }

    /// Whether all of the content must come from the transfer that began it.
    pub fn is_single(&self) -> bool {
        self.meta.read().generation == Generation::Transfer
    }

    /// A child has had all of a piece.
    pub fn was_served(&self, piece: PieceIndex) {
        if self.is_single() && self.served.lock().insert(piece) {
            self.readers.changed.notify_one();
        }
    }

    /// This peer makes the transfer that all of the content must come from; that has come up to this
    /// piece.
    pub fn transfer_is_at(&self, piece: PieceIndex) {
        self.front.store(piece.get(), Ordering::Relaxed);
    }

    /// The one transfer that all of the content must come from was asked for a part alone, which ends before
    /// this piece.
    pub fn transfer_ends_at(&self, piece: PieceIndex) {
        self.until.store(piece.get(), Ordering::Relaxed);
    }

    /// The piece after the last that the one transfer brings, where that is a part of the content.
    pub fn part_until(&self) -> Option<PieceIndex> {
        let until = self.until.load(Ordering::Relaxed);
        (until != u32::MAX).then(|| PieceIndex::new(until))
    }

    /// Whether a reader can have the content from this piece on, up to the one before `end`, as far as is
    /// known here: always, unless it comes from one transfer. What that brought may be gone; then it comes
    /// no more.
    pub fn can_begin(&self, piece: PieceIndex, end: Option<PieceIndex>) -> bool {
        if !self.is_single() {
            return true;
        }
        let beyond = |until| end.is_none_or(|end| end > until);
        if self.part_until().is_some_and(beyond) {
            return false;
        }
        let gap = self.pieces.first_gap(piece);
        let is_end = !self.pieces.geometry().has(gap);
        !self.is_broken() && (is_end || gap.get() >= self.front.load(Ordering::Relaxed))
    }

    /// Whether the content cannot be read to its end any more.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// A child's request for bytes that are not here yet and that its reader waits for: the task is no
/// background then.
pub(crate) struct Awaited {
    task: Arc<TaskHandle>,
    piece: PieceIndex,
}

impl Awaited {
    pub fn new(task: &Arc<TaskHandle>, piece: PieceIndex) -> Self {
        let first = {
            let mut awaited = task.awaited.lock();
            let first = awaited.is_empty();
            *awaited.entry(piece).or_default() += 1;
            first
        };
        if first || task.is_single() {
            task.readers.changed.notify_one();
        }
        let task = task.clone();
        Self { task, piece }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut awaited = self.task.awaited.lock();
        if let Some(count) = awaited.get_mut(&self.piece) {
            *count -= 1;
            if *count == 0 {
                awaited.remove(&self.piece);
            }
        }
    }
}

/// A child that follows the task, for as long as it does.
pub(crate) struct Following(Arc<TaskHandle>);

impl Following {
    pub fn new(task: &Arc<TaskHandle>) -> Self {
        task.followers.fetch_add(1, Ordering::Relaxed);
        if task.is_single() {
            task.readers.changed.notify_one();
        }
        Self(task.clone())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What children may wait for at this peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planned {
    /// The driver has not decided anything yet.
    Unknown,
    /// No reader needs anything more.
    Nothing,
    /// The pieces from the first up to the end.
    Pieces(PieceIndex, Option<PieceIndex>),
}

impl Planned {
    pub fn covers(&self, piece: PieceIndex) -> bool {
        match *self {
            Planned::Unknown => true,
            Planned::Nothing => false,
            Planned::Pieces(first, end) => first <= piece && end.is_none_or(|end| piece < end),
        }
    }
}

/// What a driver is told.
pub(crate) enum Command {
    /// The supernode's answer to a registration or a re-announcement.
    Known(Known),
    /// This peer learned the content from the origin itself: it may go on with that transfer, up to the
    /// piece before `end`.
    Learned {
        first: PieceIndex,
        end: Option<PieceIndex>,
        start: u64,
        body: OriginBody,
    },
    /// There is no supernode: all is to come from the origin, what is open already first.
    Alone,
    /// Anything else the supernode says of this task.
    Control(ToPeer),
    SupernodeUp,
    SupernodeDown,
    LinkUp {
        link: LinkHandle,
    },
    LinkDown {
        peer: PeerId,
        error: Error,
    },
    Holds {
        peer: PeerId,
        runs: Vec<PieceRun>,
    },
    Receiving {
        peer: PeerId,
        piece: PieceIndex,
    },
    Lost {
        peer: PeerId,
        runs: Vec<PieceRun>,
    },
    /// Memory for a request is there.
    Room {
        attempt: AttemptId,
        charge: Charge,
    },
    Fetched {
        attempt: AttemptId,
        buffer: Arc<PieceBuffer>,
    },
    /// A request failed; what it had of the piece can be gone on with.
    FetchFailed {
        attempt: AttemptId,
        failure: Failure,
        writer: Option<PieceWriter>,
    },
    RunAt {
        run: RunId,
        piece: PieceIndex,
    },
    RunSealed {
        piece: PieceIndex,
        buffer: Arc<PieceBuffer>,
        digest: PieceDigest,
    },
    RunEnded {
        length: u64,
    },
    RunFailed {
        run: RunId,
        error: Error,
    },
    /// A reader found that the whole content has not the digest it is named by.
    Poison,
    /// For the operator's page.
    Snapshot {
        reply: oneshot::Sender<Snapshot>,
    },
}

/// All contents of this peer.
#[derive(Default)]
pub(crate) struct Tasks {
    map: RwLock<HashMap<TaskId, Arc<TaskHandle>>>,
    /// Notified whenever a task comes.
    pub changed: Notify,
}

impl Tasks {
    pub fn get(&self, id: &TaskId) -> Option<Arc<TaskHandle>> {
        self.map.read().get(id).cloned()
    }

    pub fn all(&self) -> Vec<Arc<TaskHandle>> {
        self.map.read().values().cloned().collect()
    }

    /// Does something with a task while nobody can take it out: a reader opened so is always seen
    /// by the driver.
    pub fn with<T>(&self, id: &TaskId, act: impl FnOnce(&Arc<TaskHandle>) -> T) -> Option<T> {
        self.map.read().get(id).map(act)
    }

    /// The task, made by `make` when it is new; `true` when it was.
    pub fn get_or_insert(
        &self,
        id: TaskId,
        make: impl FnOnce() -> Arc<TaskHandle>,
    ) -> (Arc<TaskHandle>, bool) {
        let mut map = self.map.write();
        if let Some(found) = map.get(&id) {
            return (found.clone(), false);
        }
        let made = make();
        map.insert(id, made.clone());
        drop(map);
        self.changed.notify_waiters();
        (made, true)
    }

    /// Takes the task out if `still` says so, with the table locked: nobody can find it meanwhile.
    pub fn remove_if(&self, id: &TaskId, still: impl FnOnce(&TaskHandle) -> bool) -> bool {
        let mut map = self.map.write();
        let go = map.get(id).is_some_and(|task| still(task));
        if go {
            map.remove(id);
        }
        go
    }
}
