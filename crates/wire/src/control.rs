//! The control protocol: a peer's standing connection to its supernode.
//!
//! `proto/pantala/v1/control.proto` says what travels. A [`Control`] keeps the peer's end
//! standing; [`service`] and [`serve`](fn@serve) are the supernode's end. Both turn the connection into
//! plain events: there, a message, gone. A [`Trunk`] is a connection with sessions of several peers.
//!
//! A session is one HTTP/2 stream, a daemon's on a connection of its own. It lasts until either end closes it
//! or no longer answers pings; the messages still queued then are lost, and the next session
//! begins with what the peer holds ([`pantala_core::control::FromPeer::Resume`]). For the same
//! reason a full queue ends the session instead of losing one message: the two would disagree
//! from there on.

mod client;
mod decode;
mod encode;
mod limits;
mod outgoing;
mod serve;
mod server;
mod transport;
mod trunk;

#[allow(missing_docs, clippy::all)]
mod proto {
    tonic::include_proto!("pantala.v1");
}

/// The response header in which a supernode names the protocol version of the session ([`crate::version`]).
const VERSION_HEADER: &str = "pantala-version";

pub use client::{ClientConfig, Control, ControlEvent};
pub use decode::Invalid;
pub use limits::{
    MAX_LABELS, MAX_MEASURED, MAX_PARENTS, MAX_PIECES, MAX_RESOURCES, MAX_SPANS, MAX_TEXT,
};
pub use serve::serve;
pub use server::{Outbox, PATH, Service, SessionEvent, Sessions, service};
pub use trunk::{SESSIONS_PER_CONNECTION, Trunk, TrunkSession};

#[cfg(test)]
mod tests;
