//! The readers of a task: what its brain is told of them, and when they rest.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pantala_core::PieceIndex;
use pantala_origin::Asker;
use pantala_store::Slot;
use pantala_window::{Event, ReaderId};
use tokio::time::Instant;

use super::Driver;
use crate::readers::{OriginSource, Reader};

/// The readers that the brain knows of.
///
/// Invariant: the brain has one window for each of these, from the piece on and as resting as is written
/// here.
pub(super) struct Told {
    readers: BTreeMap<u64, Known>,
    /// Where the last one that came would get the content without us.
    last_source: Option<OriginSource>,
    /// How large a window may be, in pieces.
    share: u32,
    /// When it is looked for readers that take nothing.
    rest_at: Instant,
}

/// A reader, and what the brain was told of it.
struct Known {
    reader: Arc<Reader>,
    next: PieceIndex,
    rests: bool,
}

/// A reader that takes nothing of what is there for this long rests, and its memory may serve others. It is
/// fixed, because how long a client pauses follows from nothing that this node measures.
const REST: Duration = Duration::from_secs(1);

impl Told {
    pub fn new(now: Instant) -> Self {
        Self {
            readers: BTreeMap::new(),
            last_source: None,
            share: 0,
            rest_at: now + REST,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Reader> {
        self.readers.values().map(|known| &*known.reader)
    }

    /// Whether there has ever been one.
    pub fn were_there(&self) -> bool {
        self.last_source.is_some()
    }

    pub fn all_rest(&self) -> bool {
        self.readers.values().all(|known| known.rests)
    }

    /// When it is time to look for readers that take nothing.
    pub fn next_rest(&self) -> Option<Instant> {
        (!self.is_empty()).then_some(self.rest_at)
    }

    /// Where a transfer asks the origin, and for whom: for a reader of this host if there is one, since a
    /// transfer for a stranger may be refused where that one's is not.
    fn source(&self) -> Option<&OriginSource> {
        let sources = self.iter().map(|reader| &reader.source);
        let of_this_host_first = |source: &&OriginSource| source.asker != Asker::Host;
        sources
            .min_by_key(of_this_host_first)
            .or(self.last_source.as_ref())
    }

    /// These readers are there now: what the brain is to hear of those that have gone or moved, and the new
    /// ones.
    fn update(
        &mut self,
        now: BTreeMap<u64, Arc<Reader>>,
        may_rest: bool,
    ) -> (Vec<Event>, Vec<Arc<Reader>>) {
        let (mut news, mut new) = (Vec::new(), Vec::new());
        self.readers.retain(|id, _| {
            let stays = now.contains_key(id);
            if !stays {
                let reader = ReaderId(*id);
                news.push(Event::ReaderClosed { reader });
            }
            stays
        });
        for (id, reader) in now {
            let (next, rests) = (reader.next(), may_rest && reader.rests());
            let Some(known) = self.readers.get_mut(&id) else {
                new.push(reader);
                continue;
            };
            let moved = std::mem::replace(&mut known.next, next) != next;
            let turned = std::mem::replace(&mut known.rests, rests) != rests;
            let reader = ReaderId(id);
            if moved {
                news.push(Event::ReaderTook { reader, next });
            }
            if turned {
                news.push(Event::ReaderRests { reader, rests });
            }
        }
        (news, new)
    }

    /// One more reader; what the brain is to hear.
    fn add(&mut self, reader: Arc<Reader>) -> Event {
        self.last_source = Some(reader.source.clone());
        let (id, first, end) = (reader.id, reader.next().max(reader.first), reader.end);
        let known = Known {
            reader,
            next: first,
            rests: false,
        };
        self.readers.insert(id, known);
        let reader = ReaderId(id);
        Event::ReaderOpened { reader, first, end }
    }

    /// Lets readers rest that have taken nothing for a while of what is there for them, or, while others
    /// wait for memory, whose clients are known to stand still. Whether any does now that did not.
    fn let_rest(&self, pressed: bool, now: Instant, is_here: impl Fn(PieceIndex) -> bool) -> bool {
        let mut rested = false;
        for known in self.readers.values().filter(|known| !known.rests) {
            let next = known.reader.next();
            let since = match pressed && known.reader.stands_still() {
                true => now,
                false => now - REST,
            };
            let has_bytes = || is_here(next);
            rested |= known.reader.rest_unless_asked_since(since, has_bytes);
        }
        rested
    }
}

impl Driver {
    pub(super) fn source(&self) -> Option<&OriginSource> {
        self.readers.source()
    }

    pub(super) fn sync_readers(&mut self) {
        let readers = self.handle.readers.all().into_iter();
        let now: BTreeMap<u64, Arc<Reader>> = readers.map(|reader| (reader.id, reader)).collect();
        self.read_on_for_others(&now);
        // What a reader needs next and no other transfer could bring again stays, whether it rests or not.
        let may_rest = !self.is_single();
        let (news, new) = self.readers.update(now, may_rest);
        for event in news {
            self.feed(event);
        }
        for reader in new {
            self.want_links();
            self.sync_share();
            let opened = self.readers.add(reader);
            self.feed(opened);
        }
        self.follow_others();
    }

    pub(super) fn readers_changed(&mut self) {
        self.sync_readers();
        if self.is_pressed() {
            self.let_rest(Instant::now());
        }
    }

    /// Whether anybody waits for memory.
    fn is_pressed(&self) -> bool {
        self.ports.store.budget().waiting() > 0
    }

    /// Lets readers rest now and then, and whenever somebody waits for memory.
    pub(super) fn look_for_rest(&mut self, now: Instant) {
        if now >= self.readers.rest_at || self.is_pressed() {
            self.readers.rest_at = now + REST / 2;
            self.let_rest(now);
        }
    }

    fn let_rest(&mut self, now: Instant) {
        let pieces = &self.handle.pieces;
        let is_here = |piece| matches!(pieces.slot(piece), Slot::Held(_));
        if self.readers.let_rest(self.is_pressed(), now, is_here) {
            self.sync_readers();
        }
    }

    pub(super) fn sync_share(&mut self) {
        let readers = *self.ports.readers.borrow_and_update();
        // A quarter is left for what children want and what is on its way to sockets.
        let bytes = self.ports.store.budget().limit() / 4 * 3 / readers.max(1) as u64;
        let pieces = bytes / self.handle.pieces.geometry().piece_size();
        let pieces = pieces.clamp(1, u64::from(u32::MAX)) as u32;
        if pieces != self.readers.share {
            self.readers.share = pieces;
            self.feed(Event::Share { pieces });
        }
    }
}
