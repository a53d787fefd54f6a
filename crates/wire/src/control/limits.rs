//! What one message may carry. The receiver refuses more, so the sender does not send it.

use pantala_core::{
    ContentMeta, HEADER_BYTES_MAX, HEADER_LINES_MAX,
    control::{FromPeer, Hello, Learned, Parents, ToPeer},
};

use super::Invalid;

/// Runs or digests in one message: those of a content of 4 TiB.
pub const MAX_PIECES: usize = 1 << 20;
/// Spans of pieces that a peer says it fetches from the origin.
pub const MAX_SPANS: usize = 64;
/// Labels of a peer.
pub const MAX_LABELS: usize = 64;
/// Resources that one content stands behind.
pub const MAX_RESOURCES: usize = 64;
/// Preferred parents, and other parents.
pub const MAX_PARENTS: usize = 4096;
/// Peers to which round trips are measured at once.
pub const MAX_MEASURED: usize = 16;
/// Bytes of one text.
pub const MAX_TEXT: usize = 64 << 10;
/// Bytes of one frame: the largest message is 2²⁰ digests of 32 bytes with their runs.
pub(super) const MAX_FRAME: usize = 64 << 20;

/// Whether a list is within its bound.
pub(super) fn list(what: &'static str, len: usize, max: usize) -> Result<(), Invalid> {
    if len <= max {
        Ok(())
    } else {
        Err(Invalid::TooMany { what, len, max })
    }
}

/// Whether a text is within its bound.
pub(super) fn text(what: &'static str, text: &str) -> Result<(), Invalid> {
    list(what, text.len(), MAX_TEXT)
}

/// A type whose values can be too large for the wire.
pub(super) trait Bounded {
    /// Looks at lengths only: what the pieces and identifiers are, their types vouch for.
    fn check(&self) -> Result<(), Invalid>;
}

impl Bounded for Hello {
    fn check(&self) -> Result<(), Invalid> {
        list("labels", self.labels.len(), MAX_LABELS)?;
        pairs("bytes of a label", &self.labels)
    }
}

impl Bounded for FromPeer {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            FromPeer::Register(register) => text("bytes of the shown url", &register.shown),
            FromPeer::Resume(resume) => {
                text("bytes of the shown url", &resume.shown)?;
                list("runs", resume.held.len(), MAX_PIECES)?;
                list("digests", resume.digests.len(), MAX_PIECES)?;
                list("resources", resume.resources.len(), MAX_RESOURCES)?;
                let mut resources = resume.resources.iter();
                resources.try_for_each(|resource| resource.meta.check())?;
                list("spans", resume.leases.len(), MAX_SPANS)?;
                resume.meta.check()
            }
            FromPeer::Learned { learned, .. } => match learned {
                Learned::Content { meta, .. } | Learned::Unchanged { meta, .. } => meta.check(),
                Learned::Failed { error } => error.check(),
                Learned::Unshareable => Ok(()),
            },
            FromPeer::OriginFailed { error, .. } => error.check(),
            FromPeer::Have { gained, lost, .. } => {
                list("runs", gained.len(), MAX_PIECES)?;
                list("runs", lost.len(), MAX_PIECES)
            }
            FromPeer::RoundTrips { round_trips } => {
                list("round trips", round_trips.len(), MAX_MEASURED)
            }
            FromPeer::Sealed { .. }
            | FromPeer::Ended { .. }
            | FromPeer::AskLease { .. }
            | FromPeer::ReturnLease { .. }
            | FromPeer::OfferLease { .. }
            | FromPeer::Pulse { .. }
            | FromPeer::Trouble { .. }
            | FromPeer::Poison { .. }
            | FromPeer::Leave { .. }
            | FromPeer::Changed { .. } => Ok(()),
        }
    }
}

impl Bounded for ToPeer {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            ToPeer::Known { known, .. } => {
                list("digests", known.digests.len(), MAX_PIECES)?;
                known.parents.check()?;
                known.meta.check()
            }
            ToPeer::Learn { stale, .. } => stale.as_ref().map_or(Ok(()), |(_, meta)| meta.check()),
            ToPeer::Refused { error, .. } | ToPeer::OriginFailed { error, .. } => error.check(),
            ToPeer::Parents { parents, .. } => parents.check(),
            ToPeer::Digests { digests, .. } => list("digests", digests.len(), MAX_PIECES),
            ToPeer::Copies { pieces, .. } => list("runs", pieces.len(), MAX_PIECES),
            ToPeer::Measure { peers, .. } => list("peers to measure", peers.len(), MAX_MEASURED),
            ToPeer::Direct { .. }
            | ToPeer::Lease { .. }
            | ToPeer::LeaseEnded { .. }
            | ToPeer::Ended { .. }
            | ToPeer::Poisoned { .. }
            | ToPeer::Unobtainable { .. }
            | ToPeer::Unlisted { .. }
            | ToPeer::Turn { .. }
            | ToPeer::Unknown { .. }
            | ToPeer::Changed { .. } => Ok(()),
        }
    }
}

impl Bounded for ContentMeta {
    fn check(&self) -> Result<(), Invalid> {
        let texts = [
            &self.validators.etag,
            &self.validators.last_modified,
            &self.content_type,
            &self.content_encoding,
        ];
        for value in texts.into_iter().flatten() {
            text("bytes of a header", value)?;
        }
        list("headers", self.headers.len(), HEADER_LINES_MAX)?;
        let bytes = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len());
        list("bytes of headers", bytes.sum(), HEADER_BYTES_MAX)
    }
}

impl Bounded for Parents {
    fn check(&self) -> Result<(), Invalid> {
        list("parents", self.preferred.len(), MAX_PARENTS)?;
        list("parents", self.others.len(), MAX_PARENTS)
    }
}

impl Bounded for pantala_core::Error {
    fn check(&self) -> Result<(), Invalid> {
        // The text with its hint: both fit when it does.
        text("bytes of an error", &self.to_string())
    }
}

fn pairs(what: &'static str, pairs: &[(String, String)]) -> Result<(), Invalid> {
    pairs.iter().try_for_each(|(name, value)| {
        text(what, name)?;
        text(what, value)
    })
}
