//! Reads what readers of ranges are likely to want next, in the background.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use hashlink::LruCache;
use pantala_core::{ByteRange, Geometry, TaskId};
use pantala_window::Sequences;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    node::{Arrival, Content, ContentRequest, Node, Range},
    task::TaskHandle,
};

/// What is read besides the ranges that readers ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefetch {
    /// Nothing.
    None,
    /// What follows, when ranges come one after the other.
    #[default]
    Window,
    /// The whole content.
    All,
}

/// How much memory one that reads ahead may fill before somebody reads it.
const SHARE: u64 = 16 << 20;
/// Those who read ahead at once, at most.
const MOST: usize = 64;

/// Contents whose ranges are watched.
const WATCHED: usize = 256;

/// What is known of those who read ranges, and who reads ahead of them.
pub(crate) struct ReadAhead {
    /// How many more may read ahead: all of them fill a quarter of the memory.
    slots: Arc<Semaphore>,
    /// The ranges that were read. Not in the task, which ends when memory holds nothing of it.
    sequences: Mutex<LruCache<TaskId, Sequences>>,
}

impl ReadAhead {
    pub fn new(memory: u64) -> Self {
        let slots = usize::try_from(memory / 4 / SHARE).unwrap_or(MOST);
        Self {
            slots: Arc::new(Semaphore::new(slots.clamp(1, MOST))),
            sequences: LruCache::new(WATCHED).into(),
        }
    }

    /// Somebody reads `start..end`: what of the content should be read ahead.
    fn read(&self, task: TaskId, start: u64, end: u64, geometry: Geometry) -> Option<ByteRange> {
        let mut sequences = self.sequences.lock();
        let of_task = sequences.entry(task).or_insert_with(Sequences::default);
        let ahead = of_task.read(start, end, geometry.piece_size(), geometry.length())?;
        ByteRange::new(ahead.start, Some(ahead.end))
    }
}

impl Node {
    /// A reader has opened this part of a content: reads ahead of it, if that is wanted.
    pub(crate) fn read_ahead(&self, request: &ContentRequest, content: &Content) {
        let prefetch = self.prefetch();
        if prefetch == Prefetch::None || request.range.is_none() || request.background {
            return;
        }
        let Some(task) = self.task_of(&content.task) else {
            return;
        };
        let geometry = task.pieces.geometry();
        let length = geometry.length();
        let end = content.end.or(length).unwrap_or(content.start);
        let range = match prefetch {
            Prefetch::None => None,
            Prefetch::All => {
                let whole = content.start == 0 && Some(end) == length;
                if whole || task.read_ahead.swap(true, Ordering::Relaxed) {
                    return;
                }
                ByteRange::new(0, length)
            }
            Prefetch::Window => {
                let ahead = self.reading_ahead();
                ahead.read(content.task, content.start, end, geometry)
            }
        };
        if let Some(range) = range {
            self.spawn_reader(request, &task, range);
        }
    }

    /// Reads a range for nobody. When there are too many such readers it is left out: whoever
    /// wants it reads it.
    fn spawn_reader(&self, request: &ContentRequest, task: &Arc<TaskHandle>, range: ByteRange) {
        let Ok(slot) = self.reading_ahead().slots.clone().try_acquire_owned() else {
            return;
        };
        let request = ContentRequest {
            range: Some(Range::Bytes(range)),
            background: true,
            ask_again: false,
            interim: None,
            limit_rate: None,
            ..request.clone()
        };
        let (this, id) = (self.clone(), task.id);
        let meta = task.meta.read().clone();
        self.spawn(async move {
            let _slot = slot;
            let opened = Arrival::new(&this, Instant::now());
            // The task may be gone by now, and with it everybody who wanted it.
            let Ok(mut content) = this.attach(id, meta, &request, &opened, false) else {
                return;
            };
            while let Ok(Some(_)) = content.stream.next().await {}
        });
    }
}
