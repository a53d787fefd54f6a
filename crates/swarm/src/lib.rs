//! The supernode's brain: which peers exist, what they hold, who pulls from whom, and who may ask
//! the origin for what.
//!
//! A plain machine: [`Swarm::handle`] takes events and the time, [`Swarm::poll_output`] gives the
//! messages to send, [`Swarm::next_wakeup`] says when to come back. No sockets, no clock, no
//! randomness but a seeded one. Holds no content.
//!
//! # How it decides
//! - The first peer that asks for an unknown resource *learns* it: its own first GET brings the
//!   metadata and goes on as the first source lease. Whoever asks meanwhile waits for that.
//! - A source lease is a range of pieces that one peer, and no other, fetches from the origin. It
//!   moves on when its holder leaves, falls silent, gets no byte for long, or gives it back.
//! - Each task has as many trees as stripes (piece `i` is of stripe `i mod stripes`), rooted at
//!   the holder of the lease at the live edge. The first members in step, and those who join in
//!   turn, are a chain; below its end a peer is an inner node in one tree and a leaf in the others.
//!   Either way it passes on about as much as it receives. The tree is a preference: peers also
//!   know some others, and leave a parent that is late.
//! - A member that does not keep up though its parents have what it lacks becomes a leaf where an
//!   uplink is idle, until it has caught up. Who may only be waiting for the lease holder is held
//!   against it by a probe: a lease for a piece ahead, which takes the lease over if it is quicker.
//! - Members are told their turns at keeping pieces, so that those in step evict different ones,
//!   and whoever holds a last copy is told that.
//! - Near ones first: a zone takes each piece in once. Where the operator's labels say nothing, who
//!   is near is found from round trips that peers measure.
//! - Who sends wrong bytes is found out, and for a while nothing that it says counts.
//! - Members are told their turns at evicting, so that peers in step keep different pieces.
//! - Who cannot connect to a parent does not count on what that one holds, and gets leases for itself
//!   alone when it reaches nobody.
//! - An origin's failures are counted here, whoever met them, and what is known of them is told to
//!   all: members need not each find out that an origin is dead or wants to be left alone.
//! - A digest comes from who held the lease for the piece, and goes to all members.
//!
//! # Invariants (checked by `debug_assert!`s and by the property tests)
//! 1. No piece is leased to two peers at once, unless the one that holds it has failed to deliver
//!    it to the other three times, or cannot be reached by it.
//! 2. The trees have no cycles, and every member of a task but its root has a parent in each.
//! 3. The count of copies of a piece is the number of members that said they hold it.
//! 4. Nothing is kept of a peer that has gone.
//! 5. Where nothing but one transfer names a content, one member gets one lease for it, and nobody
//!    gets another.

mod answers;
mod check;
mod keep;
mod learn;
mod leases;
mod lend;
mod mesh;
mod message;
mod outage;
mod pace;
mod parents;
mod peer_map;
mod place;
mod probe;
mod reach;
mod relocate;
mod resource;
mod sites;
mod swarm;
mod task;
mod transfer;
mod tree;
mod trust;

pub use message::{Config, Event, Locality, Output, Shape, Stats};
pub use swarm::Swarm;
