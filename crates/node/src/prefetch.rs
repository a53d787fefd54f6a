//! Reads what readers of ranges are likely to want next, in the background.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use pantala_core::ByteRange;
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

/// How many may read ahead at once within this much memory: all of them fill a quarter of it.
pub(crate) fn slots(memory: u64) -> Arc<Semaphore> {
    let slots = usize::try_from(memory / 4 / SHARE).unwrap_or(MOST);
    Arc::new(Semaphore::new(slots.clamp(1, MOST)))
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
        let (start, end) = match prefetch {
            Prefetch::None => return,
            Prefetch::All => {
                let whole = content.start == 0 && Some(end) == length;
                if whole || task.read_ahead.swap(true, Ordering::Relaxed) {
                    return;
                }
                (0, length)
            }
            Prefetch::Window => {
                let piece_size = geometry.piece_size();
                let mut sequences = task.sequences.lock();
                match sequences.read(content.start, end, piece_size, length) {
                    Some(range) => (range.start, Some(range.end)),
                    None => return,
                }
            }
        };
        if let Some(range) = ByteRange::new(start, end) {
            self.spawn_reader(request, &task, range);
        }
    }

    /// Reads a range for nobody. When there are too many such readers it is left out: whoever
    /// wants it reads it.
    fn spawn_reader(&self, request: &ContentRequest, task: &Arc<TaskHandle>, range: ByteRange) {
        let Ok(slot) = self.prefetchers().clone().try_acquire_owned() else {
            return;
        };
        let request = ContentRequest {
            range: Some(Range::Bytes(range)),
            background: true,
            limit_rate: None,
            ..request.clone()
        };
        let (this, id) = (self.clone(), task.id);
        self.spawn(async move {
            let _slot = slot;
            let opened = Arrival::new(&this, Instant::now());
            // The task may be gone by now, and with it everybody who wanted it.
            let Ok(mut content) = this.attach(id, &request, &opened, false) else {
                return;
            };
            while let Ok(Some(_)) = content.stream.next().await {}
        });
    }
}
