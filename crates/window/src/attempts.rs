use pantala_core::Time;

use crate::{AttemptId, ParentId};

/// One request for a piece.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub id: AttemptId,
    pub parent: ParentId,
    pub bytes: u64,
    /// When bytes last came, or it was asked.
    pub progressed: Time,
    /// Since when its parent has had the beginning of the piece: who waits for it itself is not late.
    able: Time,
    /// All bytes are there; the verdict on them is not.
    pub complete: bool,
    /// The piece was asked of somebody else before.
    pub hedge: bool,
}

impl Attempt {
    pub fn new(id: AttemptId, parent: ParentId, able: bool, hedge: bool, now: Time) -> Self {
        Self {
            id,
            parent,
            bytes: 0,
            progressed: now,
            able: if able { now } else { Time::NEVER },
            complete: false,
            hedge,
        }
    }

    /// Bytes of a piece of this size that it still has to bring.
    pub fn left(&self, size: u64) -> u64 {
        size.saturating_sub(self.bytes)
    }

    /// Since when its parent has had the beginning of the piece.
    pub fn able(&self) -> Option<Time> {
        (self.able < Time::NEVER).then_some(self.able)
    }

    /// Its parent has the beginning of the piece.
    pub fn is_able(&mut self, now: Time) {
        self.able = self.able.min(now);
    }
}

/// The requests for one piece: one, and seldom a second.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    first: Option<Attempt>,
    second: Option<Box<Attempt>>,
}

/// Requests for one piece that may be under way at once.
pub(crate) const HEDGES: usize = 2;

impl Attempts {
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + usize::from(self.second.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub fn first(&self) -> Option<&Attempt> {
        self.first.as_ref()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.first.iter().chain(self.second.as_deref())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Attempt> {
        self.first.iter_mut().chain(self.second.as_deref_mut())
    }

    /// One more. There must not be two.
    pub fn push(&mut self, attempt: Attempt) {
        debug_assert!(self.second.is_none(), "a third request for one piece");
        match self.first {
            None => self.first = Some(attempt),
            Some(_) => self.second = Some(Box::new(attempt)),
        }
    }

    /// Takes out the one with this name.
    pub fn remove(&mut self, id: AttemptId) -> Option<Attempt> {
        let gone = match (&self.first, &self.second) {
            (Some(first), _) if first.id == id => self.first.take(),
            (_, Some(second)) if second.id == id => self.second.take().map(|second| *second),
            _ => None,
        };
        if self.first.is_none() {
            self.first = self.second.take().map(|second| *second);
        }
        gone
    }

    /// Takes out those that `keep` does not say yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(&Attempt) -> bool) {
        self.first = self.first.take().filter(&mut keep);
        self.second = self.second.take().filter(|second| keep(second));
        if self.first.is_none() {
            self.first = self.second.take().map(|second| *second);
        }
    }

    /// All of them, in order; leaves none.
    pub fn take(&mut self) -> impl Iterator<Item = Attempt> + use<> {
        let Self { first, second } = std::mem::take(self);
        first.into_iter().chain(second.map(|second| *second))
    }
}
