use std::{fmt, path::PathBuf, time::Duration};

use crate::Harmless;

/// How origins are spoken to.
#[derive(Debug, Clone)]
pub struct OriginConfig {
    /// PEM files of certificate authorities that are trusted besides the system's.
    pub ca: Vec<PathBuf>,
    /// How long resolving, connecting and the TLS handshake may take together.
    pub connect_timeout: Duration,
    /// How long an origin may take to begin its answer to a GET or HEAD, connecting included. It is
    /// waited for, not asked again.
    pub answer_timeout: Duration,
    /// How long an origin may stay silent within a body. Time in which nobody asks the body for
    /// more does not count: a slow reader is not a slow origin.
    pub read_timeout: Duration,
    /// How often to try again without any progress before giving up.
    pub retries: u32,
    /// The first back-off; it doubles with each failure in a row, to 5 s at most, and is jittered.
    pub backoff: Duration,
    /// How many redirects of one request are followed.
    pub max_redirects: usize,
    /// The `User-Agent` of requests whose headers bring none.
    pub user_agent: String,
    /// The request headers that play no part in who may read; all others count as credentials.
    pub harmless: Harmless,
    /// What holds for single hosts, besides.
    pub hosts: Vec<HostConfig>,
}

/// How one host is spoken to. Its certificate is verified always.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostConfig {
    /// `HOST` or `HOST:PORT`, as in URLs. Without a port it is every port that no other names.
    pub host: String,
    /// PEM files of certificate authorities that are trusted for it besides the others.
    pub ca: Vec<PathBuf>,
    /// Whether those in `ca` are trusted instead of the others.
    pub ca_only: bool,
    /// Who we are, for a host that asks for a certificate. Its answers are for readers that it
    /// lets through: they are [`private`](pantala_core::ContentMeta::private).
    pub client_cert: Option<ClientCert>,
    /// What a 401 is answered with, as it is or at the token service that the host names, unless
    /// the request brought an `Authorization` of its own. GET and HEAD alone.
    pub credentials: Option<Credentials>,
    /// Whether a 401 may be answered with a token for nobody in particular, as public registries
    /// give them.
    pub anonymous_tokens: bool,
    /// Whether `credentials` may be sent where others can read them: over http to a host that is
    /// not this machine.
    pub cleartext_credentials: bool,
}

/// A certificate to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    /// PEM file of the certificate, followed by those that vouch for it.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// A user name and a password, or what a registry takes for one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name, without a colon.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Shows neither.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Default for OriginConfig {
    fn default() -> Self {
        Self {
            ca: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(15),
            retries: 4,
            backoff: Duration::from_millis(100),
            max_redirects: 10,
            user_agent: concat!("pantala/", env!("CARGO_PKG_VERSION")).to_owned(),
            harmless: Harmless::default(),
            hosts: Vec::new(),
        }
    }
}
