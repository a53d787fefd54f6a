use pantala_core::{Error, Kind, Who};

/// This peer is stopping.
pub(crate) fn stopping() -> Error {
    Error::new(Who::Us, Kind::Cancelled, "this peer is stopping")
}

/// The user forbade the origin, and nobody else has it.
pub(crate) fn nobody_has_it() -> Error {
    Error::new(
        Who::Peer,
        Kind::Unavailable,
        "no peer has this content and the origin may not be asked",
    )
    .hint("leave out --no-origin, or wait until a peer has it")
}

/// The content turned out not to be what its digest says.
pub(crate) fn poisoned() -> Error {
    Error::new(
        Who::Origin,
        Kind::DigestMismatch,
        "the content does not have the digest it is named by",
    )
    .hint("check the digest; the origin may serve something else under this name")
}

/// A connection to a parent was found closed.
pub(crate) fn link_ended() -> Error {
    Error::new(Who::Peer, Kind::Unreachable, "the connection has ended")
}
