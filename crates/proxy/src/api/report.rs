use pantala_core::{Error, Kind, Who};
use serde::{Deserialize, Serialize};

/// An [`Error`] as it travels from dfdaemon to the programs of its host, nothing lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Who failed.
    who: String,
    /// At what.
    kind: String,
    /// The HTTP status, for a kind that has one.
    #[serde(default)]
    status: Option<u16>,
    /// What happened.
    message: String,
    /// What to do about it.
    #[serde(default)]
    hint: Option<String>,
    /// Whether the same request may succeed later.
    retry: bool,
}

const WHO: [(Who, &str); 6] = [
    (Who::Origin, "origin"),
    (Who::Peer, "peer"),
    (Who::Supernode, "supernode"),
    (Who::Reader, "reader"),
    (Who::User, "user"),
    (Who::Us, "us"),
];

/// All kinds but [`Kind::Status`].
const KINDS: [(Kind, &str); 16] = [
    (Kind::BadInput, "bad-input"),
    (Kind::Unreachable, "unreachable"),
    (Kind::Tls, "tls"),
    (Kind::Denied, "denied"),
    (Kind::NotFound, "not-found"),
    (Kind::RangeNotSatisfiable, "range-not-satisfiable"),
    (Kind::Protocol, "protocol"),
    (Kind::Changed, "changed"),
    (Kind::DigestMismatch, "digest-mismatch"),
    (Kind::Timeout, "timeout"),
    (Kind::File, "file"),
    (Kind::NoSpace, "no-space"),
    (Kind::NoMemory, "no-memory"),
    (Kind::Unavailable, "unavailable"),
    (Kind::Cancelled, "cancelled"),
    (Kind::Internal, "internal"),
];
const STATUS: &str = "status";

impl From<&Error> for ErrorReport {
    fn from(error: &Error) -> Self {
        let named = KINDS.iter().find(|(kind, _)| *kind == error.kind());
        let who = WHO.iter().find(|(who, _)| *who == error.who());
        // The hint is what the whole line has more than who and what.
        let line = error.to_string();
        let without = format!("{}: {}; ", error.who(), error.what());
        Self {
            who: who.map_or("us", |(_, name)| name).to_owned(),
            kind: named.map_or(STATUS, |(_, name)| name).to_owned(),
            status: match error.kind() {
                Kind::Status(status) => Some(status),
                _ => None,
            },
            message: error.what().to_owned(),
            hint: line.strip_prefix(&without).map(str::to_owned),
            retry: error.is_retryable(),
        }
    }
}

/// What a newer dfdaemon calls by names unknown here is internal to it.
impl From<ErrorReport> for Error {
    fn from(report: ErrorReport) -> Self {
        let who = WHO.iter().find(|(_, name)| *name == report.who);
        let named = KINDS.iter().find(|(_, name)| *name == report.kind);
        let kind = match (named, report.status) {
            (Some((kind, _)), _) => *kind,
            (None, Some(status)) => Kind::Status(status),
            (None, None) => Kind::Internal,
        };
        let error = Error::new(who.map_or(Who::Us, |(who, _)| *who), kind, report.message)
            .retryable(report.retry);
        match report.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_error_is_lost() {
        let kinds = KINDS
            .iter()
            .map(|(kind, _)| *kind)
            .chain([Kind::Status(503)]);
        for kind in kinds {
            for (who, _) in WHO {
                for error in [
                    Error::new(who, kind, "a; b: c"),
                    Error::new(who, kind, "x").hint("y; z").retryable(true),
                ] {
                    let report = serde_json::to_string(&ErrorReport::from(&error)).unwrap();
                    let back: ErrorReport = serde_json::from_str(&report).unwrap();
                    assert_eq!(Error::from(back), error);
                }
            }
        }
    }
}
