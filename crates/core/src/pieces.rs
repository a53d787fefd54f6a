use std::fmt;

use crate::PieceIndex;

/// A set of pieces, a bit each.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PieceSet {
    words: Vec<u64>,
    len: u32,
}

impl PieceSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a piece in; says whether it was not there.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        let (word, bit) = split(piece);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u32::from(fresh);
        fresh
    }

    /// Takes a piece out; says whether it was there.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        let (word, bit) = split(piece);
        match self.words.get_mut(word) {
            Some(bits) if *bits & bit != 0 => {
                *bits &= !bit;
                self.len -= 1;
                true
            }
            _ => false,
        }
    }

    /// Whether the piece is in.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        let (word, bit) = split(piece);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// How many pieces are in.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of the pieces `[first, end)` are in.
    pub fn count(&self, first: PieceIndex, end: PieceIndex) -> u32 {
        let (first, end) = (first.get(), end.get().min(self.words.len() as u32 * 64));
        if first >= end {
            return 0;
        }
        let (from, to) = (first as usize / 64, (end as usize - 1) / 64);
        let low = u64::MAX << (first % 64);
        let high = u64::MAX >> (63 - (end - 1) % 64);
        if from == to {
            return (self.words[from] & low & high).count_ones();
        }
        let between = self.words[from + 1..to].iter();
        (self.words[from] & low).count_ones()
            + between.map(|word| word.count_ones()).sum::<u32>()
            + (self.words[to] & high).count_ones()
    }

    /// The first piece from `first` on that is not in.
    pub fn first_gap(&self, first: PieceIndex) -> PieceIndex {
        let (mut word, _) = split(first);
        let mut bits = match self.words.get(word) {
            Some(bits) => !bits & (u64::MAX << (first.get() % 64)),
            None => return first,
        };
        while bits == 0 {
            word += 1;
            bits = self.words.get(word).map_or(u64::MAX, |bits| !bits);
        }
        PieceIndex::new(word as u32 * 64 + bits.trailing_zeros())
    }

    /// Takes the lowest pieces out, so many at most, and gives them as runs.
    pub fn take_runs(&mut self, most: usize) -> Vec<(PieceIndex, u32)> {
        let taken: PieceSet = self.iter().take(most).collect();
        for piece in taken.iter() {
            self.remove(piece);
        }
        taken.runs()
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.words.clear();
        self.len = 0;
    }

    /// Where the lowest pieces' bits lie, for who wants them in the processor's cache before they are
    /// read: 512 pieces to a line of 64 bytes.
    pub fn place(&self) -> *const u8 {
        self.words.as_ptr().cast()
    }

    /// The pieces in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(word, &bits)| {
            let mut rest = bits;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    PieceIndex::new(word as u32 * 64 + bit)
                })
            })
        })
    }

    /// The pieces as ascending runs `(first, count)`, the form in which they travel.
    pub fn runs(&self) -> Vec<(PieceIndex, u32)> {
        let mut runs: Vec<(PieceIndex, u32)> = Vec::new();
        for piece in self.iter() {
            match runs.last_mut() {
                Some((first, count)) if first.get() + *count == piece.get() => *count += 1,
                _ => runs.push((piece, 1)),
            }
        }
        runs
    }
}

fn split(piece: PieceIndex) -> (usize, u64) {
    (piece.get() as usize / 64, 1 << (piece.get() % 64))
}

impl FromIterator<PieceIndex> for PieceSet {
    fn from_iter<I: IntoIterator<Item = PieceIndex>>(pieces: I) -> Self {
        let mut set = Self::new();
        for piece in pieces {
            set.insert(piece);
        }
        set
    }
}

impl fmt::Debug for PieceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.runs()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(ops in prop::collection::vec((any::<bool>(), 0u32..300), 0..200)) {
            let (mut set, mut model) = (PieceSet::new(), BTreeSet::new());
            for (add, piece) in ops {
                let index = PieceIndex::new(piece);
                if add {
                    prop_assert_eq!(set.insert(index), model.insert(piece));
                } else {
                    prop_assert_eq!(set.remove(index), model.remove(&piece));
                }
                prop_assert_eq!(set.len() as usize, model.len());
            }
            prop_assert!(set.iter().map(PieceIndex::get).eq(model.iter().copied()));
            for (first, end) in [(0, 300), (5, 5), (70, 130), (64, 128), (130, 70), (290, 900)] {
                let count = model.iter().filter(|&&piece| first <= piece && piece < end).count();
                prop_assert_eq!(set.count(PieceIndex::new(first), PieceIndex::new(end)) as usize, count);
                let gap = (first..).find(|piece| !model.contains(piece));
                prop_assert_eq!(Some(set.first_gap(PieceIndex::new(first)).get()), gap);
            }
            let from_runs: Vec<u32> =
                set.runs().iter().flat_map(|(first, count)| first.get()..first.get() + count).collect();
            prop_assert!(from_runs.into_iter().eq(model));
        }
    }
}
