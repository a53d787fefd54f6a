use pantala_core::{PieceIndex, PieceSet};

/// From a piece to the one before another.
type Span = (PieceIndex, PieceIndex);

/// The pieces that windows need and that must therefore stay.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    spans: Vec<Span>,
}

impl Pins {
    /// The windows are here now. Says which pieces are needed now that were not before, and then
    /// which are not needed any more, each ascending.
    pub fn follow(
        &mut self,
        windows: impl Iterator<Item = Span> + Clone,
        mut say: impl FnMut(PieceIndex, bool),
    ) {
        if windows.clone().eq(self.spans.iter().copied()) {
            return;
        }
        if let ([before], Some(now)) = (self.spans.as_mut_slice(), single(windows.clone())) {
            let before = std::mem::replace(before, now);
            outside(now, before).for_each(|piece| say(piece, true));
            outside(before, now).for_each(|piece| say(piece, false));
            return;
        }
        let before = all(self.spans.iter().copied());
        self.spans.clear();
        self.spans.extend(windows);
        let now = all(self.spans.iter().copied());
        let fresh = now.iter().filter(|&piece| !before.contains(piece));
        fresh.for_each(|piece| say(piece, true));
        let free = before.iter().filter(|&piece| !now.contains(piece));
        free.for_each(|piece| say(piece, false));
    }
}

fn single(mut windows: impl Iterator<Item = Span>) -> Option<Span> {
    windows.next().filter(|_| windows.next().is_none())
}

/// What of one span is not in another.
fn outside(span: Span, other: Span) -> impl Iterator<Item = PieceIndex> {
    let ((first, end), (from, to)) = (span, other);
    let below = first.get()..end.min(from).get();
    let above = first.max(to).get()..end.get();
    below.chain(above).map(PieceIndex::new)
}

fn all(spans: impl Iterator<Item = Span>) -> PieceSet {
    let pieces = spans.flat_map(|(first, end)| first.get()..end.get());
    pieces.map(PieceIndex::new).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_pinned_is_what_windows_need(
            steps in prop::collection::vec(prop::collection::vec((0u32..40, 0u32..20), 0..3), 0..30),
        ) {
            let (mut pins, mut pinned) = (Pins::default(), BTreeSet::new());
            for windows in steps {
                let spans = windows.iter().map(|&(first, size)| {
                    (PieceIndex::new(first), PieceIndex::new(first + size))
                });
                let mut said = Vec::new();
                pins.follow(spans, |piece, pin| said.push((!pin, piece.get())));
                prop_assert!(said.is_sorted(), "{said:?}");
                for (free, piece) in said {
                    let news = if free { pinned.remove(&piece) } else { pinned.insert(piece) };
                    prop_assert!(news, "{piece} was said twice");
                }
                let needed: BTreeSet<u32> =
                    windows.iter().flat_map(|&(first, size)| first..first + size).collect();
                prop_assert_eq!(&pinned, &needed);
            }
        }
    }
}
