//! The invariants of the crate's documentation, for `debug_assert!`s.

use pantala_core::PieceIndex;

use crate::{leases::Lease, task::Task};

impl Task {
    /// Whether what must hold of a task holds.
    pub(crate) fn check(&self) -> bool {
        self.leases_are_apart()
            && self.copies_are_counted()
            && self.all_have_parents()
            && self.turns_are_dealt()
    }

    /// Only what was forced, one piece at a time, may be leased twice.
    fn leases_are_apart(&self) -> bool {
        let single = |lease: &Lease| lease.end == Some(lease.first.next());
        let overlap = |a: &Lease, b: &Lease| {
            a.end.is_none_or(|end| b.first < end) && b.end.is_none_or(|end| a.first < end)
        };
        let leases: Vec<&Lease> = self.leases.iter().filter(|lease| !lease.alone).collect();
        leases.iter().enumerate().all(|(at, a)| {
            let later = leases[at + 1..].iter();
            later
                .filter(|b| overlap(a, b))
                .all(|b| single(a) || single(b))
        })
    }

    fn copies_are_counted(&self) -> bool {
        let mut held = vec![0u32; self.copies.len()];
        for piece in self.members.values().flat_map(|member| member.held.iter()) {
            match held.get_mut(piece.get() as usize) {
                Some(count) => *count += 1,
                None => return false,
            }
        }
        (0..)
            .zip(&held)
            .all(|(piece, &count)| self.copies(PieceIndex::new(piece)) == count)
    }

    /// Every member but the root has a parent in each tree.
    fn all_have_parents(&self) -> bool {
        self.members.is_empty() || (self.trees.root().is_some() && self.trees.adrift().is_empty())
    }
}
