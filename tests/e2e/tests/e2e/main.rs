//! The programs end to end, against real parts.

mod alone;
mod bad_input;
mod conformance;
mod containers;
mod daemon;
mod faults;
mod liar;
mod output;
mod private;
mod rates;
mod runtimes;
mod swarm;
