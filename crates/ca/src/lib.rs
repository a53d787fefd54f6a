//! The certificate authority with which `dfdaemon` answers for the hosts it intercepts.
//!
//! Participants: an [`Authority`] is a certificate that clients were told to trust and its key,
//! two files in a directory: [`CERTIFICATE`] and [`KEY`]. `dfdaemon ca init` makes one
//! ([`Authority::init`]), or the user puts a pair of their own there; the proxy loads it
//! ([`Authority::load`]) and asks it for what a TLS server needs to answer as some host
//! ([`Authority::server_config`]).
//!
//! Goals: a client that trusts the certificate accepts every host that is asked for; who holds
//! thousands of connections issues once per host; what is kept is bounded; files that cannot be
//! used are refused at the start, by name.
//!
//! Non-goals: which hosts are intercepted, which is the proxy's; revocation (leaves live for a
//! month at most, and whoever has the key can make others); client certificates.

mod authority;
mod files;
mod leaf;

pub use authority::{Authority, HOSTS};

/// The name of the certificate's file in the authority's directory: PEM, for everybody to read.
pub const CERTIFICATE: &str = "ca.pem";

/// The name of the key's file in the authority's directory: PEM, for its owner alone.
pub const KEY: &str = "ca-key.pem";
