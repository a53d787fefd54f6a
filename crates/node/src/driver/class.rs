//! Who goes first: whether anybody waits for this task, and what it does about those that somebody
//! waits for.

use std::time::Duration;

use pantala_store::Slot;
use pantala_window::{Class, Event};
use pantala_wire::link::BACKGROUND;
use tokio::time::Instant;

use super::{Attempt, Driver};
use crate::readers::Reader;

/// How long nobody must have waited for bytes until the background goes on: between two pieces of
/// a reader's there is no room for others'.
const QUIET: Duration = Duration::from_millis(200);

impl Driver {
    /// Finds out what this task is to others: of the background when nobody waits for it, neither
    /// here nor at a child; and then it pauses while somebody here waits for another one.
    pub(super) fn classify(&mut self) {
        let waited_for = |reader: &Reader| !reader.background;
        let readers = || self.readers.values().map(|told| &*told.reader);
        let background = !self.readers.is_empty()
            && !readers().any(waited_for)
            && self.handle.awaited.lock().is_empty();
        if background != self.yielding.is_some() {
            self.yielding = background.then(|| self.ports.line.yielding());
            self.urge();
        }
        let hungry = self.ports.line.matters() && readers().any(|reader| self.starves(reader));
        if hungry != self.claim.is_some() {
            self.claim = hungry.then(|| self.ports.line.claim());
        }
        let now = Instant::now();
        if !background {
            self.pause_until = None;
        } else if !self.ports.line.is_free() {
            self.pause_until = Some(now + QUIET);
        } else if self.pause_until.is_some_and(|until| now >= until) {
            self.pause_until = None;
        }
        let class = match self.pause_until {
            Some(_) => Class::Paused,
            None if background => Class::Background,
            None => Class::Foreground,
        };
        if class != self.class {
            self.class = class;
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

    /// How urgent a request is among all that its parent has.
    pub(super) fn urgency(&self, attempt: &Attempt) -> u32 {
        match self.yielding {
            Some(_) => attempt.urgency | BACKGROUND,
            None => attempt.urgency,
        }
    }

    /// Tells parents that what they were asked for is of another class now.
    fn urge(&self) {
        for (&id, attempt) in &self.attempts {
            let link = self
                .parents
                .get(&attempt.parent)
                .and_then(|peer| self.links.get(peer)?.link.as_ref());
            if let (Some(link), Some(_)) = (link, &attempt.buffer) {
                link.urge(self.handle.id, id, self.urgency(attempt));
            }
        }
    }
}
