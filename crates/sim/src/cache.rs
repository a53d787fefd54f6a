use pantala_core::{
    PieceIndex, TaskId, Turn,
    control::{Copies, PieceRun},
};
use pantala_store::Keep;

/// Which of a host's pieces leave first: the store's own policies, unchanged. A further policy is
/// a further variant.
#[derive(Debug, Default)]
pub(crate) enum Cache {
    /// Memory is not a limit: nothing leaves, and no order is kept.
    #[default]
    Boundless,
    /// One of the store's orders.
    Bounded(Keep),
}

impl Cache {
    /// A piece came that a window may need.
    pub fn insert(&mut self, task: TaskId, piece: PieceIndex) {
        if let Cache::Bounded(keep) = self {
            keep.insert(task, piece, 1);
        }
    }

    /// A piece was sent to a child.
    pub fn touch(&mut self, task: TaskId, piece: PieceIndex) {
        if let Cache::Bounded(keep) = self {
            keep.touch(task, piece);
        }
    }

    /// Whether a window needs the piece.
    pub fn pin(&mut self, task: TaskId, piece: PieceIndex, pinned: bool) {
        if let Cache::Bounded(keep) = self {
            keep.set_pins(task, piece, u32::from(pinned));
        }
    }

    /// A piece went.
    pub fn remove(&mut self, task: TaskId, piece: PieceIndex) {
        if let Cache::Bounded(keep) = self {
            keep.remove(task, piece);
        }
    }

    /// The host's place among those who keep a task's pieces.
    pub fn turn(&mut self, task: TaskId, turn: Turn) {
        if let Cache::Bounded(keep) = self {
            keep.turn(task, turn);
        }
    }

    /// Who else has pieces.
    pub fn copies(&mut self, task: TaskId, pieces: &[PieceRun], copies: Copies) {
        if let Cache::Bounded(keep) = self {
            for &(first, count) in pieces {
                for piece in first.get()..first.get() + count {
                    keep.copies(task, PieceIndex::new(piece), copies);
                }
            }
        }
    }

    /// The first to leave that is not `used`.
    pub fn candidate(
        &self,
        used: impl Fn(TaskId, PieceIndex) -> bool,
    ) -> Option<(TaskId, PieceIndex)> {
        match self {
            Cache::Boundless => None,
            Cache::Bounded(keep) => keep.candidates().find(|&(task, piece)| !used(task, piece)),
        }
    }
}
