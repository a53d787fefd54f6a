use std::collections::{BTreeMap, HashMap};

use pantala_core::{PieceIndex, TaskId};

/// Least recently used leaves first, among the pieces that nobody has pinned.
///
/// A plain machine: it knows names, not bytes. Costs O(log n) a call.
#[derive(Debug, Default)]
pub struct Lru {
    clock: u64,
    used: HashMap<(TaskId, PieceIndex), Entry>,
    /// Unpinned pieces by when they were last used.
    order: BTreeMap<u64, (TaskId, PieceIndex)>,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    pins: u32,
}

impl Lru {
    /// Nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A piece came, with so many pins on it.
    pub fn insert(&mut self, task: TaskId, piece: PieceIndex, pins: u32) {
        self.remove(task, piece);
        self.clock += 1;
        self.used.insert(
            (task, piece),
            Entry {
                at: self.clock,
                pins,
            },
        );
        if pins == 0 {
            self.order.insert(self.clock, (task, piece));
        }
    }

    /// A piece was used: it is the last to leave now.
    pub fn touch(&mut self, task: TaskId, piece: PieceIndex) {
        if let Some(entry) = self.used.get_mut(&(task, piece)) {
            self.clock += 1;
            if self.order.remove(&entry.at).is_some() {
                self.order.insert(self.clock, (task, piece));
            }
            entry.at = self.clock;
        }
    }

    /// Sets how many windows need the piece; a piece that becomes free was just used.
    pub fn set_pins(&mut self, task: TaskId, piece: PieceIndex, pins: u32) {
        let Some(entry) = self.used.get_mut(&(task, piece)) else {
            return;
        };
        if pins > 0 && entry.pins == 0 {
            self.order.remove(&entry.at);
        } else if pins == 0 && entry.pins > 0 {
            self.clock += 1;
            entry.at = self.clock;
            self.order.insert(self.clock, (task, piece));
        }
        entry.pins = pins;
    }

    /// A piece went.
    pub fn remove(&mut self, task: TaskId, piece: PieceIndex) {
        if let Some(entry) = self.used.remove(&(task, piece)) {
            self.order.remove(&entry.at);
        }
    }

    /// The pieces that may leave, the first to go first.
    pub fn candidates(&self) -> impl Iterator<Item = (TaskId, PieceIndex)> + '_ {
        self.order.values().copied()
    }

    /// How many pieces it knows.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TASK: TaskId = TaskId::from_bytes([7; 32]);

    fn order(lru: &Lru) -> Vec<u32> {
        lru.candidates().map(|(_, piece)| piece.get()).collect()
    }

    #[test]
    fn the_least_recently_used_leaves_first() {
        let mut lru = Lru::new();
        (0..3).for_each(|i| lru.insert(TASK, PieceIndex::new(i), 0));
        lru.touch(TASK, PieceIndex::new(0));
        assert_eq!(order(&lru), [1, 2, 0]);
    }

    #[test]
    fn a_pinned_piece_is_no_candidate() {
        let mut lru = Lru::new();
        lru.insert(TASK, PieceIndex::new(0), 1);
        lru.insert(TASK, PieceIndex::new(1), 0);
        assert_eq!(order(&lru), [1]);
        lru.set_pins(TASK, PieceIndex::new(0), 0);
        assert_eq!(order(&lru), [1, 0]);
    }

    proptest! {
        /// Against a plain list: the last in it was used last.
        #[test]
        fn orders_as_a_list_does(ops in prop::collection::vec((0u8..4, 0u32..12), 0..200)) {
            let mut lru = Lru::new();
            let mut model: Vec<(u32, bool)> = Vec::new();
            for (op, i) in ops {
                let piece = PieceIndex::new(i);
                let at = model.iter().position(|&(p, _)| p == i);
                match op {
                    0 => {
                        lru.insert(TASK, piece, 0);
                        if let Some(at) = at { model.remove(at); }
                        model.push((i, false));
                    }
                    1 => {
                        lru.touch(TASK, piece);
                        if let Some(at) = at { let e = model.remove(at); model.push(e); }
                    }
                    2 => {
                        lru.set_pins(TASK, piece, 1);
                        if let Some(at) = at { model[at].1 = true; }
                    }
                    _ => {
                        lru.set_pins(TASK, piece, 0);
                        if let Some(at) = at && model[at].1 {
                            model.remove(at);
                            model.push((i, false));
                        }
                    }
                }
            }
            let free: Vec<u32> = model.iter().filter(|e| !e.1).map(|e| e.0).collect();
            prop_assert_eq!(order(&lru), free);
            prop_assert_eq!(lru.len(), model.len());
        }
    }
}
