use pantala_core::{PieceIndex, TaskId};
use pantala_store::Lru;

/// Which of a host's pieces leave first: the store's own policies, unchanged. A further policy is
/// a further variant.
#[derive(Debug, Default)]
pub(crate) enum Cache {
    /// Memory is not a limit: nothing leaves, and no order is kept.
    #[default]
    Boundless,
    /// Least recently used first.
    Lru(Lru),
}

impl Cache {
    /// A piece came that a window may need.
    pub fn insert(&mut self, task: TaskId, piece: PieceIndex) {
        if let Cache::Lru(lru) = self {
            lru.insert(task, piece, 1);
        }
    }

    /// A piece was sent to a child.
    pub fn touch(&mut self, task: TaskId, piece: PieceIndex) {
        if let Cache::Lru(lru) = self {
            lru.touch(task, piece);
        }
    }

    /// Whether a window needs the piece.
    pub fn pin(&mut self, task: TaskId, piece: PieceIndex, pinned: bool) {
        if let Cache::Lru(lru) = self {
            lru.set_pins(task, piece, u32::from(pinned));
        }
    }

    /// A piece went.
    pub fn remove(&mut self, task: TaskId, piece: PieceIndex) {
        if let Cache::Lru(lru) = self {
            lru.remove(task, piece);
        }
    }

    /// The first to leave that is not `used`.
    pub fn candidate(
        &self,
        used: impl Fn(TaskId, PieceIndex) -> bool,
    ) -> Option<(TaskId, PieceIndex)> {
        match self {
            Cache::Boundless => None,
            Cache::Lru(lru) => lru.candidates().find(|&(task, piece)| !used(task, piece)),
        }
    }
}
