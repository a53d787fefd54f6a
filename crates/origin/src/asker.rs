//! For whom origins are asked, and what that opens. It is decided where connections are made, because
//! only there is it known where a name leads to. Credentials that a reader brings itself are its own
//! affair and play no part here.

use std::net::IpAddr;

use crate::tls::Identity;

/// For whom an origin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Asker {
    /// A program on this host, or the operator, who has named the origin in the configuration.
    #[default]
    Host,
    /// A user who has said who it is, or a program on this host that names an origin of which the
    /// operator has said nothing. What our credentials open is for them too; services that listen on
    /// this host's loopback are not.
    User,
    /// Anybody else: neither is for them.
    Stranger,
}

impl Asker {
    /// Whether a connection to this address may be made.
    pub(crate) fn may_reach(self, address: IpAddr) -> bool {
        self == Self::Host || !is_here(address)
    }

    /// Whether a connection to who stands at `host` may be made, as far as a URL's host tells: a name
    /// has to be resolved first.
    pub(crate) fn may_ask(self, host: &str) -> bool {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse();
        address.map_or(true, |address| self.may_reach(address))
    }

    /// Whether origins may learn who we are.
    pub(crate) fn identity(self) -> Identity {
        match self {
            Self::Host | Self::User => Identity::Ours,
            Self::Stranger => Identity::Anonymous,
        }
    }
}

/// Whether what is sent to an address stays on this machine. The unspecified one, too, leads to
/// whoever listens here.
pub(crate) fn is_here(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_for_this_host_alone() {
        for (host, outside) in [
            ("127.0.0.1", false),
            ("127.8.9.10", false),
            ("0.0.0.0", false),
            ("[::1]", false),
            ("[::]", false),
            ("[::ffff:127.0.0.1]", false),
            ("10.0.0.1", true),
            ("[2001:db8::1]", true),
            // Where it leads to is not known yet.
            ("localhost", true),
        ] {
            assert!(Asker::Host.may_ask(host), "{host}");
            for asker in [Asker::User, Asker::Stranger] {
                assert_eq!(asker.may_ask(host), outside, "{host}");
            }
        }
    }
}
