use std::time::Duration;

use pantala_core::{
    PieceIndex, PieceSet, TaskId,
    control::{FromPeer, PieceRun},
};
use tokio::time::Instant;

/// Gathers what changed in memory for the supernode: what came may wait a moment for company,
/// what went is said at once.
#[derive(Debug)]
pub(crate) struct Announcer {
    task: TaskId,
    gained: PieceSet,
    lost: PieceSet,
    position: PieceIndex,
    reader_bound: bool,
    due: Option<Instant>,
}

const GATHER: Duration = Duration::from_millis(50);

impl Announcer {
    pub fn new(task: TaskId) -> Self {
        Self {
            task,
            gained: PieceSet::new(),
            lost: PieceSet::new(),
            position: PieceIndex::new(0),
            reader_bound: false,
            due: None,
        }
    }

    pub fn held(&mut self, piece: PieceIndex) {
        self.lost.remove(piece);
        self.gained.insert(piece);
        self.soon();
    }

    /// Said also of what was never announced: the supernode may have it from the digest of a
    /// sealed piece, and would take it for held for ever.
    pub fn lost(&mut self, piece: PieceIndex) {
        self.gained.remove(piece);
        self.lost.insert(piece);
        self.due = Some(Instant::now());
    }

    pub fn reader(&mut self, position: PieceIndex, bound: bool) {
        if (position, bound) != (self.position, self.reader_bound) {
            (self.position, self.reader_bound) = (position, bound);
            self.soon();
        }
    }

    fn soon(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
    }

    pub fn position(&self) -> PieceIndex {
        self.position
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What there is to say, when it is due.
    pub fn take(&mut self, now: Instant) -> Option<FromPeer> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        let runs = |set: &mut PieceSet| -> Vec<PieceRun> { std::mem::take(set).runs() };
        Some(FromPeer::Have {
            task: self.task,
            gained: runs(&mut self.gained),
            lost: runs(&mut self.lost),
            position: self.position,
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
        let said = announcer.take(Instant::now() + GATHER);
        assert!(
            matches!(&said, Some(FromPeer::Have { gained, lost, .. })
                if gained.is_empty() && lost == &[(piece, 1)]),
            "{said:?}"
        );
        announcer.lost(piece);
        announcer.held(piece);
        let said = announcer.take(Instant::now() + GATHER);
        assert!(
            matches!(&said, Some(FromPeer::Have { gained, lost, .. })
                if gained == &[(piece, 1)] && lost.is_empty()),
            "{said:?}"
        );
    }
}
