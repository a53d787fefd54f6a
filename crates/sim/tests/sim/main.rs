//! The simulator: its model of connections held against what sockets did, whole swarms of known outcome, and
//! swarms drawn at random of which certain things must hold.

mod connections;
mod properties;
mod swarm;
