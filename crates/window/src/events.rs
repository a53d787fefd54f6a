//! Takes events into the state; whether anything is to be decided then is what each says.

use std::time::Duration;

use pantala_core::PieceIndex;

use crate::{
    AttemptId, Class, Event, Failure, ParentId, ReaderId, RunId, Window,
    parents::Parent,
    picker::{Picker, Supernode},
};

/// How long a parent is left alone that said it has too much to do.
const BUSY_REST: Duration = Duration::from_millis(100);
/// The longest that a piece is taken to need usually.
const USUAL_MAX: Duration = Duration::from_secs(4);

impl Picker {
    /// Takes an event into the state; says whether there may be something to decide.
    pub(crate) fn note(&mut self, event: Event) -> bool {
        match event {
            Event::ReaderOpened { reader, first, end } => self.opened(reader, first, end),
            Event::ReaderTook { reader, next } => return self.took(reader, next),
            Event::ReaderRests { reader, rests } => {
                let now = self.now;
                if let Some(window) = self.readers.get_mut(reader) {
                    window.rest(rests, now);
                }
            }
            Event::ReaderClosed { reader } => {
                self.readers.remove(reader);
            }
            Event::Share { pieces } => {
                self.share = pieces.max(1);
                for window in self.readers.values_mut() {
                    window.set_share(self.config.window, self.share);
                }
            }
            Event::Ended { pieces } => self.ended(PieceIndex::new(pieces)),
            Event::SupernodeUp => {
                self.supernode = Supernode::Up;
                self.desperate.clear();
            }
            Event::SupernodeDown => self.supernode_down(),
            Event::LeaseGranted { first, end } => {
                self.leases.insert(first, end);
                self.asks.clear();
                // The origin is asked by us now: what waits elsewhere waits in vain, and
                // what trickles in would have come sooner if it could.
                let leases = self.leases.clone();
                self.release(|parents, piece, attempt| {
                    let parent = parents.known.get(attempt.parent);
                    leases.contains(piece)
                        && (attempt.bytes == 0 || !parent.is_some_and(|parent| parent.holds(piece)))
                });
            }
            Event::LeaseEnded { first, end } => self.leases.remove(first, end),
            Event::Vouched { first, count } => {
                let end = PieceIndex::new(first.get().saturating_add(count));
                self.vouched.insert(first, Some(end));
                return matches!(self.supernode, Supernode::Down { .. });
            }
            Event::Sealed { piece } => self.sealed(piece),
            Event::Evicted { piece } => {
                self.held.remove(piece);
            }
            Event::RunAt { run, piece } => return self.run_at(run, piece),
            Event::RunFailed { run, fatal, rest } => self.run_failed(run, fatal, rest),
            Event::OriginFailed => self.origin_failed(),
            Event::Progress { attempt, bytes } => {
                self.progressed(attempt, bytes);
                return false;
            }
            Event::Fetched { attempt, bytes } => return self.fetched(attempt, bytes),
            Event::Failed { attempt, failure } => return self.failed(attempt, failure),
            Event::Corrupt { attempt } => return self.corrupt(attempt),
            Event::Class(class) => {
                if class == Class::Paused && self.class != class {
                    self.paused_since = self.now;
                    // What has not begun to come is a window's worth: it would be in the way for long.
                    self.release_waiting(|_, _, _| true);
                }
                self.class = class;
            }
            Event::Tick => {}
            Event::ParentUp { .. }
            | Event::ParentDown { .. }
            | Event::ParentHolds { .. }
            | Event::ParentReceiving { .. }
            | Event::ParentLost { .. }
            | Event::Preferred { .. } => return self.note_parent(event),
        }
        true
    }

    /// The part of [`Picker::note`] that is about parents.
    fn note_parent(&mut self, event: Event) -> bool {
        match event {
            Event::ParentUp { parent } => {
                self.drop_requests_to(parent);
                self.parents.known.insert(parent, Parent::new(self.now));
                true
            }
            Event::ParentDown { parent } => {
                self.parents.known.remove(parent);
                for preferred in &mut self.parents.preferred {
                    *preferred = preferred.filter(|&id| id != parent);
                }
                self.drop_requests_to(parent);
                true
            }
            Event::ParentHolds {
                parent,
                first,
                count,
            } => self.parent_has(parent, first, count, true),
            Event::ParentReceiving { parent, piece } => self.parent_has(parent, piece, 1, false),
            Event::ParentLost {
                parent,
                first,
                count,
            } => {
                if let Some(parent) = self.parents.known.get_mut(parent) {
                    parent.stock.lack(first, count);
                }
                // Without a supernode it may be the origin's turn now.
                matches!(self.supernode, Supernode::Down { .. })
            }
            Event::Preferred { stripes } => {
                if self.parents.preferred == stripes {
                    return false;
                }
                self.parents.preferred = stripes;
                self.strayed = true;
                self.release_waiting(|parents, piece, attempt| {
                    parents.preferred(piece) != Some(attempt.parent)
                });
                true
            }
            _ => false,
        }
    }

    /// A parent has pieces, or the beginning of one. Something is to be decided only if that is
    /// news for a piece that a window lacks and nobody brings, or brings too late.
    fn parent_has(&mut self, id: ParentId, first: PieceIndex, count: u32, whole: bool) -> bool {
        let Some(parent) = self.parents.known.get_mut(id) else {
            return false;
        };
        match whole {
            true => parent.stock.hold(first, count),
            false => parent.stock.receive(first, count),
        }
        self.matters(id, first, count)
    }

    /// Whether news of a parent's pieces gives something to decide.
    fn matters(&mut self, id: ParentId, first: PieceIndex, count: u32) -> bool {
        let end = first.get().saturating_add(count);
        let (mut lacking, mut head, mut news) = (false, false, false);
        let now = self.now;
        for window in self.readers.values() {
            let (from, to) = (window.base().max(first).get(), window.edge().get().min(end));
            for piece in (from..to).map(PieceIndex::new) {
                if self.held.contains(piece) {
                    continue;
                }
                let Some(work) = self.work.get_mut(piece) else {
                    news = true;
                    continue;
                };
                let asked = work.attempts.iter_mut().filter(|work| work.parent == id);
                asked.for_each(|attempt| attempt.is_able(now));
                lacking = true;
                if piece == window.base() {
                    head = true;
                    let mut attempts = work.attempts.iter();
                    // What another is asked for the preferred parent has now.
                    if self.parents.preferred(piece) == Some(id)
                        && attempts.any(|attempt| attempt.parent != id)
                    {
                        news = true;
                    }
                }
            }
        }
        if news {
            return true;
        }
        // A head piece may only be late sooner than thought.
        self.glance |= head;
        lacking && self.parents.any_demoted(now)
    }

    fn opened(&mut self, reader: ReaderId, first: PieceIndex, end: Option<PieceIndex>) {
        let mut window = Window::new(first, end, self.config.window, self.share, self.now);
        if let Some(end) = self.end {
            window.limit(end);
        }
        self.readers.insert(reader, window);
    }

    fn took(&mut self, reader: ReaderId, next: PieceIndex) -> bool {
        let gap = self.held.first_gap(next);
        let Some(window) = self.readers.get_mut(reader) else {
            return false;
        };
        let ready = gap.min(window.edge()).get().saturating_sub(next.get());
        window.take(next, ready, self.config.window, self.share, self.now);
        true
    }

    fn ended(&mut self, end: PieceIndex) {
        self.end = Some(end);
        for window in self.readers.values_mut() {
            window.limit(end);
        }
        let past: Vec<PieceIndex> = self.work.keys().filter(|&piece| piece >= end).collect();
        for piece in past {
            self.drop_work(piece);
        }
    }

    fn supernode_down(&mut self) {
        if self.supernode == Supernode::Up {
            let pause = self.config.fallback.mul_f64(0.1 + 0.9 * self.draw());
            self.supernode = Supernode::Down {
                fallback: self.now + pause,
            };
        }
    }

    fn sealed(&mut self, piece: PieceIndex) {
        self.held.insert(piece);
        // A lease is for bringing a piece once.
        self.leases.remove(piece, Some(piece.next()));
        self.desperate.remove(piece);
        self.tried.remove(piece);
        self.origin_failures = 0;
        self.drop_work(piece);
        for run in &mut self.runs {
            if run.next == piece {
                run.next = piece.next();
                run.receiving = false;
            }
        }
    }

    fn run_at(&mut self, run: RunId, piece: PieceIndex) -> bool {
        let Some(run) = self.runs.iter_mut().find(|found| found.id == run) else {
            return false;
        };
        run.next = piece;
        run.receiving = true;
        run.blocked_since = None;
        run.offered = false;
        self.work.get_or_default(piece).run = Some(run.id);
        true
    }

    fn progressed(&mut self, id: AttemptId, bytes: u64) {
        let (now, size) = (self.now, self.piece_size);
        let Some((_, attempt)) = self.attempt(id) else {
            return;
        };
        if bytes > attempt.bytes {
            let before = attempt.left(size);
            attempt.bytes = bytes;
            attempt.progressed = now;
            let (parent, left) = (attempt.parent, attempt.left(size));
            self.last_byte = now;
            if let Some(parent) = self.parents.known.get_mut(parent) {
                parent.brought(before, left);
                parent.heard(now);
            }
        }
    }

    fn fetched(&mut self, id: AttemptId, bytes: u64) -> bool {
        let (now, size) = (self.now, self.piece_size);
        let Some((piece, _)) = self.attempt(id) else {
            return false;
        };
        let parents = &mut self.parents;
        let attempts = self.work.get_mut(piece);
        let mut attempts = attempts
            .into_iter()
            .flat_map(|work| work.attempts.iter_mut());
        if let Some(attempt) = attempts.find(|attempt| attempt.id == id) {
            if let Some(parent) = parents.known.get_mut(attempt.parent) {
                parent.ended(attempt, size);
                parent.delivered(bytes, now);
            }
            attempt.complete = true;
            attempt.bytes = bytes;
            attempt.progressed = now;
            if attempt.hedge {
                self.hedges.won();
            }
        }
        // A pause for want of anybody to ask says nothing of how quick our link is.
        let took = now.since(self.last_came).min(USUAL_MAX);
        self.usual = match self.usual {
            Duration::ZERO => took,
            usual => usual.mul_f64(0.8) + took.mul_f64(0.2),
        };
        (self.last_came, self.last_byte) = (now, now);
        true
    }

    fn failed(&mut self, attempt: AttemptId, failure: Failure) -> bool {
        let now = self.now;
        let Some((piece, parent)) = self.end_attempt(attempt) else {
            return false;
        };
        self.tried.insert(piece);
        self.parents.judge(parent, |parent| match failure {
            Failure::NotHere => parent.stock.lack(piece, 1),
            Failure::Busy => parent.avoid(now, BUSY_REST),
            Failure::Gone => parent.strike(now),
        });
        true
    }

    fn corrupt(&mut self, attempt: AttemptId) -> bool {
        let now = self.now;
        let Some((piece, parent)) = self.end_attempt(attempt) else {
            return false;
        };
        self.tried.insert(piece);
        self.parents.judge(parent, |parent| {
            parent.lied(now);
            parent.stock.lack(piece, 1);
        });
        true
    }
}
