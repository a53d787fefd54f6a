//! A virtual network around the unchanged brains: [`pantala_window::Picker`] and
//! [`pantala_swarm::Swarm`] run here exactly as they do in the daemons, with modelled links
//! instead of sockets and a clock that jumps from event to event.
//!
//! # What is modelled
//! - A host has one uplink and one downlink for all tasks that it takes part in, and one memory; what leaves that first is
//!   what the store's policy says.
//! - One connection joins two hosts and carries all their tasks, in the order in which the daemon serves requests.
//! - Connections are ideal (an uplink serves them by turns, block by block; a downlink is a queue), or they are TCP: windows
//!   and paces of BBR or CUBIC, sockets' buffers, queues that overflow, packets that are lost.
//! - A piece in flight is relayed block by block (cut-through). A request for a piece that the
//!   parent does not have yet waits there.
//! - Between two zones (data centres) all traffic shares one link each way, a queue of its own.
//! - Control messages, announcements and requests take a latency and no bandwidth; with TCP also what waits before them.
//! - A complete piece is right once its digest has come from the supernode; what a peer reads from
//!   the origin itself it vouches for.
//!
//! # What is not
//! Processors and headers: a byte of content is a byte on the link. And what a daemon decides by itself is imitated or left
//! out: docs/simulation.md has the list.
//!
//! Everything follows from the [`Scenario`] and its seed: the same scenario gives the same report.

mod actions;
mod ahead;
mod arrivals;
mod cache;
mod conn;
mod control;
mod draw;
mod faults;
mod flow;
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
mod socket;
mod tcp;
mod wire;
mod world;
mod zones;

pub use flow::{Flow, flow};
pub use report::{PeerReport, Report};
pub use scenario::{Arrivals, Between, Churn, Class, Fault, Network, Requests, Scenario, Turns};
pub use series::Sample;
pub use tcp::Congestion;
pub use world::run;
