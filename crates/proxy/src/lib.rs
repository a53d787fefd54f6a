//! What the clients of a host speak to, on one port.
//!
//! Participants: clients, each with a connection of its own, speak HTTP/1.1 to a [`Proxy`]. It
//! takes content from a [`Node`](pantala_node::Node), and has everything else passed on by the
//! node's origin client.
//!
//! | request | what happens |
//! | --- | --- |
//! | `GET http://host/path` | streamed through the swarm, ranges and conditions included |
//! | any other method, and what cannot be shared | passed on as it is |
//! | `CONNECT host:443` | a blind tunnel, or an intercepted one: then as if to `https://host` |
//! | `/v2/…` | the registry it names: what has a digest through the swarm, the rest passed on |
//! | `/v1/…` | the local API, for this host's own programs |
//! | `/`, `/healthz`, `/metrics` | for people and operators |
//!
//! Goals: a client cannot tell the proxy from the origin, except by its speed; a body that was
//! cut short never looks complete; what is for one client is not handed to another; a client that
//! does not read disturbs nobody.
//!
//! Non-goals: keeping anything on a disk, changing what passes through, deciding who may have what
//! (the origin does).

pub mod api;
mod body;
mod conditions;
mod connection;
mod content;
mod forward;
mod guard;
mod headers;
mod heads;
mod intercept;
mod interim;
mod metrics;
mod mirror;
mod named;
mod names;
mod outlet;
mod passed;
mod range;
mod reply;
mod room;
mod route;
mod rules;
mod server;
mod stale;
mod tunnel;
mod unsent;
mod upgrade;
mod upstreams;
mod users;

pub use rules::{Action, Rule};
pub use server::{Proxy, ProxyConfig};
pub use upstreams::Upstream;
