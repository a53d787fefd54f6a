//! How a program ends: the codes that scripts rely on.

use std::{io::Write as _, process::ExitCode};

use pantala_core::{Error, Kind, Who};

/// Why a program ends before it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Help or the version was asked for: this text, and success.
    Text(String),
    /// The configuration cannot be used.
    Error(Error),
}

impl Exit {
    /// The exit code: 0 for a text, 2 for what the user got wrong.
    pub fn code(&self) -> u8 {
        match self {
            Exit::Text(_) => 0,
            Exit::Error(error) => exit_code(error),
        }
    }

    /// Writes the text to standard output, or the error in one line to standard error after the
    /// program's name, and returns what `main` returns.
    pub fn report(&self, program: &str) -> ExitCode {
        // Who closed the pipe does not want to read it.
        let _ = match self {
            Exit::Text(text) => writeln!(std::io::stdout(), "{}", text.trim_end()),
            Exit::Error(error) => writeln!(std::io::stderr(), "{program}: {error}"),
        };
        ExitCode::from(self.code())
    }
}

impl From<Error> for Exit {
    fn from(error: Error) -> Self {
        Exit::Error(error)
    }
}

/// One line of the table of exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCodeRow {
    /// The code.
    pub code: u8,
    /// What it means.
    pub meaning: &'static str,
}

const fn row(code: u8, meaning: &'static str) -> ExitCodeRow {
    ExitCodeRow { code, meaning }
}

/// Every exit code of `dfget`, as documented.
pub const EXIT_CODES: [ExitCodeRow; 16] = [
    row(0, "complete, and checked where a digest is known"),
    row(1, "internal error"),
    row(
        2,
        "usage: a flag, a variable, a setting or the URL cannot be used",
    ),
    row(
        3,
        "origin unreachable: it does not resolve, refuses, breaks off, or TLS fails",
    ),
    row(4, "denied by the origin (401, 403)"),
    row(5, "not found at the origin (404, 410)"),
    row(6, "origin error: any other status, or broken protocol"),
    row(7, "range not satisfiable (416)"),
    row(8, "digest mismatch"),
    row(
        9,
        "output cannot be written: a directory, read-only, no permission, a closed pipe",
    ),
    row(10, "disk full"),
    row(11, "timeout"),
    row(
        12,
        "nobody who may be asked has it (--no-origin, --daemon only)",
    ),
    row(
        13,
        "the content changed while it was being read, or nothing tells whether it did",
    ),
    row(14, "memory budget too small"),
    row(130, "interrupted"),
];

/// The exit code an error ends `dfget` with; one of [`EXIT_CODES`], never 0.
///
/// What a peer or the supernode did wrong is code 12 unless the kind says more: the origin was not
/// allowed to be asked, or it would have helped.
pub fn exit_code(error: &Error) -> u8 {
    let who = error.who();
    match error.kind() {
        Kind::Internal => 1,
        Kind::BadInput => 2,
        Kind::Unreachable
        | Kind::Tls
        | Kind::Denied
        | Kind::NotFound
        | Kind::Status(_)
        | Kind::Protocol
            if who != Who::Origin =>
        {
            match who {
                Who::Peer | Who::Supernode => 12,
                Who::Reader => 9,
                Who::User => 2,
                Who::Us | Who::Origin => 1,
            }
        }
        Kind::Unreachable | Kind::Tls => 3,
        Kind::Denied => 4,
        Kind::NotFound => 5,
        Kind::Status(_) | Kind::Protocol => 6,
        Kind::RangeNotSatisfiable => 7,
        Kind::DigestMismatch => 8,
        Kind::File => 9,
        Kind::NoSpace => 10,
        Kind::Timeout => 11,
        Kind::Unavailable => 12,
        Kind::Changed => 13,
        Kind::NoMemory => 14,
        Kind::Cancelled => 130,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_ends_with_a_documented_code() {
        let kinds = [
            (Kind::Internal, 1),
            (Kind::BadInput, 2),
            (Kind::Unreachable, 3),
            (Kind::Tls, 3),
            (Kind::Denied, 4),
            (Kind::NotFound, 5),
            (Kind::Status(500), 6),
            (Kind::Protocol, 6),
            (Kind::RangeNotSatisfiable, 7),
            (Kind::DigestMismatch, 8),
            (Kind::File, 9),
            (Kind::NoSpace, 10),
            (Kind::Timeout, 11),
            (Kind::Unavailable, 12),
            (Kind::Changed, 13),
            (Kind::NoMemory, 14),
            (Kind::Cancelled, 130),
        ];
        for (kind, code) in kinds {
            assert_eq!(
                exit_code(&Error::new(Who::Origin, kind, "x")),
                code,
                "{kind:?}"
            );
            for who in [Who::Peer, Who::Supernode, Who::Reader, Who::User, Who::Us] {
                let code = exit_code(&Error::new(who, kind, "x"));
                assert!(
                    code != 0 && EXIT_CODES.iter().any(|row| row.code == code),
                    "{who} {kind:?}"
                );
            }
        }
        for row in &EXIT_CODES[1..] {
            assert!(
                kinds.iter().any(|(_, code)| *code == row.code),
                "{}",
                row.code
            );
        }
        assert!(EXIT_CODES.is_sorted_by(|a, b| a.code < b.code));
        assert_eq!(
            exit_code(&Error::new(Who::Peer, Kind::Unreachable, "x")),
            12
        );
    }
}
