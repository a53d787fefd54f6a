//! What a child and its parent say to each other over one TCP connection.
//!
//! Participants: the child dials, asks ([`ToParent`]) and receives; the parent serves
//! ([`ToChild`]). Two peers that are each other's parent have two connections.
//!
//! Goals: one connection a pair, kept alive; requests that wait at the parent for bytes to come;
//! blocks that are written as they arrive and read straight into the piece they belong to;
//! cancelling without closing; news of what the parent holds in the same stream, in order.
//!
//! Non-goals: trust. What arrives is checked against digests that did not come this way.
//!
//! Versions: each side's first frame says which versions it speaks ([`crate::version`]); frames of an unknown kind
//! and what follows a frame's known fields are skipped.
//!
//! A frame is its kind (one byte), its payload's length (four bytes, big-endian) and the payload.
//! It is a protocol of our own rather than HTTP/1.1 because one connection carries many requests
//! whose order the parent chooses by urgency, and because cancelling an HTTP/1.1 response costs
//! its connection; `docs/design.md` has the reasons and figures.

mod frame;
mod io;

pub use frame::{BACKGROUND, Refusal, ToChild, ToParent, data_header};
pub use io::{DataFrame, FrameReader, Incoming};
