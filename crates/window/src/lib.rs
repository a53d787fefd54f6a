//! The reader's brain: which piece to ask for, of whom, and when to ask somebody else.
//!
//! One [`Picker`] serves one task on one peer, for all its readers. It is a plain machine: events
//! and a clock go in through [`Picker::handle`], decisions come out of [`Picker::poll_action`], and
//! [`Picker::next_wakeup`] says when to come back if nothing happens. No sockets, no tasks, no
//! clock and no randomness of its own: the daemons and the simulator drive the same code.
//!
//! # How it decides
//! Each reader has a sliding [`Window`] of pieces from its position on. A piece in a window is
//! asked of the first that applies:
//! 1. the origin, when this peer holds the source lease for it: one transfer ([`RunId`]) runs over
//!    consecutive pieces as long as lease and window allow;
//! 2. the parent that the supernode prefers for the piece's stripe, even before that parent has the
//!    piece: the request waits there and the bytes follow as soon as they arrive;
//! 3. of the parents that hold it, the one with the shortest estimated queue;
//! 4. nobody: then the supernode is asked for the lease.
//!
//! The first pieces of a window go out in order, the rest rarest first. A head piece (the one its
//! reader waits for) that makes no progress for the configured patience is asked for a second
//! time elsewhere; whoever is first wins and the other is cancelled. A parent that was late is
//! avoided for a while that doubles with each time, never for ever.
//!
//! # Invariants (checked by `debug_assert!`s and by the property tests)
//! 1. A window's base never moves back and never passes a piece its reader has not taken.
//! 2. Only pieces inside some window are asked for; a window is never larger than its share.
//! 3. At most two requests for one piece are under way, and a held piece has none.
//! 4. The origin is asked only for leased pieces, or, when there is no supernode, for pieces that
//!    no parent can deliver, after a pause that differs from peer to peer.

mod attempts;
mod events;
mod leases;
mod message;
mod origin;
mod parents;
mod picker;
mod pins;
mod requests;
mod runs;
mod sequence;
mod stock;
mod wanted;
mod window;
mod work;

pub use leases::PieceRanges;
pub use message::{
    Action, AttemptId, Class, Config, Event, Failure, Order, ParentId, ReaderId, RunId, Source,
    WindowSize,
};
pub use picker::{Picker, Snapshot};
pub use sequence::Sequences;
pub use window::Window;
pub use work::Request;
