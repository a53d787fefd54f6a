//! Reads content from where it comes from: an HTTP server, a registry, an object store.
//!
//! Participants: an [`OriginClient`] per process, which holds the connections; an
//! [`OriginRequest`] for each thing wanted; an [`OriginBody`] that hands over the bytes in order.
//!
//! Goals:
//! - the first GET tells everything there is to know of a content: no probing request before it;
//! - a transfer that breaks goes on at the same byte, and only of the same content;
//! - what is cut short never looks complete, whatever the framing;
//! - bytes are handed over as they were sent: nothing is decoded on the way;
//! - an error says whose fault it is, whether to try again and what the user can do.
//!
//! Non-goals: what to fetch, how much at once and from whom (the window and the supernode decide),
//! keeping bytes (the store does), and finding credentials (the user gives them; tokens are got for
//! them where a registry wants some).

mod asker;
mod auth;
mod backoff;
mod body;
mod challenge;
mod client;
mod config;
mod connect;
mod connection;
mod credentials;
mod directives;
mod exchange;
mod failure;
mod freshness;
mod head;
mod hosts;
mod interim;
mod kept;
mod passed;
mod place;
mod pool;
mod reads;
mod refusal;
mod request;
mod tls;
mod token;
mod transport;

pub use asker::Asker;
pub use body::OriginBody;
pub use client::{OriginClient, OriginResponse, Revalidation, Served, WholeServer};
pub use config::{ClientCert, Credentials, HostConfig, OriginConfig};
pub use credentials::{Harmless, is_signed};
pub use directives::{Directives, Seconds};
pub use hosts::is_loopback;
pub use interim::Interim;
pub use kept::may_be_kept;
pub use passed::Body;
pub use place::Place;
pub use reads::{LIMIT_MAX, LITTLE};
pub use refusal::{Refusal, Refused};
pub use request::{Expect, OriginRequest};
pub use transport::READ_AHEAD;
