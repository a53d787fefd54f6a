//! What one parent was asked for and has not answered yet.
//!
//! Invariant: every request is here under its number, and by its name as long as nobody has cancelled it.

use std::collections::HashMap;

use pantala_core::TaskId;
use pantala_window::AttemptId;
use pantala_wire::link::ToParent;

use super::orders::Want;

#[derive(Default)]
pub(super) struct Requests {
    next: u32,
    open: HashMap<u32, Want>,
    /// The request a block is being read for now: it is not among the others meanwhile.
    reading: Option<Reading>,
    numbers: HashMap<(TaskId, AttemptId), u32>,
}

/// A request a block is being read for.
struct Reading {
    request: u32,
    task: TaskId,
    /// It was cancelled meanwhile.
    cancelled: bool,
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
        self.numbers.insert((want.task, want.attempt), request);
        self.open.insert(request, want);
        self.tidy();
        message
    }

    /// A request is of another urgency now; gives what the parent is to be told.
    pub fn urge(&mut self, task: TaskId, attempt: AttemptId, urgency: u32) -> Option<ToParent> {
        let request = *self.numbers.get(&(task, attempt))?;
        if let Some(want) = self.open.get_mut(&request) {
            want.urgency = urgency;
        }
        Some(ToParent::Urge { request, urgency })
    }

    /// A request is not needed any more; gives what the parent is to be told.
    pub fn cancel(&mut self, task: TaskId, attempt: AttemptId) -> Option<ToParent> {
        let request = self.numbers.remove(&(task, attempt))?;
        if self.open.remove(&request).is_none() {
            self.cancel_reading(|reading| reading.request == request);
        }
        Some(ToParent::Cancel { request })
    }

    /// Nothing is needed of a task any more. The parent drops what it was asked for of it by itself, and
    /// nobody here waits for it: its memory must not wait either.
    pub fn cancel_all_of(&mut self, task: TaskId) {
        self.open.retain(|_, want| want.task != task);
        self.cancel_reading(|reading| reading.task == task);
        self.numbers.retain(|(of, _), _| *of != task);
    }

    /// Takes a request out for as long as a block of it is being read.
    pub fn take(&mut self, request: u32) -> Option<Want> {
        let want = self.open.remove(&request)?;
        self.reading = Some(Reading {
            request,
            task: want.task,
            cancelled: false,
        });
        Some(want)
    }

    /// The block has been read.
    pub fn put_back(&mut self, request: u32, want: Want) {
        let reading = self.reading.take();
        if reading.is_some_and(|reading| !reading.cancelled) {
            self.open.insert(request, want);
        }
    }

    /// The parent has said its last word on a request.
    pub fn end(&mut self, request: u32) -> Option<Want> {
        self.open.remove(&request)
    }

    /// The connection has ended: what is left.
    pub fn end_all(self) -> impl Iterator<Item = Want> {
        self.open.into_values()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Lets go of the request a block is being read for once the block has been read, if it is this one.
    fn cancel_reading(&mut self, is_it: impl FnOnce(&Reading) -> bool) {
        if let Some(reading) = self.reading.as_mut() {
            reading.cancelled |= is_it(reading);
        }
    }

    fn tidy(&mut self) {
        let Self { open, numbers, .. } = self;
        if numbers.len() > 2 * open.len() + 64 {
            numbers.retain(|_, request| open.contains_key(request));
        }
    }
}
