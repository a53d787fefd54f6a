//! The tasks that one child follows or has asked for pieces of, and what it is told of them.
//!
//! A task is in one of three states for a child: unheard of; asked about, but not known here; known here, with news
//! of it or without. This file must not know what is sent of a task, or when.

use std::{collections::HashMap, sync::Arc, time::Duration};

use hashlink::LinkedHashSet;
use pantala_core::{PieceIndex, TaskId, control::PieceRun};
use pantala_store::{Change, PieceBuffer, Slot as Present};
use pantala_wire::link::ToChild;
use tokio::sync::{
    Notify,
    broadcast::{self, error::TryRecvError},
};

use super::outgoing::Messages;
use crate::{
    limiter::Passage,
    task::{Following, TaskHandle, Tasks},
};

/// Tasks that one child may ask about though this peer does not know them; the one that was asked about
/// first is forgotten for more.
pub(super) const UNKNOWN_TASKS: usize = 256;
/// How long a request may wait for a task that this peer has not heard of yet.
pub(super) const UNKNOWN_TASK: Duration = Duration::from_secs(2);

/// What one child wants to know.
#[derive(Default)]
pub(super) struct News {
    known: HashMap<TaskId, Followed>,
    /// Tasks that were asked about but are not known here yet.
    unknown: LinkedHashSet<TaskId>,
    /// Notified when anything happens in a known task.
    pub waker: Arc<Notify>,
}

/// A task that this peer knows and of which a child wants news or pieces.
pub(super) struct Followed {
    pub handle: Arc<TaskHandle>,
    /// `None` when the child only wants pieces, not news.
    news: Option<broadcast::Receiver<Change>>,
    /// The next block's way through the limits, whichever request it will be for.
    pub passage: Passage,
    /// It was closed before this child followed it.
    closed: bool,
    _counts: Following,
}

impl News {
    pub fn get(&self, task: &TaskId) -> Option<&Followed> {
        self.known.get(task)
    }

    pub fn get_mut(&mut self, task: &TaskId) -> Option<&mut Followed> {
        self.known.get_mut(task)
    }

    /// Whether the child has asked about no task.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.unknown.is_empty()
    }

    /// Whether the child has asked about a task that is not known here.
    pub fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Whether the child wants to hear of a task as soon as that is known here.
    pub fn wonders(&self, task: &TaskId) -> bool {
        self.unknown.contains(task)
    }

    /// Watches a task, if there is one of that name, so that what happens in it wakes this child's requests.
    /// Gives it when that is new to the child.
    pub fn discover(&mut self, task: TaskId, tasks: &Tasks) -> Option<&Followed> {
        if self.known.contains_key(&task) {
            return None;
        }
        // One that is closed is as good as not there.
        let open = |handle: &Arc<TaskHandle>| !handle.pieces.is_closed();
        let handle = tasks.get(&task).filter(open)?;
        handle.pieces.wake_on_progress(&self.waker);
        let followed = Followed {
            _counts: Following::new(&handle),
            handle,
            news: None,
            passage: Passage::default(),
            closed: false,
        };
        Some(self.known.entry(task).or_insert(followed))
    }

    /// Tells the child what is here of a known task, and from now on what changes. Of another one it is told
    /// when that comes.
    pub fn follow(&mut self, task: TaskId, out: &mut Messages) {
        match self.known.get_mut(&task) {
            Some(followed) => {
                followed.tell_all(out);
                self.unknown.remove(&task);
            }
            None => self.wonder(task),
        }
    }

    /// The child wants to hear of a task as soon as it comes.
    fn wonder(&mut self, task: TaskId) {
        self.unknown.insert(task);
        if self.unknown.len() > UNKNOWN_TASKS {
            self.unknown.pop_front();
        }
    }

    /// Nothing more of a task.
    pub fn unfollow(&mut self, task: &TaskId) {
        self.unknown.remove(task);
        if let Some(followed) = self.known.remove(task) {
            // What happens in it is no reason any more to wake this child.
            followed.handle.pieces.wake_no_more(&self.waker);
        }
    }

    /// The tasks that the child has asked about and that were not known here.
    pub fn unknown(&self) -> Vec<TaskId> {
        self.unknown.iter().copied().collect()
    }

    /// Tells the child what happened in the followed tasks; gives those that were closed. The content of such a
    /// one may come back under the same name.
    pub fn tell(&mut self, out: &mut Messages) -> Vec<TaskId> {
        let mut closed = Vec::new();
        for (&task, followed) in &mut self.known {
            if followed.tell(out) {
                closed.push(task);
            }
        }
        for &task in &closed {
            let followed = self.known.remove(&task);
            if followed.is_some_and(|followed| followed.news.is_some()) {
                self.wonder(task);
            }
        }
        closed
    }
}

impl Followed {
    /// What is here of a piece, and whether that is all.
    pub fn present(&self, piece: PieceIndex) -> Option<(Arc<PieceBuffer>, bool)> {
        match self.handle.pieces.slot(piece) {
            Present::Held(buffer) => Some((buffer, true)),
            Present::Filling { buffer, .. } => {
                let complete = buffer.len() == buffer.capacity();
                Some((buffer, complete))
            }
            Present::Missing => None,
        }
    }

    /// Whether a piece of which so many bytes were sent is not here and will not come.
    pub fn is_hopeless(&self, piece: PieceIndex, sent: usize) -> bool {
        // Bytes that were sent and are gone were wrong or given up.
        matches!(self.handle.pieces.slot(piece), Present::Missing)
            && (sent > 0 || !self.handle.planned.lock().covers(piece))
    }

    /// Tells what is here; what happens from now on is news.
    fn tell_all(&mut self, out: &mut Messages) {
        let task = self.handle.id;
        let (held, receiving, news) = self.handle.pieces.follow();
        self.news = Some(news);
        // That is no news then.
        self.closed = self.handle.pieces.is_closed();
        if !held.is_empty() {
            let runs = held.runs();
            out.say(&ToChild::Holds { task, runs });
        }
        for piece in receiving.iter() {
            out.say(&ToChild::Receiving { task, piece });
        }
    }

    /// Tells what happened; gives whether the task was closed.
    fn tell(&mut self, out: &mut Messages) -> bool {
        let task = self.handle.id;
        loop {
            let Some(news) = self.news.as_mut().filter(|_| !self.closed) else {
                return self.closed || self.handle.pieces.is_closed();
            };
            match news.try_recv() {
                Ok(Change::Receiving(piece)) => out.say(&ToChild::Receiving { task, piece }),
                Ok(Change::Held(piece)) => {
                    let runs = one(piece);
                    out.say(&ToChild::Holds { task, runs });
                }
                // To a child both mean that the piece is not to be had here now.
                Ok(Change::Evicted(piece) | Change::Abandoned(piece)) => {
                    let runs = one(piece);
                    out.say(&ToChild::Lost { task, runs });
                }
                Ok(Change::Ended(_)) => {}
                Ok(Change::Closed) => return true,
                Err(TryRecvError::Lagged(_)) => {
                    // Too much happened: everything anew.
                    let runs = vec![(PieceIndex::new(0), u32::MAX)];
                    out.say(&ToChild::Lost { task, runs });
                    self.tell_all(out);
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return false,
            }
        }
    }
}

fn one(piece: PieceIndex) -> Vec<PieceRun> {
    vec![(piece, 1)]
}
