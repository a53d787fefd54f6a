//! Who goes first: whether anybody waits for this task, and what it does about those that somebody
//! waits for.

use std::time::Duration;

use pantala_store::Slot;
use pantala_window::{Class, Event};
use pantala_wire::link::BACKGROUND;
use tokio::time::Instant;

use super::{Driver, request::Request};
use crate::{
    line::{LineClaim, Yielding},
    readers::Reader,
};

/// The standing of the task: its class, and what that means to others on this host and at its parents.
///
/// Invariant: only a task of the background yields, and only such a one pauses.
pub(super) struct Standing {
    class: Class,
    /// Made while the task is of the background.
    yielding: Option<Yielding>,
    /// Made while a reader here waits for a piece, if that makes a difference to anybody.
    claim: Option<LineClaim>,
    /// How long the background pauses.
    pause_until: Option<Instant>,
}

/// How long nobody must have waited for bytes until the background goes on: between two pieces of
/// a reader's there is no room for others'.
const QUIET: Duration = Duration::from_millis(200);

impl Standing {
    pub fn new() -> Self {
        Self {
            class: Class::Foreground,
            yielding: None,
            claim: None,
            pause_until: None,
        }
    }

    pub fn current(&self) -> Class {
        self.class
    }

    /// When a pause may be over.
    pub fn pause_until(&self) -> Option<Instant> {
        self.pause_until
    }

    /// How urgent a request is among all that its parent has.
    pub fn urgency(&self, request: &Request) -> u32 {
        match self.yielding {
            Some(_) => request.urgency | BACKGROUND,
            None => request.urgency,
        }
    }

    /// Of which class the task is from now on, if that is another one. Somebody waits for something else
    /// unless the line `is_free`.
    fn turn(&mut self, is_free: bool, now: Instant) -> Option<Class> {
        let background = self.yielding.is_some();
        if !background {
            self.pause_until = None;
        } else if !is_free {
            self.pause_until = Some(now + QUIET);
        } else if self.pause_until.is_some_and(|until| now >= until) {
            self.pause_until = None;
        }
        let class = match self.pause_until {
            Some(_) => Class::Paused,
            None if background => Class::Background,
            None => Class::Foreground,
        };
        (std::mem::replace(&mut self.class, class) != class).then_some(class)
    }
}

impl Driver {
    /// Finds out what this task is to others: of the background when nobody waits for it, neither
    /// here nor at a child; and then it pauses while somebody here waits for another one.
    pub(super) fn classify(&mut self) {
        let waited_for = |reader: &Reader| !reader.background;
        let background = !self.readers.is_empty()
            && !self.readers.iter().any(waited_for)
            && self.handle.awaited.lock().is_empty();
        let line = &self.ports.line;
        if background != self.class.yielding.is_some() {
            self.class.yielding = background.then(|| line.yielding());
            self.urge();
        }
        let line = &self.ports.line;
        let hungry = line.matters() && self.readers.iter().any(|reader| self.starves(reader));
        if hungry != self.class.claim.is_some() {
            self.class.claim = hungry.then(|| line.claim());
        }
        if let Some(class) = self.class.turn(line.is_free(), Instant::now()) {
            self.feed(Event::Class(class));
        }
    }

    /// Whether a reader waits for a piece that is not here.
    fn starves(&self, reader: &Reader) -> bool {
        let next = reader.next();
        !reader.background
            && !reader.rests()
            && reader.end.is_none_or(|end| next < end)
            && self.handle.pieces.geometry().has(next)
            && !matches!(self.handle.pieces.slot(next), Slot::Held(_))
    }

    /// Tells parents that what they were asked for is of another class now.
    fn urge(&self) {
        for (attempt, request) in self.requests.at_links() {
            if let Some(link) = self.parents.link(request.parent) {
                link.urge(self.handle.id, attempt, self.class.urgency(request));
            }
        }
    }
}
