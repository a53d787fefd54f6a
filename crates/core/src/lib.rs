//! The words of the house as types: what a task, a piece, a digest and an error are.
//!
//! Goals: every crate speaks of the same things in the same types, and a value of such a type is
//! valid (a [`PieceIndex`] came from a [`Geometry`] or from a checked message, a [`ByteRange`] is
//! never reversed).
//!
//! Non-goals: any IO, any clock of its own, any policy.

pub mod control;
mod digest;
mod error;
mod flat;
mod geometry;
mod id;
mod meta;
mod pieces;
mod size;
mod time;
mod turn;

pub use digest::{ContentDigest, ContentHasher, DigestParseError, PieceDigest};
pub use error::{Error, Kind, Result, Who};
pub use flat::Flat;
pub use geometry::{
    BLOCK_MAX, ByteRange, Geometry, MAX_LENGTH, MAX_PIECE, MIN_PIECE, PieceIndex, is_piece_size,
};
pub use id::{Class, IdParseError, PeerId, ResourceKey, TaskId, display_url};
pub use meta::{ContentMeta, Generation, HEADER_BYTES_MAX, HEADER_LINES_MAX, Validators};
pub use pieces::PieceSet;
pub use size::{SizeParseError, format_size, parse_size};
pub use time::Time;
pub use turn::Turn;
