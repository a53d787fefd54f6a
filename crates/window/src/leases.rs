use pantala_core::PieceIndex;

/// A set of pieces as ascending, disjoint ranges; the last one may be without end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PieceRanges {
    /// `[first, end)`, `u32::MAX` where there is no end.
    ranges: Vec<(u32, u32)>,
}

impl PieceRanges {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `[first, end)` in.
    pub fn insert(&mut self, first: PieceIndex, end: Option<PieceIndex>) {
        let (mut first, mut end) = (first.get(), end.map_or(u32::MAX, PieceIndex::get));
        if first >= end {
            return;
        }
        self.ranges.retain(|&(start, stop)| {
            let touches = start <= end && first <= stop;
            if touches {
                first = first.min(start);
                end = end.max(stop);
            }
            !touches
        });
        let at = self.ranges.partition_point(|&(start, _)| start < first);
        self.ranges.insert(at, (first, end));
    }

    /// Takes `[first, end)` out.
    pub fn remove(&mut self, first: PieceIndex, end: Option<PieceIndex>) {
        let (first, end) = (first.get(), end.map_or(u32::MAX, PieceIndex::get));
        if first >= end {
            return;
        }
        let cut = |(start, stop): (u32, u32)| {
            let left = (start, stop.min(first));
            let right = (start.max(end), stop);
            [left, right]
                .into_iter()
                .filter(|(start, stop)| start < stop)
        };
        self.ranges = self.ranges.drain(..).flat_map(cut).collect();
    }

    /// Whether the piece is in.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        self.end_of(piece).is_some()
    }

    /// The end of the range that the piece lies in: `Some(None)` for one without end.
    pub fn end_of(&self, piece: PieceIndex) -> Option<Option<PieceIndex>> {
        let piece = piece.get();
        let range = self
            .ranges
            .iter()
            .find(|&&(first, end)| first <= piece && piece < end)?;
        Some((range.1 != u32::MAX).then(|| PieceIndex::new(range.1)))
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (PieceIndex, Option<PieceIndex>)> + '_ {
        self.ranges.iter().map(|&(first, end)| {
            (
                PieceIndex::new(first),
                (end != u32::MAX).then(|| PieceIndex::new(end)),
            )
        })
    }

    /// Whether nothing is in.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(ops in prop::collection::vec((any::<bool>(), 0u32..40, 0u32..45), 0..60)) {
            let (mut ranges, mut model) = (PieceRanges::new(), [false; 64]);
            for (add, first, end) in ops {
                // 40 and more stand for "no end"; the model ends at 64.
                let bound = (end < 40).then(|| PieceIndex::new(end));
                let stop = if end < 40 { end as usize } else { 64 };
                if add {
                    ranges.insert(PieceIndex::new(first), bound);
                } else {
                    ranges.remove(PieceIndex::new(first), bound);
                }
                for flag in model.iter_mut().take(stop).skip(first as usize) {
                    *flag = add;
                }
            }
            for (i, &expected) in model.iter().enumerate() {
                prop_assert_eq!(ranges.contains(PieceIndex::new(i as u32)), expected, "{}", i);
            }
            let bounds: Vec<u32> = ranges.ranges.iter().flat_map(|&(a, b)| [a, b]).collect();
            prop_assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "ascending and disjoint");
        }
    }
}
