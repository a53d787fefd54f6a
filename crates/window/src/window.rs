use pantala_core::{PieceIndex, Time};

use crate::WindowSize;

/// One reader's sliding window: the pieces from its position on that may be scheduled.
#[derive(Debug, Clone)]
pub struct Window {
    base: PieceIndex,
    end: Option<PieceIndex>,
    size: u32,
    /// Since when the reader has needed the piece at the base.
    head_since: Time,
    /// The reader takes nothing of what is there.
    rests: bool,
}

/// Where an adaptive window starts: enough to keep a few parents busy, little enough for many
/// readers.
const START: u32 = 16;

impl Window {
    /// A window over `[first, end)`.
    pub fn new(
        first: PieceIndex,
        end: Option<PieceIndex>,
        size: WindowSize,
        share: u32,
        now: Time,
    ) -> Self {
        let size = match size {
            WindowSize::Static(pieces) => pieces,
            WindowSize::Adaptive { min, max } => START.clamp(min, max.max(min)),
        };
        Self {
            base: first,
            end,
            size: size.min(share).max(1),
            head_since: now,
            rests: false,
        }
    }

    /// The reader has stopped taking, or takes again: from now on it waits for the piece at the base.
    pub fn rest(&mut self, rests: bool, now: Time) {
        if self.rests && !rests {
            self.head_since = now;
        }
        self.rests = rests;
    }

    /// Whether the reader takes nothing of what is there. Then nothing is to be kept for it, and nothing
    /// more to be brought.
    pub fn rests(&self) -> bool {
        self.rests
    }

    /// The pieces that must stay: from the first up to the end.
    pub fn kept(&self) -> (PieceIndex, PieceIndex) {
        match self.rests {
            true => (self.base, self.base),
            false => (self.base, self.edge()),
        }
    }

    /// The piece the reader needs next.
    pub fn base(&self) -> PieceIndex {
        self.base
    }

    /// Since when it has needed it.
    pub fn head_since(&self) -> Time {
        self.head_since
    }

    /// How many pieces it spans at most.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The piece after the last the reader needs at all.
    pub fn end(&self) -> Option<PieceIndex> {
        self.end
    }

    /// The piece after the last in the window.
    pub fn edge(&self) -> PieceIndex {
        let edge = PieceIndex::new(self.base.get().saturating_add(self.size));
        self.end.map_or(edge, |end| end.min(edge))
    }

    /// The pieces in the window.
    pub fn pieces(
        &self,
    ) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        (self.base.get()..self.edge().get()).map(PieceIndex::new)
    }

    /// The reader has taken all before `next`; `ready` pieces from there on are held. Moves the
    /// base, never back, and lets an adaptive window breathe: half of it ready means that the
    /// reader is the slow one and the memory is better used elsewhere.
    pub fn take(&mut self, next: PieceIndex, ready: u32, size: WindowSize, share: u32, now: Time) {
        if next <= self.base {
            return;
        }
        self.base = next;
        self.head_since = now;
        if let WindowSize::Adaptive { min, max } = size {
            self.size = if ready > self.size / 2 {
                self.size.saturating_sub(1).max(min)
            } else {
                (self.size + 2).min(max)
            };
        }
        self.shrink_to(share);
    }

    /// Never larger than `share` pieces, and at least one.
    pub fn shrink_to(&mut self, share: u32) {
        self.size = self.size.min(share).max(1);
    }

    /// A static window grows back when the share does.
    pub fn set_share(&mut self, size: WindowSize, share: u32) {
        if let WindowSize::Static(pieces) = size {
            self.size = pieces;
        }
        self.shrink_to(share);
    }

    /// The content ends before `end`.
    pub fn limit(&mut self, end: PieceIndex) {
        self.end = Some(self.end.map_or(end, |old| old.min(end)));
    }
}
