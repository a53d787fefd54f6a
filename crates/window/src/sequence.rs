//! Sees that ranges of a content are read one after the other, and says what follows.
//!
//! Who loads a file lazily (an image's layer that is mounted, a model that is mapped) asks for
//! small ranges: at random, or on and on. In the second case what follows can be there before it
//! is asked for.

/// Readers of one content that are told apart.
const TRACKS: usize = 32;
/// The ranges in a row after which what follows is fetched. Two may be chance.
const IN_A_ROW: u32 = 3;
/// A range that begins so many bytes before or after the end of the last still follows it: whole
/// pages are read, and small parts skipped.
const SLACK: u64 = 128 << 10;
/// The most bytes ahead of a reader.
const MOST: u64 = 16 << 20;

/// The ranges of one content as they come, and what to fetch ahead of them.
#[derive(Debug, Clone, Default)]
pub struct Sequences {
    tracks: Vec<Track>,
    /// Counts ranges.
    now: u64,
}

/// One reader, by where it is.
#[derive(Debug, Clone)]
struct Track {
    /// Where its last range ended.
    next: u64,
    /// How many ranges came in a row.
    row: u32,
    /// Up to where is fetched, or has been.
    ahead: u64,
    /// When it last read.
    used: u64,
}

impl Sequences {
    /// Somebody reads `start..end` of a content of `length` bytes, in pieces of `piece_size`. Gives
    /// the bytes that should be fetched now because they are likely to be read next.
    pub fn read(
        &mut self,
        start: u64,
        end: u64,
        piece_size: u64,
        length: Option<u64>,
    ) -> Option<std::ops::Range<u64>> {
        self.now += 1;
        let follows =
            |track: &&mut Track| start <= track.next + SLACK && track.next <= start + SLACK;
        let Some(track) = self.tracks.iter_mut().find(follows) else {
            self.begin(end);
            return None;
        };
        track.used = self.now;
        track.row = track.row.saturating_add(1);
        track.next = track.next.max(end);
        track.ahead = track.ahead.max(track.next);
        if track.row < IN_A_ROW {
            return None;
        }
        // The longer it goes on, the further ahead.
        let len = end.saturating_sub(start).max(1);
        let depth = len.saturating_mul(1 << track.row.min(16));
        let depth = depth.clamp(piece_size.min(MOST), MOST);
        let last = length.unwrap_or(u64::MAX);
        let to = track.next.saturating_add(depth).min(last);
        // Not in crumbs: a piece is what is fetched.
        let enough = to.saturating_sub(track.ahead) >= piece_size || to == last;
        if to <= track.ahead || !enough {
            return None;
        }
        let from = std::mem::replace(&mut track.ahead, to);
        Some(from..to)
    }

    fn begin(&mut self, end: u64) {
        let track = Track {
            next: end,
            row: 1,
            ahead: end,
            used: self.now,
        };
        if self.tracks.len() < TRACKS {
            self.tracks.push(track);
        } else if let Some(oldest) = self.tracks.iter_mut().min_by_key(|track| track.used) {
            *oldest = track;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECE: u64 = 1 << 20;

    #[test]
    fn what_follows_a_sequence_is_fetched_ahead_of_it_once() {
        let mut sequences = Sequences::default();
        let length = Some(64 << 20);
        let mut fetched = 0;
        let step = 256 << 10;
        for at in (0..64 << 20).step_by(step as usize) {
            if let Some(range) = sequences.read(at, at + step, PIECE, length) {
                assert!(range.start >= fetched && range.end > range.start);
                fetched = range.end;
            }
            // From the fourth range on there is always something ahead.
            if at >= 3 * step {
                assert!(fetched > at + step || fetched == 64 << 20, "{at}");
            }
            assert!(fetched <= at + step + MOST);
        }
        assert_eq!(fetched, 64 << 20);
    }

    #[test]
    fn random_reads_fetch_nothing_more() {
        let mut sequences = Sequences::default();
        for at in [50_u64, 3, 77, 12, 60, 31, 99, 5, 42].map(|piece| piece * PIECE) {
            assert_eq!(sequences.read(at, at + 4096, PIECE, None), None);
        }
    }

    #[test]
    fn two_readers_are_told_apart() {
        let mut sequences = Sequences::default();
        let mut fetches = [0, 0];
        for step in 0..64_u64 {
            for (reader, base) in [0, 512 << 20].into_iter().enumerate() {
                let at = base + step * PIECE;
                if let Some(range) = sequences.read(at, at + PIECE, PIECE, None) {
                    assert!(range.start >= at && range.end <= at + PIECE + MOST);
                    fetches[reader] += 1;
                }
            }
        }
        assert!(fetches.iter().all(|&fetches| fetches > 8), "{fetches:?}");
    }

    proptest! {
        #[test]
        fn nothing_is_fetched_twice_beyond_the_end_or_far_ahead(
            reads in prop::collection::vec((0_u64..64 << 20, 1_u64..4 << 20), 1..200),
            length in 1_u64..64 << 20,
        ) {
            let mut sequences = Sequences::default();
            for (start, len) in reads {
                let end = (start + len).min(length.max(start + 1));
                if let Some(range) = sequences.read(start, end, PIECE, Some(length)) {
                    prop_assert!(range.start < range.end && range.end <= length);
                    prop_assert!(range.end - range.start <= MOST + SLACK + len);
                }
            }
            prop_assert!(sequences.tracks.len() <= TRACKS);
        }
    }
}
