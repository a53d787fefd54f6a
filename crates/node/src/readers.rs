use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use http::HeaderMap;
use pantala_core::{Error, PieceIndex};
use pantala_origin::Asker;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use url::Url;

use crate::{stream::Counted, task::TaskHandle};

/// Where a reader would get the content without us: its URL and its own headers. Never leaves this
/// process but to that origin.
#[derive(Clone)]
pub(crate) struct OriginSource {
    pub url: Url,
    pub headers: HeaderMap,
    /// Whether the origin may be asked at all.
    pub allowed: bool,
    /// For whom it is asked.
    pub asker: Asker,
}

/// One reader, as its stream and the driver share it.
pub(crate) struct Reader {
    pub id: u64,
    pub first: PieceIndex,
    pub end: Option<PieceIndex>,
    /// The piece it needs next.
    next: AtomicU32,
    closed: AtomicBool,
    failure: OnceLock<Error>,
    pub source: OriginSource,
    /// Nobody waits for it: others go first.
    pub background: bool,
    /// Wakes the stream when bytes or bad news are there.
    pub waker: Arc<Notify>,
    /// Its place among those who share the memory: it has none while it rests.
    counted: Arc<Counted>,
    rest: Mutex<Rest>,
}

/// A handle on a stream, by which the task that hands its bytes on says that the client takes none of them.
#[derive(Clone)]
pub struct Pause {
    task: Weak<TaskHandle>,
    /// A connection keeps this longer than its stream is there, and a reader has a share of the memory for as
    /// long as it is.
    reader: Weak<Reader>,
}

/// Whether a reader takes what is there.
struct Rest {
    /// When its stream was last asked for bytes, or went on waiting for them.
    asked: Instant,
    /// What was handed over since is not taken either.
    stands_still: bool,
    rests: bool,
}

/// The readers of one task. Streams say here how far they are; nothing of it can get lost on a
/// full channel.
#[derive(Default)]
pub(crate) struct Readers {
    list: Mutex<BTreeMap<u64, Arc<Reader>>>,
    counter: AtomicU64,
    pub changed: Notify,
}

impl Readers {
    pub fn open(
        &self,
        first: PieceIndex,
        end: Option<PieceIndex>,
        source: OriginSource,
        background: bool,
        counted: Arc<Counted>,
    ) -> Arc<Reader> {
        let id = self.counter.fetch_add(1, Ordering::Relaxed);
        let reader = Arc::new(Reader {
            id,
            first,
            end,
            next: AtomicU32::new(first.get()),
            closed: AtomicBool::new(false),
            failure: OnceLock::new(),
            source,
            background,
            waker: Arc::new(Notify::new()),
            counted,
            rest: Mutex::new(Rest {
                asked: Instant::now(),
                stands_still: false,
                rests: false,
            }),
        });
        self.list.lock().insert(id, reader.clone());
        self.changed.notify_one();
        reader
    }

    /// The reader has taken all before `next`.
    pub fn took(&self, reader: &Reader, next: PieceIndex) {
        reader.next.store(next.get(), Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// The reader wants bytes now: it rests no more.
    pub fn asks(&self, reader: &Reader) {
        let rested = {
            let mut rest = reader.rest.lock();
            rest.asked = Instant::now();
            rest.stands_still = false;
            std::mem::take(&mut rest.rests)
        };
        if rested {
            reader.counted.count(true);
            self.changed.notify_one();
        }
    }

    pub fn close(&self, reader: &Reader) {
        reader.closed.store(true, Ordering::Relaxed);
        self.list.lock().remove(&reader.id);
        self.changed.notify_one();
    }

    pub fn all(&self) -> Vec<Arc<Reader>> {
        self.list.lock().values().cloned().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.list.lock().is_empty()
    }

    /// Ends every reader with an error.
    pub fn fail(&self, error: &Error) {
        for reader in self.all() {
            reader.fail(error.clone());
        }
    }
}

impl Reader {
    pub fn next(&self) -> PieceIndex {
        PieceIndex::new(self.next.load(Ordering::Relaxed))
    }

    /// Lets it rest if nobody has asked for its bytes since `then`, though there are some to be had;
    /// whether it rests now.
    pub fn rest_unless_asked_since(&self, then: Instant, has_bytes: impl FnOnce() -> bool) -> bool {
        let mut rest = self.rest.lock();
        if !rest.rests && rest.asked <= then && has_bytes() {
            rest.rests = true;
            self.counted.count(false);
        }
        rest.rests
    }

    /// Its place among those who share the memory.
    pub fn place(&self) -> Arc<Counted> {
        self.counted.clone()
    }

    /// Whether it is known to take nothing of what it was handed.
    pub fn stands_still(&self) -> bool {
        self.rest.lock().stands_still
    }

    /// Whether it takes nothing of what is there.
    pub fn rests(&self) -> bool {
        self.rest.lock().rests
    }

    pub fn fail(&self, error: Error) {
        // The first reason is the one to tell.
        let _ = self.failure.set(error);
        self.waker.notify_one();
    }

    pub fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }
}

impl Pause {
    pub(crate) fn new(task: &Arc<TaskHandle>, reader: &Arc<Reader>) -> Self {
        let (task, reader) = (Arc::downgrade(task), Arc::downgrade(reader));
        Self { task, reader }
    }

    /// What is kept for the reader may serve others as soon as they need it, until it asks for more.
    pub fn stands_still(&self) {
        let (Some(task), Some(reader)) = (self.task.upgrade(), self.reader.upgrade()) else {
            return;
        };
        let known = std::mem::replace(&mut reader.rest.lock().stands_still, true);
        if !known {
            task.readers.changed.notify_one();
        }
    }
}

impl std::fmt::Debug for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pause").field(&self.reader).finish()
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("id", &self.id)
            .field("next", &self.next())
            .finish_non_exhaustive()
    }
}
