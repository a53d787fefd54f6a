use std::time::Duration;

/// What says whether a content is still the same (RFC 9110, section 8.8).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Validators {
    /// The `ETag` as sent, quotes and weakness included.
    pub etag: Option<String>,
    /// The `Last-Modified` date as sent.
    pub last_modified: Option<String>,
}

impl Validators {
    /// Whether the origin gave nothing to tell two contents apart by.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// The strong entity tag, the only one that vouches for byte ranges (RFC 9110, 13.1.5).
    pub fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }

    /// Whether these say that `other` belongs to the same content: both have the same strong entity
    /// tag. A date says nothing of the kind: many files of one archive have the same.
    pub fn vouch_for(&self, other: &Validators) -> bool {
        self.strong_etag().is_some() && self.strong_etag() == other.strong_etag()
    }

    /// Whether `other` may be another part of the same content: no validator that both have
    /// differs.
    pub fn agree_with(&self, other: &Validators) -> bool {
        let agree = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        agree(&self.etag, &other.etag) && agree(&self.last_modified, &other.last_modified)
    }
}

/// The most header lines of an answer that travel with a content's metadata. An answer with more
/// is for its reader alone.
pub const HEADER_LINES_MAX: usize = 100;
/// The most bytes that the names and values of those lines have together.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// The name of one *generation* of a content, which is one representation of it (RFC 9110, 8.8.1).
/// Bytes of two generations never make one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Generation {
    /// A strong validator. Another answer of the origin belongs to it if it repeats that.
    #[default]
    Validators,
    /// The content's own digest. Whoever reads the whole checks it.
    Digest,
    /// Nothing but the transfer that began it: no other answer of the origin can be told to be of the
    /// same representation, so that all of it comes from this one or not at all.
    Transfer,
}

/// What a URL answers, without the bytes: the answer's headers, what they say of the content, and how
/// long others may be answered with the same. It belongs to a resource (one URL for one
/// class of requests); the content behind it may be another resource's too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentMeta {
    /// Bytes of the whole content, when the origin says.
    pub length: Option<u64>,
    /// What tells this content from a later one at the same URL.
    pub validators: Validators,
    /// Whether the origin serves byte ranges of it.
    pub ranges: bool,
    /// `Content-Type` as sent.
    pub content_type: Option<String>,
    /// `Content-Encoding` as sent; the content is these encoded bytes, never decoded on the way.
    pub content_encoding: Option<String>,
    /// All further end-to-end headers of the answer, which readers get as the origin sent them;
    /// lower-case names, in the origin's order. [`HEADER_LINES_MAX`] and [`HEADER_BYTES_MAX`]
    /// bound them.
    pub headers: Vec<(String, String)>,
    /// How long it is fresh from when this is said, by RFC 9111; `None` without explicit freshness.
    pub fresh_for: Option<Duration>,
    /// How old the answer is when this is said (RFC 9111, 4.2.3).
    pub age: Duration,
    /// Whether it was fetched with credentials, so that each reader must be checked.
    pub private: bool,
    /// What tells bytes of this content from those of another one under the same name.
    pub generation: Generation,
    /// Bytes of a piece, once somebody has cut the content into pieces. The length alone does not say
    /// it: content of unknown length goes on in the pieces that it began with when its end is known.
    pub piece_size: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(etag: Option<&str>, date: Option<&str>) -> Validators {
        Validators {
            etag: etag.map(String::from),
            last_modified: date.map(String::from),
        }
    }

    #[test]
    fn only_what_is_known_to_be_the_same_is_vouched_for() {
        assert!(v(Some("\"a\""), None).vouch_for(&v(Some("\"a\""), Some("x"))));
        assert!(!v(None, Some("x")).vouch_for(&v(None, Some("x"))));
        assert!(!v(Some("\"a\""), Some("x")).vouch_for(&v(Some("\"b\""), Some("x"))));
        assert!(!v(Some("W/\"a\""), Some("x")).vouch_for(&v(Some("W/\"a\""), Some("x"))));
        assert!(!v(None, None).vouch_for(&v(None, None)));
        assert!(!v(Some("\"a\""), Some("x")).vouch_for(&v(None, Some("x"))));
    }
}
