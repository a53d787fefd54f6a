use std::fmt;

use crate::ContentMeta;

/// The smallest piece: what content up to 1 GiB, and content of unknown length, is cut into.
pub const MIN_PIECE: u64 = 1 << 20;
/// The largest piece.
pub const MAX_PIECE: u64 = 4 << 20;
/// The longest content that is shared: as many of the largest pieces as account is kept of, 16 TiB.
pub const MAX_LENGTH: u64 = MAX_PIECE << 22;
/// The largest block: what one socket read brings, the unit of relay.
pub const BLOCK_MAX: usize = 256 << 10;

/// A piece's number within its task, from 0. At most 2³² pieces: 4 PiB of the smallest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The piece with this number.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The piece after it.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Bytes `start..end` of a content; without an end, up to where the content ends. Never reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    start: u64,
    end: Option<u64>,
}

impl ByteRange {
    /// Everything.
    pub const ALL: ByteRange = ByteRange {
        start: 0,
        end: None,
    };

    /// `start..end`, or `None` when the end lies before the start.
    pub fn new(start: u64, end: Option<u64>) -> Option<Self> {
        end.is_none_or(|end| start <= end)
            .then_some(Self { start, end })
    }

    /// From `start` to wherever the content ends.
    pub fn from(start: u64) -> Self {
        Self { start, end: None }
    }

    /// The first byte.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The byte after the last, when it is bounded.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// Whether it asks for everything.
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }
}

/// Whether content may be cut into pieces of this many bytes.
pub fn is_piece_size(size: u64) -> bool {
    size.is_power_of_two() && (MIN_PIECE..=MAX_PIECE).contains(&size)
}

/// How a content is cut into pieces.
///
/// Pieces are 1 MiB for content up to 1 GiB, 2 MiB up to 2 GiB and 4 MiB above; the last one is
/// what remains. Content whose length nobody knows yet is cut into 1 MiB pieces without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    length: Option<u64>,
    shift: u32,
}

impl Geometry {
    /// Whether both can be of one content: it is cut alike, and no two lengths are said.
    pub fn agrees(&self, other: &Self) -> bool {
        let lengths = self.length.zip(other.length);
        self.shift == other.shift && lengths.is_none_or(|(one, other)| one == other)
    }

    /// The geometry of a content of this many bytes.
    pub fn new(length: Option<u64>) -> Self {
        let mut piece = MIN_PIECE;
        while piece < MAX_PIECE && length.is_some_and(|length| length > piece << 10) {
            piece *= 2;
        }
        Self {
            length,
            shift: piece.trailing_zeros(),
        }
    }

    /// The geometry of a content that is known: the pieces that it was cut into when it was learned,
    /// whatever is known of its length since then.
    pub fn of(meta: &ContentMeta) -> Self {
        let told = meta.piece_size.filter(|&size| is_piece_size(size));
        match told {
            Some(size) => Self {
                length: meta.length,
                shift: size.trailing_zeros(),
            },
            None => Self::new(meta.length),
        }
    }

    /// The same pieces, now that the end is known.
    pub fn ended(self, length: u64) -> Self {
        Self {
            length: Some(length),
            ..self
        }
    }

    /// Bytes of the whole content, when known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Bytes of every piece but the last.
    pub fn piece_size(&self) -> u64 {
        1 << self.shift
    }

    /// How many pieces there are, when the length is known.
    pub fn pieces(&self) -> Option<u32> {
        self.length
            .map(|length| index(length.div_ceil(self.piece_size())))
    }

    /// Whether the content has this piece, or may have it while the length is unknown.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.pieces().is_none_or(|pieces| piece.get() < pieces)
    }

    /// The first byte of a piece.
    pub fn start(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.get()) << self.shift
    }

    /// Bytes of a piece; a full piece's while the length is unknown, 0 past the end.
    pub fn size(&self, piece: PieceIndex) -> u64 {
        let start = self.start(piece);
        match self.length {
            Some(length) => length.saturating_sub(start).min(self.piece_size()),
            None => self.piece_size(),
        }
    }

    /// The piece that has the byte at `offset`.
    pub fn piece_at(&self, offset: u64) -> PieceIndex {
        PieceIndex::new(index(offset >> self.shift))
    }

    /// The piece after the last that bytes before `end` lie in.
    pub fn piece_after(&self, end: u64) -> PieceIndex {
        PieceIndex::new(index(end.div_ceil(self.piece_size())))
    }
}

/// A piece's number, or the last there can be.
fn index(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_double_above_a_gib() {
        let size = |length| Geometry::new(Some(length)).piece_size();
        assert_eq!(size(0), 1 << 20);
        assert_eq!(size(1 << 30), 1 << 20);
        assert_eq!(size((1 << 30) + 1), 2 << 20);
        assert_eq!(size(2 << 30), 2 << 20);
        assert_eq!(size((2 << 30) + 1), 4 << 20);
        assert_eq!(size(1 << 40), 4 << 20);
        assert_eq!(Geometry::new(None).piece_size(), 1 << 20);
    }

    #[test]
    fn pieces_stay_as_they_were_cut_when_the_length_is_known() {
        let begun = Geometry::new(None);
        for length in [1, 1 << 30, (1 << 30) + 1, 3 << 30] {
            let meta = ContentMeta {
                length: Some(length),
                piece_size: Some(begun.piece_size()),
                ..ContentMeta::default()
            };
            assert_eq!(Geometry::of(&meta), begun.ended(length), "{length}");
        }
        // What nobody can have cut anything into says nothing.
        for nonsense in [0, 1, MIN_PIECE / 2, MIN_PIECE * 3, MAX_PIECE * 2, u64::MAX] {
            let meta = ContentMeta {
                length: Some(3 << 30),
                piece_size: Some(nonsense),
                ..ContentMeta::default()
            };
            assert_eq!(
                Geometry::of(&meta),
                Geometry::new(Some(3 << 30)),
                "{nonsense}"
            );
        }
    }

    #[test]
    fn a_range_is_never_reversed() {
        assert!(ByteRange::new(5, Some(4)).is_none());
        assert!(ByteRange::new(5, Some(5)).is_some());
    }

    #[test]
    fn lengths_beyond_all_bounds_do_not_wrap() {
        for length in [MAX_LENGTH + 1, 1 << 54, (1 << 54) + 1, u64::MAX] {
            let g = Geometry::new(Some(length));
            assert!(g.pieces().unwrap() >= 1 << 22 && g.has(PieceIndex::new(0)));
            assert_eq!(g.size(PieceIndex::new(0)), MAX_PIECE);
            assert!(g.piece_at(length - 1) >= PieceIndex::new(1 << 22));
        }
        assert_eq!(Geometry::new(Some(MAX_LENGTH)).pieces(), Some(1 << 22));
    }

    proptest! {
        #[test]
        fn pieces_cover_the_content_once(length in 0u64..(5 << 30)) {
            let g = Geometry::new(Some(length));
            let pieces = g.pieces().unwrap();
            let total: u64 = (0..pieces).map(|i| g.size(PieceIndex::new(i))).sum();
            prop_assert_eq!(total, length);
            prop_assert!(!g.has(PieceIndex::new(pieces)));
            prop_assert_eq!(g.size(PieceIndex::new(pieces)), 0);
        }

        #[test]
        fn every_byte_lies_in_its_piece(length in 1u64..(5 << 30), at in any::<u64>()) {
            let g = Geometry::new(Some(length));
            let at = at % length;
            let piece = g.piece_at(at);
            prop_assert!(g.start(piece) <= at && at < g.start(piece) + g.size(piece));
            prop_assert!(g.piece_after(at + 1) == piece.next());
        }
    }
}
