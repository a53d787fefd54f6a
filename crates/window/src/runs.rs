use pantala_core::{PieceIndex, Time};

use crate::RunId;

/// One transfer from the origin over consecutive pieces.
#[derive(Debug)]
pub(crate) struct Run {
    pub id: RunId,
    /// The piece it receives now or will receive next.
    pub next: PieceIndex,
    /// The piece it must not begin before told.
    pub until: PieceIndex,
    /// The piece after the last that it asked the origin for.
    pub goal: Option<PieceIndex>,
    /// Whether `next` is being received.
    pub receiving: bool,
    /// Since when it has had nothing it may do.
    pub blocked_since: Option<Time>,
    /// The supernode knows that.
    pub offered: bool,
}

impl Run {
    /// Whether it receives the piece or will without being told.
    pub fn covers(&self, piece: PieceIndex) -> bool {
        self.next <= piece && piece < self.until
    }
}
