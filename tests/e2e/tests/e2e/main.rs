//! The programs end to end, against real parts.

mod alone;
mod bad_input;
mod containers;
mod daemon;
mod faults;
mod liar;
mod output;
mod rates;
mod runtimes;
mod swarm;
