//! Every flag of `dfget`, `dfdaemon` and `supernode`, defined once.
//!
//! Participants: a `Flag` is the one definition; from it come the command line, the
//! environment variable, the key of the configuration file, `--help`, `docs/cli.md` and
//! `docs/configuration.md`. A program calls its own `from_env_args` and gets plain typed fields.
//!
//! Goals: what is in a configuration can be used as it is (cross-field rules are checked here),
//! and what cannot be used is refused with one line that names the flag, variable or file and
//! line, what is wrong with it, and what is allowed. A flag goes before the environment, the
//! environment before the file, the file before the default.
//!
//! Non-goals: opening sockets, resolving names, reading certificates, setting up logging.

mod command;
mod dfdaemon;
mod dfget;
#[cfg(test)]
mod docs;
mod exit;
mod file;
mod flag;
mod jobs;
mod shared;
mod sources;
mod supernode;
mod tables;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use dfdaemon::DfdaemonConfig;
pub use dfget::DfgetConfig;
pub use exit::{EXIT_CODES, Exit, ExitCodeRow, exit_code};
pub use jobs::{CaInitConfig, ContainerRuntime, DfdaemonJob, SetupConfig};
pub use shared::MIN_MEMORY;
pub use supernode::SupernodeConfig;
pub use types::{
    Action, Cache, DaemonUse, HostPort, Locality, Output, Prefetch, Range, Rule, Upstream, Window,
};

use command::Program;

/// The three programs; what one of them knows is never an unknown variable to another.
const PROGRAMS: [&Program; 3] = [&dfget::PROGRAM, &dfdaemon::PROGRAM, &supernode::PROGRAM];

/// What dfdaemon does besides serving; its flags are given on the command line only.
#[cfg(test)]
const JOBS: [&Program; 2] = [&jobs::SETUP, &jobs::CA_INIT];
