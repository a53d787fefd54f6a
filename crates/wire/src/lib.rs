//! What peers and supernodes say to each other, on the wire.
//!
//! Participants: a peer keeps one standing connection to a supernode ([`control`]), on which it
//! says what it wants and has and is told where to get it; content goes from peer to peer on
//! connections of its own.
//!
//! Goals: what arrives is checked before it becomes one of [`pantala_core`]'s values; whoever
//! misbehaves loses its connection and nobody else's; every queue has a bound and says what
//! happens at it.
//!
//! Non-goals: deciding anything. The brains do.

pub mod control;
pub mod link;
pub mod version;
