//! The programs end to end, against real parts.

mod admissions;
mod alone;
mod bad_input;
mod clients;
mod conformance;
mod containers;
mod credentials;
mod daemon;
mod faults;
mod generations;
mod hostile;
mod interception;
mod leases;
mod liar;
mod output;
mod packages;
mod private;
mod rates;
mod runtimes;
mod stalled;
mod strangers;
mod swarm;
mod versions;
mod whose_bytes;
