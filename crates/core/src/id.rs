use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::{ByteRange, ContentDigest, Validators};

/// Why an identifier's text could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not an identifier: expected {expected} hexadecimal digits")]
pub struct IdParseError {
    expected: usize,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// The identifier with exactly these bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes as they travel on the wire.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdParseError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdParseError> {
                bytes.try_into().map(Self).map_err(|_| IdParseError { expected: 2 * $bytes })
            }
        }

        impl FromStr for $name {
            type Err = IdParseError;
            fn from_str(text: &str) -> Result<Self, IdParseError> {
                decode_hex(text).map(Self).ok_or(IdParseError { expected: 2 * $bytes })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        /// The first eight digits: enough to tell two apart in a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

identifier!(
    /// Names one content: the same bytes have the same task, wherever they are asked from.
    TaskId,
    32
);
identifier!(
    /// Names what a reader asks for, before anybody knows what content stands behind it now.
    ///
    /// The supernode maps it to the [`TaskId`] of the content that is fresh there.
    ResourceKey,
    32
);
identifier!(
    /// Names one run of one peer. A restarted peer is another peer: it holds nothing.
    PeerId,
    16
);

impl ResourceKey {
    /// The key of a URL. `url` is the absolute URL without its fragment and without the query
    /// parameters the operator filters; `range` only where the origin gives neither length nor
    /// ranges, so that the range is part of the identity; `vary` is what else selects the content
    /// (a request header the origin says it varies on), empty when nothing does.
    pub fn of_url(url: &str, range: Option<ByteRange>, vary: &[u8]) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("pantala 2026 resource of a url");
        put(&mut hash, url.as_bytes());
        match range {
            Some(range) => {
                put(&mut hash, &range.start().to_be_bytes());
                put(&mut hash, &range.end().unwrap_or(u64::MAX).to_be_bytes());
            }
            None => put(&mut hash, b""),
        }
        put(&mut hash, vary);
        Self(*hash.finalize().as_bytes())
    }

    /// The key of a content that is named by its own digest: the same from every URL.
    pub fn of_digest(digest: &ContentDigest) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("pantala 2026 resource of a digest");
        put(&mut hash, digest.to_string().as_bytes());
        Self(*hash.finalize().as_bytes())
    }
}

impl TaskId {
    /// The task of a content that is named by its own digest.
    pub fn of_digest(digest: &ContentDigest) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("pantala 2026 task of a digest");
        put(&mut hash, digest.to_string().as_bytes());
        Self(*hash.finalize().as_bytes())
    }

    /// The task of what `resource` is while these validators and this length hold. `generation`
    /// tells apart contents whose origin gives no validator at all: each time it is learned anew
    /// it is another task, because nothing says that it is the same.
    pub fn of_content(
        resource: &ResourceKey,
        validators: &Validators,
        length: Option<u64>,
        generation: u64,
    ) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("pantala 2026 task of a content");
        put(&mut hash, resource.as_bytes());
        put(
            &mut hash,
            validators.etag.as_deref().unwrap_or("").as_bytes(),
        );
        put(
            &mut hash,
            validators.last_modified.as_deref().unwrap_or("").as_bytes(),
        );
        put(&mut hash, &length.unwrap_or(u64::MAX).to_be_bytes());
        if validators.is_empty() {
            put(&mut hash, &generation.to_be_bytes());
        }
        Self(*hash.finalize().as_bytes())
    }
}

/// Length-prefixed, so that no two different field lists hash the same bytes.
fn put(hash: &mut blake3::Hasher, field: &[u8]) {
    hash.update(&(field.len() as u64).to_be_bytes());
    hash.update(field);
}

pub(crate) fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(bytes)
}

/// A URL as it may be shown to people and to the supernode: without user, password and query,
/// which may carry credentials.
pub fn display_url(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end];
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_survive_their_text() {
        let id = TaskId::from_bytes([0xa5; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("zz".parse::<TaskId>().is_err());
        assert!("é".repeat(32).parse::<TaskId>().is_err());
    }

    #[test]
    fn a_changed_file_is_another_task() {
        let key = ResourceKey::of_url("http://origin.example/f", None, b"");
        let v = |etag: &str| Validators {
            etag: Some(etag.into()),
            last_modified: None,
        };
        let id = |etag, len| TaskId::of_content(&key, &v(etag), Some(len), 0);
        assert_eq!(id("\"a\"", 1), id("\"a\"", 1));
        assert_ne!(id("\"a\"", 1), id("\"b\"", 1));
        assert_ne!(id("\"a\"", 1), id("\"a\"", 2));
    }

    #[test]
    fn what_has_no_validator_is_never_taken_for_the_same() {
        let key = ResourceKey::of_url("http://origin.example/f", None, b"");
        let none = Validators::default();
        assert_ne!(
            TaskId::of_content(&key, &none, Some(1), 0),
            TaskId::of_content(&key, &none, Some(1), 1)
        );
    }

    #[test]
    fn shown_urls_carry_no_secrets() {
        assert_eq!(
            display_url("https://me:pw@origin.example/a/b?X-Signature=1#f"),
            "https://origin.example/a/b"
        );
    }
}
