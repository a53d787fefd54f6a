use std::{path::PathBuf, time::Duration};

/// How origins are spoken to.
#[derive(Debug, Clone)]
pub struct OriginConfig {
    /// PEM files of certificate authorities that are trusted besides the system's.
    pub ca: Vec<PathBuf>,
    /// How long resolving, connecting and the TLS handshake may take together.
    pub connect_timeout: Duration,
    /// How long an origin may stay silent, before its answer and within a body. Time in which
    /// nobody asks the body for more does not count: a slow reader is not a slow origin.
    pub read_timeout: Duration,
    /// How often to try again without any progress before giving up.
    pub retries: u32,
    /// The first back-off; it doubles with each failure in a row, to 5 s at most, and is jittered.
    pub backoff: Duration,
    /// How many redirects of one request are followed.
    pub max_redirects: usize,
    /// The `User-Agent` of requests whose headers bring none.
    pub user_agent: String,
}

impl Default for OriginConfig {
    fn default() -> Self {
        Self {
            ca: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(15),
            retries: 4,
            backoff: Duration::from_millis(100),
            max_redirects: 10,
            user_agent: concat!("pantala/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
