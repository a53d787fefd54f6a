//! The types of configuration values that no other crate has.

use std::{fmt, net::IpAddr, num::NonZeroU32, path::PathBuf};

use globset::Glob;
use pantala_core::{ByteRange, display_url};
use url::Url;

/// A host and a port that nobody has resolved yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A host name or an IP address; an IPv6 address without its brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl HostPort {
    /// Whether it can only be this host: a loopback address, or the name of it.
    pub fn is_loopback(&self) -> bool {
        let name = self.host.trim_end_matches('.');
        name.eq_ignore_ascii_case("localhost")
            || name
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How many pieces from the reader's position on may be scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Window {
    /// As many as help, within the memory budget.
    #[default]
    Auto,
    /// Always this many.
    Pieces(NonZeroU32),
}

/// Which pieces leave memory first when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cache {
    /// What this peer used least recently.
    Lru,
    /// What other peers keep.
    #[default]
    Swarm,
}

/// How the supernode finds out which peers are near each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Locality {
    /// By the operator's labels alone.
    Labels,
    /// Where there are no labels, from round trips that peers measure.
    #[default]
    Measured,
}

/// Whether `dfget` downloads through the dfdaemon of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DaemonUse {
    /// When one answers.
    #[default]
    Auto,
    /// Through it or not at all.
    Only,
    /// Always in dfget's own process.
    Never,
}

/// Where the bytes go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Standard output, in order, as they arrive.
    Stdout,
    /// A file, under its name once complete and checked.
    File(PathBuf),
}

/// Which bytes are asked for. Unlike [`ByteRange`] it can count from the end.
///
/// Its text is the value of the HTTP header: `bytes=0-1023`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Range {
    /// These.
    Bytes(ByteRange),
    /// The last so many, all when there are fewer. Never 0.
    Suffix(u64),
}

impl Range {
    /// The bytes it means of a content of `length` bytes; `None` when there are none (416).
    pub fn resolve(self, length: u64) -> Option<ByteRange> {
        let (start, end) = match self {
            Range::Bytes(range) => (range.start(), range.end().unwrap_or(length).min(length)),
            Range::Suffix(last) => (length.saturating_sub(last), length),
        };
        if start < end {
            ByteRange::new(start, Some(end))
        } else {
            None
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Bytes(range) => match range.end() {
                Some(end) => write!(f, "bytes={}-{}", range.start(), end.saturating_sub(1)),
                None => write!(f, "bytes={}-", range.start()),
            },
            Range::Suffix(last) => write!(f, "bytes=-{last}"),
        }
    }
}

/// A registry that is mirrored under a name, or a host with settings of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What clients call it: `registry.example` or `registry.example:5000`, lower-case.
    pub name: String,
    /// Where it is.
    pub url: Url,
    /// Files with certificates that are trusted for it besides the system's, PEM.
    pub ca: Vec<PathBuf>,
    /// This host's certificate and key for it, PEM.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// User name and password of this host's own; the client's when `None`.
    pub credentials: Option<(String, String)>,
    /// Whether tokens for everybody are fetched here, for clients that cannot.
    pub anonymous: bool,
    /// Whether the credentials may go over plain HTTP to another machine.
    pub cleartext_credentials: bool,
}

impl fmt::Debug for Upstream {
    /// Without what may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("name", &self.name)
            .field("url", &display_url(self.url.as_str()))
            .finish_non_exhaustive()
    }
}

/// What happens to requests for some hosts and paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which hosts, lower-case and without port.
    pub host: Glob,
    /// Which paths, without query.
    pub path: Glob,
    /// What happens.
    pub action: Action,
}

/// What a rule does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Through the swarm, whatever it looks like.
    Stream,
    /// Straight to where it says.
    Direct,
    /// To the same path of another host.
    Redirect(Url),
    /// 403.
    Refuse,
}

/// What is read besides the ranges that clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Prefetch {
    /// Nothing.
    None,
    /// What follows, when a client reads on and on.
    #[default]
    Window,
    /// The whole content.
    All,
}
