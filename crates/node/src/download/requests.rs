//! The requests of one link: its parent was asked for them and has not answered yet. Drivers make them
//! (`driver/requests.rs` has their states).
//!
//! Invariant: a request has a number, which the parent answers by, and a name, which its driver cancels it
//! by. It has both until the parent's last word, or until it is cancelled, and no longer.

use std::collections::HashMap;

use pantala_core::TaskId;
use pantala_window::AttemptId;
use pantala_wire::link::ToParent;

use super::orders::Want;

#[derive(Default)]
pub(super) struct Requests {
    next: u32,
    open: HashMap<u32, Open>,
    numbers: HashMap<Name, u32>,
}

/// The name of a request: its driver calls it that.
type Name = (TaskId, AttemptId);

struct Open {
    name: Name,
    /// `None` while a block of it is being read.
    want: Option<Want>,
}

impl Requests {
    /// A request is made; gives what the parent is to be told.
    pub fn ask(&mut self, want: Want) -> ToParent {
        let request = self.next;
        self.next = self.next.wrapping_add(1);
        let message = ToParent::Want {
            request,
            task: want.task,
            piece: want.piece,
            offset: want.writer.position() as u32,
            urgency: want.urgency,
        };
        let name = (want.task, want.attempt);
        let want = Some(want);
        self.numbers.insert(name, request);
        self.open.insert(request, Open { name, want });
        self.check();
        message
    }

    /// A request is of another urgency now; gives what the parent is to be told.
    pub fn urge(&mut self, task: TaskId, attempt: AttemptId, urgency: u32) -> Option<ToParent> {
        let request = *self.numbers.get(&(task, attempt))?;
        Some(ToParent::Urge { request, urgency })
    }

    /// A request is not needed any more; gives what the parent is to be told. A block of it that is being
    /// read is read to its end.
    pub fn cancel(&mut self, task: TaskId, attempt: AttemptId) -> Option<ToParent> {
        let request = self.numbers.remove(&(task, attempt))?;
        self.open.remove(&request);
        self.check();
        Some(ToParent::Cancel { request })
    }

    /// Nothing is needed of a task any more. The parent drops what it was asked for of it by itself, and
    /// nobody here waits for it: its memory must not wait either.
    pub fn cancel_all_of(&mut self, task: TaskId) {
        self.open.retain(|_, open| open.name.0 != task);
        self.numbers.retain(|(of, _), _| *of != task);
        self.check();
    }

    /// Takes a request out for as long as a block of it is being read.
    pub fn take(&mut self, request: u32) -> Option<Want> {
        self.open.get_mut(&request)?.want.take()
    }

    /// The block has been read. A request that was cancelled meanwhile goes, and its memory with it.
    pub fn put_back(&mut self, request: u32, want: Want) {
        if let Some(open) = self.open.get_mut(&request) {
            debug_assert!(open.want.is_none(), "only one block is read at a time");
            open.want = Some(want);
        }
    }

    /// The parent has said its last word on a request.
    pub fn end(&mut self, request: u32) -> Option<Want> {
        let Open { name, want } = self.open.remove(&request)?;
        self.numbers.remove(&name);
        self.check();
        want
    }

    /// The connection has ended: what is left.
    pub fn end_all(self) -> impl Iterator<Item = Want> {
        self.open.into_values().filter_map(|open| open.want)
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn check(&self) {
        debug_assert_eq!(self.open.len(), self.numbers.len());
    }
}
