use std::time::Duration;

use pantala_core::{
    PieceIndex, PieceSet, TaskId,
    control::{FromPeer, PIECES_PER_MESSAGE},
};
use tokio::time::Instant;

/// Gathers what changed in memory for the supernode: what came may wait a moment for company,
/// what went is said at once, and so is that a piece begins to come after a pause.
#[derive(Debug)]
pub(crate) struct Announcer {
    task: TaskId,
    gained: PieceSet,
    lost: PieceSet,
    position: PieceIndex,
    in_flight: u64,
    reader_bound: bool,
    due: Option<Instant>,
    /// When something was said last, and when first.
    said: Option<(Instant, Instant)>,
}

const GATHER: Duration = Duration::from_millis(50);
/// How long a peer says as often how far unfinished pieces are: whether it is slow shows in its
/// first pieces.
const EARLY: Duration = Duration::from_secs(1);
/// How often afterwards, where no piece is completed meanwhile.
const LATER: Duration = Duration::from_millis(100);

impl Announcer {
    pub fn new(task: TaskId) -> Self {
        Self {
            task,
            gained: PieceSet::new(),
            lost: PieceSet::new(),
            position: PieceIndex::new(0),
            in_flight: 0,
            reader_bound: false,
            due: None,
            said: None,
        }
    }

    pub fn held(&mut self, piece: PieceIndex) {
        self.lost.remove(piece);
        self.gained.insert(piece);
        self.due_by(Instant::now() + GATHER);
    }

    /// Said also of what was never announced: the supernode may have it from the digest of a
    /// sealed piece, and would take it for held for ever.
    pub fn lost(&mut self, piece: PieceIndex) {
        self.gained.remove(piece);
        self.lost.insert(piece);
        self.due_by(Instant::now());
    }

    pub fn reader(&mut self, position: PieceIndex, bound: bool) {
        if (position, bound) != (self.position, self.reader_bound) {
            (self.position, self.reader_bound) = (position, bound);
            self.due_by(Instant::now() + GATHER);
        }
    }

    /// The first bytes of a piece are there.
    pub fn begins(&mut self) {
        let now = Instant::now();
        self.due_by(self.said.map_or(now, |(last, _)| now.max(last + GATHER)));
    }

    /// So many bytes of unfinished pieces are there.
    pub fn in_flight(&mut self, bytes: u64) {
        if bytes == self.in_flight {
            return;
        }
        let now = Instant::now();
        let at = self.said.map_or(now, |(last, first)| {
            let early = now.duration_since(first) < EARLY;
            last + if early { GATHER } else { LATER }
        });
        self.due_by(at);
    }

    fn due_by(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    pub fn position(&self) -> PieceIndex {
        self.position
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What there is to say, when it is due; `in_flight` counts the bytes of unfinished pieces.
    pub fn take(&mut self, now: Instant, in_flight: impl FnOnce() -> u64) -> Option<FromPeer> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        self.in_flight = in_flight();
        self.said = Some((now, self.said.map_or(now, |(_, first)| first)));
        // What went first: it must not be looked for here. What is too much for one message comes next.
        let lost = self.lost.take_runs(PIECES_PER_MESSAGE);
        let said: usize = lost.iter().map(|run| run.1 as usize).sum();
        let gained = self.gained.take_runs(PIECES_PER_MESSAGE - said);
        if !self.lost.is_empty() || !self.gained.is_empty() {
            self.due = Some(now);
        }
        Some(FromPeer::Have {
            task: self.task,
            gained,
            lost,
            position: self.position,
            in_flight: self.in_flight,
            reader_bound: self.reader_bound,
        })
    }

    /// A new supernode will be told everything anew.
    pub fn forget(&mut self) {
        self.gained.clear();
        self.lost.clear();
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was sealed was told by its digest: that it went must be said even though nobody said
    /// that it came.
    #[test]
    fn what_comes_and_goes_between_two_words_is_said_to_be_gone() {
        let (mut announcer, piece) = (
            Announcer::new(TaskId::from_bytes([1; 32])),
            PieceIndex::new(7),
        );
        announcer.held(piece);
        announcer.lost(piece);
        let said = announcer.take(Instant::now() + GATHER, || 0);
        assert!(
            matches!(&said, Some(FromPeer::Have { gained, lost, .. })
                if gained.is_empty() && lost == &[(piece, 1)]),
            "{said:?}"
        );
        announcer.lost(piece);
        announcer.held(piece);
        let said = announcer.take(Instant::now() + GATHER, || 0);
        assert!(
            matches!(&said, Some(FromPeer::Have { gained, lost, .. })
                if gained == &[(piece, 1)] && lost.is_empty()),
            "{said:?}"
        );
    }
}
