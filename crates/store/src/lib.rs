//! Where bytes live between the socket they came from and the sockets they leave by.
//!
//! - [`Budget`]: one hard cap over everything below, with a fair queue for who has to wait.
//! - [`PieceBuffer`]: one piece's bytes, appended to by one writer while any number of readers
//!   take what is there already. A piece in flight is such a buffer that is not full.
//!   Its memory comes from slabs that the kernel may back by huge pages.
//! - [`Keep`]: which piece leaves first; a plain state machine.
//! - [`Store`] and [`TaskPieces`]: what this peer holds and receives, by task, and the news of it.
//!
//! Invariants, checked by tests:
//! 1. The bytes of all live buffers never exceed the budget: a buffer is charged before it is
//!    allocated, and the charge ends when the last holder (a slow socket too) lets go.
//!    Memory that is kept for the next piece is not charged and bounded by a few MiB.
//! 2. Bytes once published by a buffer's writer never change.
//! 3. A pinned piece is never evicted.
//! 4. Nothing is evicted while a lock of this crate is held: the end of a charge, which may come below
//!    any lock, only wakes the first of those who wait for memory. Debug builds check the order in
//!    which locks are taken.
//! 5. Whoever watches a task learns of each piece that comes or goes, or that it has missed some.
//!
//! Non-goals: fetching, verifying, deciding what to fetch. Nothing here touches a disk.

mod budget;
mod buffer;
mod keep;
#[cfg(all(test, feature = "loom"))]
mod loom_tests;
mod slabs;
mod store;
mod sync;
mod task;

pub use budget::{Budget, Charge, Holder};
pub use buffer::{PieceBuffer, PieceWriter};
pub use keep::{Eviction, Keep};
pub use store::{Store, StoreStats};
pub use task::{Arrival, Change, Claim, Slot, TaskPieces};
