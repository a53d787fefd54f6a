//! What a reader asks for and what it gets.

use http::HeaderMap;
use pantala_core::{ByteRange, ContentDigest, ContentMeta, Error, Kind, Result, TaskId, Who};
use pantala_origin::{Asker, Interim};
use url::Url;

use crate::{direct::Direct, stream::StreamIo};

/// What a reader wants.
#[derive(Debug, Clone)]
pub struct ContentRequest {
    /// Where it is.
    pub url: Url,
    /// The reader's own headers: they go to the origin only.
    pub headers: HeaderMap,
    /// Which bytes; everything when `None`.
    pub range: Option<Range>,
    /// The digest that names the content. The whole is held against it on the way.
    pub digest: Option<ContentDigest>,
    /// Whether what looks like a page is shared as well: HTML, JSON and the like, small and without
    /// a word of the origin on how long it is fresh. Such is often made anew for each request.
    pub share_pages: bool,
    /// Whether redirects are followed. Else one is an answer for the reader itself, who then asks
    /// where it leads.
    pub follow: bool,
    /// Bytes a second the reader takes at most.
    pub limit_rate: Option<u64>,
    /// Whether the origin may be asked.
    pub origin_allowed: bool,
    /// Nobody waits for the bytes: all readers who wait for theirs go first, here and at peers.
    pub background: bool,
    /// Whether an origin that has trouble now (429, 5xx) is asked again; else its word is the
    /// reader's answer.
    pub ask_again: bool,
    /// Who is told of what the origin says before its answer, where it is asked for this reader.
    pub interim: Option<Interim>,
    /// For whom the origin is asked.
    pub asker: Asker,
}

/// Which bytes of a content whose length may not be known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Between two offsets.
    Bytes(ByteRange),
    /// The last so many bytes.
    Suffix(u64),
}

/// What a reader gets.
#[expect(clippy::large_enum_variant, reason = "one a reader, moved once")]
pub enum Opened {
    /// Shared content.
    Content(Content),
    /// A response that is for this reader alone, straight from the origin.
    Direct(Box<Direct>),
}

/// Shared content, opened for one reader.
#[derive(Debug)]
pub struct Content {
    /// What the origin said of it.
    pub meta: ContentMeta,
    /// The first byte that the stream brings.
    pub start: u64,
    /// The byte after the last that the stream brings, when known.
    pub end: Option<u64>,
    /// The task it is.
    pub task: TaskId,
    /// Whether the origin has just been asked for this reader: then it is as fresh as can be had.
    pub learned: bool,
    /// The bytes.
    pub stream: StreamIo,
}

impl Range {
    pub(super) fn start_hint(self) -> u64 {
        match self {
            Range::Bytes(range) => range.start(),
            Range::Suffix(_) => 0,
        }
    }
}

/// The offsets a range stands for.
pub(super) fn bounds(range: Option<Range>, length: Option<u64>) -> Result<(u64, Option<u64>)> {
    let outside = || {
        let of = length.map_or(String::from("of unknown length"), |length| {
            format!("of {length} bytes")
        });
        Error::new(
            Who::User,
            Kind::RangeNotSatisfiable,
            format!("the range lies outside the content {of}"),
        )
    };
    match (range, length) {
        (None, length) => Ok((0, length)),
        (Some(Range::Bytes(range)), None) => Ok((range.start(), range.end())),
        (Some(Range::Bytes(range)), Some(length)) => {
            if range.start() >= length && !(range.start() == 0 && range.end().is_none()) {
                return Err(outside());
            }
            Ok((
                range.start(),
                Some(range.end().unwrap_or(length).min(length)),
            ))
        }
        (Some(Range::Suffix(0)), _) | (Some(Range::Suffix(_)), None | Some(0)) => Err(outside()),
        (Some(Range::Suffix(last)), Some(length)) => {
            Ok((length.saturating_sub(last), Some(length)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(start: u64, end: Option<u64>) -> Option<Range> {
        Some(Range::Bytes(ByteRange::new(start, end).unwrap()))
    }

    #[test]
    fn ranges_become_offsets() {
        assert_eq!(bounds(None, Some(10)), Ok((0, Some(10))));
        assert_eq!(bounds(bytes(2, Some(5)), Some(10)), Ok((2, Some(5))));
        assert_eq!(bounds(bytes(2, Some(50)), Some(10)), Ok((2, Some(10))));
        assert_eq!(bounds(bytes(2, None), Some(10)), Ok((2, Some(10))));
        assert_eq!(bounds(Some(Range::Suffix(3)), Some(10)), Ok((7, Some(10))));
        assert_eq!(bounds(Some(Range::Suffix(30)), Some(10)), Ok((0, Some(10))));
        assert!(bounds(bytes(10, None), Some(10)).is_err());
        assert!(bounds(Some(Range::Suffix(0)), Some(10)).is_err());
        assert_eq!(bounds(bytes(0, None), Some(0)), Ok((0, Some(0))));
    }
}
