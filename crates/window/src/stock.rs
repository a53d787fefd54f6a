use pantala_core::PieceIndex;

/// What a parent has of which piece: three sets, side by side, so that all that is asked about a
/// piece lies in one place.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    words: Vec<Word>,
}

/// A bit for each of 64 pieces.
#[derive(Debug, Default, Clone, Copy)]
struct Word {
    /// Complete pieces.
    holds: u64,
    /// Pieces it has the first bytes of.
    receives: u64,
    /// Pieces it had and dropped, or said it will not get: no use waiting there.
    lacks: u64,
}

impl Stock {
    fn word(&self, piece: PieceIndex) -> Word {
        let word = self.words.get(piece.get() as usize / 64);
        word.copied().unwrap_or_default()
    }

    /// The words that `[first, first + count)` lies in, each with the bits that are meant.
    fn words(&mut self, first: PieceIndex, count: u32) -> impl Iterator<Item = (&mut Word, u64)> {
        let (first, end) = (first.get(), first.get().saturating_add(count));
        let (from, to) = (first as usize / 64, end.div_ceil(64) as usize);
        if count > 0 && to > self.words.len() {
            self.words.resize(to, Word::default());
        }
        let to = if count > 0 { to } else { from };
        let words = self.words.get_mut(from..to).unwrap_or_default();
        (from as u32..).zip(words).map(move |(at, word)| {
            let low = first.saturating_sub(at * 64).min(63);
            let high = (end - at * 64).min(64);
            (word, u64::MAX << low & u64::MAX >> (64 - high))
        })
    }

    /// Whether it has the whole piece.
    pub fn holds(&self, piece: PieceIndex) -> bool {
        self.word(piece).holds & bit(piece) != 0
    }

    /// Whether it was said to have the beginning of the piece, and not to have all.
    pub fn receives(&self, piece: PieceIndex) -> bool {
        self.word(piece).receives & bit(piece) != 0
    }

    /// Whether it has the piece or the beginning of it.
    pub fn has(&self, piece: PieceIndex) -> bool {
        let word = self.word(piece);
        (word.holds | word.receives) & bit(piece) != 0
    }

    /// Whether it does not have the piece and will not get it.
    pub fn lacks(&self, piece: PieceIndex) -> bool {
        self.word(piece).lacks & bit(piece) != 0
    }

    /// It has these pieces.
    pub fn hold(&mut self, first: PieceIndex, count: u32) {
        for (word, bits) in self.words(first, count) {
            word.holds |= bits;
            word.receives &= !bits;
            word.lacks &= !bits;
        }
    }

    /// It has the beginning of these pieces.
    pub fn receive(&mut self, first: PieceIndex, count: u32) {
        for (word, bits) in self.words(first, count) {
            word.receives |= bits;
            word.lacks &= !bits;
        }
    }

    /// It does not have these pieces and will not get them.
    pub fn lack(&mut self, first: PieceIndex, count: u32) {
        for (word, bits) in self.words(first, count) {
            word.lacks |= bits;
            word.holds &= !bits;
            word.receives &= !bits;
        }
    }
}

fn bit(piece: PieceIndex) -> u64 {
    1 << (piece.get() % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_three_sets(ops in prop::collection::vec((0u32..3, 0u32..300, 0u32..150), 0..60)) {
            let mut stock = Stock::default();
            let (mut holds, mut receives, mut lacks) =
                (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            for (what, first, count) in ops {
                let at = PieceIndex::new(first);
                match what {
                    0 => stock.hold(at, count),
                    1 => stock.receive(at, count),
                    _ => stock.lack(at, count),
                }
                for piece in first..first + count {
                    if what == 2 { lacks.insert(piece); } else { lacks.remove(&piece); }
                    if what == 0 { holds.insert(piece); }
                    if what == 1 { receives.insert(piece); }
                    if what == 2 { holds.remove(&piece); }
                    if what != 1 { receives.remove(&piece); }
                }
            }
            for number in 0..500 {
                let piece = PieceIndex::new(number);
                prop_assert_eq!(stock.holds(piece), holds.contains(&number));
                prop_assert_eq!(stock.receives(piece), receives.contains(&number));
                prop_assert_eq!(stock.lacks(piece), lacks.contains(&number));
                let has = holds.contains(&number) || receives.contains(&number);
                prop_assert_eq!(stock.has(piece), has);
            }
        }
    }
}
