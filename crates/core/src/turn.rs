use crate::{PieceIndex, TaskId};

/// Which place a peer has among the members of a swarm, for deciding who keeps which piece.
///
/// Everybody computes the same order of the places for a piece, so that peers that hold the same
/// pieces let go of different ones without asking each other. Of `of` consecutive pieces each
/// place is first for exactly one: equal caches get equal shares, which drawing by lot would not
/// give. Which places follow the first changes from one such block of pieces to the next, so that
/// what a small cache cannot keep is spread over all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    at: u32,
    of: u32,
}

impl Turn {
    /// Alone: first for every piece.
    pub const ALONE: Turn = Turn { at: 0, of: 1 };

    /// Place `at` of `of`; places beyond the last are counted on from the first.
    pub fn new(at: u32, of: u32) -> Self {
        let of = of.max(1);
        Self { at: at % of, of }
    }

    /// The place, from 0.
    pub fn at(self) -> u32 {
        self.at
    }

    /// How many places there are, at least 1.
    pub fn of(self) -> u32 {
        self.of
    }

    /// How many places come before this one as keepers of the piece: 0 is the first keeper.
    pub fn rank(self, task: &TaskId, piece: PieceIndex) -> u32 {
        let of = u64::from(self.of);
        let (block, within) = (u64::from(piece.get()) / of, u64::from(piece.get()) % of);
        // Task identifiers are hashes: any of their bytes are as good as random.
        let mut seed = [0; 8];
        seed.copy_from_slice(&task.as_bytes()[..8]);
        let hash = mix(u64::from_le_bytes(seed) ^ mix(block));
        // Places are shuffled by `at -> step * at + shift`, which misses none if the step has no
        // divisor in common with their number.
        let mut step = hash % of;
        while !coprime(step, of) {
            step = (step + 1) % of;
        }
        let shift = (hash >> 32) % of;
        let place = (step * u64::from(self.at) + shift) % of;
        ((place + of - within) % of) as u32
    }
}

/// SplitMix64's finaliser: each bit of the input moves half of the output's.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn coprime(a: u64, b: u64) -> bool {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// For each piece the ranks of all places differ, and of each block of pieces every place
        /// has every rank once.
        #[test]
        fn ranks_are_a_fair_order(of in 1u32..200, block in 0u32..1000, seed in any::<u8>()) {
            let task = TaskId::from_bytes([seed; 32]);
            let pieces = || (0..of).map(|i| PieceIndex::new(block * of + i));
            for piece in pieces() {
                let mut ranks: Vec<u32> =
                    (0..of).map(|at| Turn::new(at, of).rank(&task, piece)).collect();
                ranks.sort_unstable();
                prop_assert!(ranks.into_iter().eq(0..of));
            }
            for at in 0..of {
                let mut ranks: Vec<u32> =
                    pieces().map(|piece| Turn::new(at, of).rank(&task, piece)).collect();
                ranks.sort_unstable();
                prop_assert!(ranks.into_iter().eq(0..of));
            }
        }
    }

    #[test]
    fn alone_is_first_for_everything() {
        let task = TaskId::from_bytes([3; 32]);
        assert!((0..100).all(|i| Turn::ALONE.rank(&task, PieceIndex::new(i)) == 0));
        assert_eq!(Turn::new(7, 0), Turn::ALONE);
    }
}
