use pantala_core::PieceIndex;

/// Pieces in windows that are not held, ascending, with how far each is from the nearest reader.
///
/// One list that is filled anew for each plan: a picker plans with every piece that comes.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pieces: Vec<(PieceIndex, u32)>,
}

impl Wanted {
    pub fn clear(&mut self) {
        self.pieces.clear();
    }

    /// A window wants a piece; the nearest reader counts.
    pub fn add(&mut self, piece: PieceIndex, urgency: u32) {
        match self.pieces.last() {
            Some(&(last, _)) if last >= piece => match self.find(piece) {
                Ok(at) => self.pieces[at].1 = self.pieces[at].1.min(urgency),
                Err(at) => self.pieces.insert(at, (piece, urgency)),
            },
            _ => self.pieces.push((piece, urgency)),
        }
    }

    /// These and no others, descending.
    pub fn put(&mut self, pieces: impl Iterator<Item = (PieceIndex, u32)>) {
        self.pieces.clear();
        self.pieces.extend(pieces);
        self.pieces.reverse();
    }

    fn find(&self, piece: PieceIndex) -> Result<usize, usize> {
        // Windows are mostly whole: the piece is not far from where it would be then.
        let Some(&(first, _)) = self.pieces.first() else {
            return Err(0);
        };
        let guess = piece.get().wrapping_sub(first.get()) as usize;
        if self.pieces.get(guess).is_some_and(|found| found.0 == piece) {
            return Ok(guess);
        }
        self.pieces
            .binary_search_by_key(&piece, |&(piece, _)| piece)
    }

    pub fn contains_key(&self, piece: &PieceIndex) -> bool {
        self.find(*piece).is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PieceIndex, &u32)> + '_ {
        self.pieces.iter().map(|(piece, urgency)| (piece, urgency))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_map(adds in prop::collection::vec((0u32..80, 0u32..70), 0..100)) {
            let (mut wanted, mut model) = (Wanted::default(), BTreeMap::new());
            for (piece, urgency) in adds {
                let piece = PieceIndex::new(piece);
                wanted.add(piece, urgency);
                let least = model.entry(piece).or_insert(u32::MAX);
                *least = (*least).min(urgency);
            }
            prop_assert!(wanted.iter().eq(model.iter()));
            for piece in (0..90).map(PieceIndex::new) {
                prop_assert_eq!(wanted.contains_key(&piece), model.contains_key(&piece));
            }
        }
    }
}
