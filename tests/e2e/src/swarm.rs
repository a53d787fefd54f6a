//! Several hosts and their supernode, for tests of what hosts share. It starts them and checks
//! nothing.

use crate::{Dfdaemon, Supernode, free_port};

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
        // Who dials a supernode that is gone must not be given its port for that.
        let supernode = Supernode::start_on(&format!("127.0.0.1:{}", free_port()));
        Self {
            daemons: (0..hosts)
                .map(|_| Dfdaemon::start(&supernode, flags))
                .collect(),
            supernode,
        }
    }
}
