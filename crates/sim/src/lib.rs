//! A virtual network around the unchanged brains: [`pantala_window::Picker`] and
//! [`pantala_swarm::Swarm`] run here exactly as they do in the daemons, with modelled links
//! instead of sockets and a clock that jumps from event to event.
//!
//! # What is modelled
//! - A host's uplink sends one block at a time, round robin over its children that have something
//!   to get, for each child the lowest piece first; a host's downlink is a queue behind which the
//!   bytes of all its senders wait. A flow has no more on its way than two blocks and what the
//!   latency holds, as TCP behind a shaper with a short queue.
//! - A piece in flight is relayed block by block (cut-through). A request for a piece that the
//!   parent does not have yet waits there.
//! - Between two zones (data centres) all traffic shares one link each way, a queue of its own.
//! - Control messages, announcements and requests take a latency and no bandwidth.
//! - A host takes part in any number of tasks; its memory is one, and what leaves it first is what
//!   the store's policy says.
//! - A complete piece is right once its digest has come from the supernode; what a peer reads from
//!   the origin itself it vouches for.
//!
//! # What is not
//! Loss, congestion control, processors, headers: a byte of content is a byte on the link.
//!
//! Everything follows from the [`Scenario`] and its seed: the same scenario gives the same report.

mod actions;
mod ahead;
mod arrivals;
mod cache;
mod control;
mod draw;
mod faults;
mod flows;
mod host;
mod links;
mod measure;
mod news;
mod queue;
mod reading;
mod receive;
mod report;
mod scenario;
mod seat;
mod series;
mod world;
mod zones;

pub use report::{PeerReport, Report};
pub use scenario::{Arrivals, Between, Churn, Class, Fault, Requests, Scenario, Turns};
pub use series::Sample;
pub use world::run;
