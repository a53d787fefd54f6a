use pantala_core::{Error, Kind, PieceIndex, Who};

/// The error of readers whose driver ended by a defect of ours.
pub(crate) fn abandoned() -> Error {
    let what = "what brought this content has failed";
    Error::new(Who::Us, Kind::Internal, what).hint("read it again, and report what the log says")
}

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

/// All of a content must come from one transfer, and that is over. `position`: the first byte that is
/// nowhere.
pub(crate) fn transfer_is_over(url: &str, position: u64) -> Error {
    let what = format!(
        "the transfer of {url} that this reader began with is over, nobody has byte {position} of it, \
         and nothing tells whether another answer is of the same version: the origin gives neither a \
         strong ETag nor a settled Last-Modified"
    );
    Error::new(Who::Origin, Kind::Changed, what).hint("start again")
}

/// The supernode says that the content ends where this peer has more of it.
pub(crate) fn ends_elsewhere(url: &str, length: u64) -> Error {
    let what = format!(
        "{url} is said to end after {length} bytes, and this peer has bytes beyond that: two versions \
         of it were mixed up, or a peer lies"
    );
    Error::new(Who::Peer, Kind::Changed, what).hint("start again")
}

/// This peer took other bytes from the origin than its swarm did.
pub(crate) fn two_versions(url: &str, piece: PieceIndex) -> Error {
    let what = format!(
        "the origin gave this peer other bytes of piece {piece} of {url} than it gave its swarm, under \
         the same name and version"
    );
    Error::new(Who::Origin, Kind::Changed, what)
        .hint("start again; the origin may have been changed")
}

/// Something else has come to stand here under the content's name.
pub(crate) fn other_content() -> Error {
    let what = "another content has come to stand under this one's name meanwhile";
    Error::new(Who::Origin, Kind::Changed, what).hint("start again")
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
