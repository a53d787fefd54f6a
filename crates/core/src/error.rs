use std::{fmt, time::Duration};

/// Whose fault it was. The policy follows from this, never from a message's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// The server the content comes from.
    Origin,
    /// Another peer.
    Peer,
    /// The control plane.
    Supernode,
    /// Who the bytes are for: a file, a pipe, an HTTP client.
    Reader,
    /// What the user asked for cannot be done as asked.
    User,
    /// This process.
    Us,
}

/// What went wrong, coarse enough to act on. `dfget`'s exit codes and the proxy's status codes
/// are made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A flag, a URL, a configuration value that cannot be used.
    BadInput,
    /// The host name does not resolve, nobody listens, or the connection broke.
    Unreachable,
    /// TLS failed: the certificate is not one we trust.
    Tls,
    /// The origin wants credentials or refuses these (401, 403).
    Denied,
    /// There is nothing under this name (404, 410).
    NotFound,
    /// The range lies outside the content (416).
    RangeNotSatisfiable,
    /// Any other HTTP status that is no success; the status.
    Status(u16),
    /// The other side broke the protocol or ended too early.
    Protocol,
    /// The content changed while it was being read.
    Changed,
    /// The bytes do not have the digest they must have.
    DigestMismatch,
    /// It took longer than allowed.
    Timeout,
    /// A file or directory cannot be written.
    File,
    /// The disk is full.
    NoSpace,
    /// The memory budget has no room.
    NoMemory,
    /// Nobody who may be asked has it (`--no-origin`, `--daemon only`).
    Unavailable,
    /// It was stopped on purpose.
    Cancelled,
    /// A defect of ours.
    Internal,
}

/// An error that knows who failed, at what, and what to do about it.
///
/// ```
/// use pantala_core::{Error, Kind, Who};
/// let error = Error::new(Who::Origin, Kind::NotFound, "http://origin.example/x answered 404")
///     .hint("check the URL");
/// assert_eq!(error.to_string(), "origin: http://origin.example/x answered 404; check the URL");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    who: Who,
    kind: Kind,
    what: String,
    hint: Option<String>,
    retry: bool,
    pause: Option<Duration>,
}

/// The longest pause that an origin can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A result whose error says who failed.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `who` failed; `what` is one line, lower-case, without a full stop. Whether it is worth
    /// trying again follows from the kind until [`Error::retryable`] says otherwise.
    pub fn new(who: Who, kind: Kind, what: impl Into<String>) -> Self {
        let retry = match kind {
            Kind::Unreachable | Kind::Protocol | Kind::Timeout | Kind::NoMemory => true,
            Kind::Status(status) => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        };
        Self {
            inner: Box::new(Inner {
                who,
                kind,
                what: what.into(),
                hint: None,
                retry,
                pause: None,
            }),
        }
    }

    /// Adds what the user can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Overrides whether the same request may succeed later.
    pub fn retryable(mut self, retry: bool) -> Self {
        self.inner.retry = retry;
        self
    }

    /// Adds for how long the origin asked to be left alone (`Retry-After`), a day at most. It is
    /// asked by nobody before.
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.inner.pause = Some(pause.min(PAUSE_MAX));
        self
    }

    /// Who failed.
    pub fn who(&self) -> Who {
        self.inner.who
    }

    /// At what.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// What happened, without the hint.
    pub fn what(&self) -> &str {
        &self.inner.what
    }

    /// What the user can do about it.
    pub fn advice(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// For how long the origin asked to be left alone, counted from when it said so.
    pub fn pause(&self) -> Option<Duration> {
        self.inner.pause
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.inner.retry
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Who::Origin => "origin",
            Who::Peer => "peer",
            Who::Supernode => "supernode",
            Who::Reader => "reader",
            Who::User => "usage",
            Who::Us => "pantala",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.who, self.inner.what)?;
        match &self.inner.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
