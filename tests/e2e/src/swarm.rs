//! Several hosts and their supernode, for tests of what hosts share. It starts them and checks
//! nothing.

use crate::{Dfdaemon, Supernode};

/// Hosts that share what they read.
pub struct Swarm {
    /// One dfdaemon a host.
    pub daemons: Vec<Dfdaemon>,
    /// What they ask for peers.
    pub supernode: Supernode,
}

impl Swarm {
    /// So many hosts, whose dfdaemons get these flags.
    pub fn start(hosts: usize, flags: &[&str]) -> Self {
        let supernode = Supernode::start();
        Self {
            daemons: (0..hosts)
                .map(|_| Dfdaemon::start(&supernode, flags))
                .collect(),
            supernode,
        }
    }
}
