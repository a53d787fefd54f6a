use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::{ContentDigest, Validators};

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
    /// Names a *resource*: what one URL answers to one kind of request, before anybody knows what
    /// content stands behind it now. The supernode maps it to the [`TaskId`] of the content that is
    /// fresh there.
    ///
    /// The first 20 bytes name the URL, the next 11 what else selects the answer, and the last one the
    /// [`Class`] of those who ask. So all resources of one URL are neighbours, and what was learned
    /// with credentials can never answer a request without any.
    ResourceKey,
    32
);
identifier!(
    /// Names one run of one peer. A restarted peer is another peer: it holds nothing.
    PeerId,
    16
);

/// The class of a request. Only requests of one class may be answered with the same resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Requests that prove nothing of their sender: what the origin answers to one of them it
    /// would answer to anybody.
    Anonymous,
    /// Requests with credentials of some kind: each sender is checked by the origin.
    Credentialed,
}

/// Bytes of a [`ResourceKey`] that name the URL: 160 bits, so that nobody finds two URLs of one name.
const URL_BYTES: usize = 20;

impl ResourceKey {
    /// The key of a URL for one class of requests. `url` is the absolute URL without its fragment and
    /// without the query parameters the operator filters; `vary` is what else selects the answer (a
    /// request header the origin says it varies on), empty when nothing does.
    pub fn of_url(url: &str, vary: &[u8], class: Class) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("pantala 2026 resource of a url");
        put(&mut hash, url.as_bytes());
        let url = hash.finalize();
        let mut hash = blake3::Hasher::new_derive_key("pantala 2026 variant of a resource");
        put(&mut hash, vary);
        let variant = hash.finalize();
        let mut key = [0; 32];
        key[..URL_BYTES].copy_from_slice(&url.as_bytes()[..URL_BYTES]);
        key[URL_BYTES..31].copy_from_slice(&variant.as_bytes()[..31 - URL_BYTES]);
        Self(key).of_class(class)
    }

    /// The class of requests that it is for.
    pub fn class(&self) -> Class {
        match self.0[31] {
            0 => Class::Anonymous,
            // Whatever a stranger may have sent: nobody is let in unchecked.
            _ => Class::Credentialed,
        }
    }

    /// The same resource for the other class of requests: what stands there may be the same content,
    /// which is for the origin to say.
    pub fn of_class(mut self, class: Class) -> Self {
        self.0[31] = match class {
            Class::Anonymous => 0,
            Class::Credentialed => 1,
        };
        self
    }

    /// The least and the greatest key that a resource of the same URL can have.
    pub fn of_same_url(&self) -> std::ops::RangeInclusive<Self> {
        let (mut first, mut last) = (self.0, self.0);
        first[URL_BYTES..].fill(0);
        last[URL_BYTES..].fill(u8::MAX);
        Self(first)..=Self(last)
    }

    /// Everything but the class: what tells the contents of one URL apart.
    fn content(&self) -> &[u8] {
        &self.0[..31]
    }
}

impl TaskId {
    /// The task of a content that is named by its own digest at one place. `place` is who says so: an
    /// origin, or one URL of it. A digest in a URL is a claim until the whole has been hashed, so
    /// the same digest at another place is another task.
    pub fn of_digest(place: &str, digest: &ContentDigest) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("pantala 2026 task of a digest");
        put(&mut hash, place.as_bytes());
        put(&mut hash, digest.to_string().as_bytes());
        Self(*hash.finalize().as_bytes())
    }

    /// The task of what `resource` is while these validators and this length hold, whatever the class
    /// of who asks. `generation` tells apart contents whose origin gives no strong validator: each
    /// time it is learned anew it is another task, because nothing says that it is the same.
    pub fn of_content(
        resource: &ResourceKey,
        validators: &Validators,
        length: Option<u64>,
        generation: u64,
    ) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("pantala 2026 task of a content");
        put(&mut hash, resource.content());
        put(
            &mut hash,
            validators.etag.as_deref().unwrap_or("").as_bytes(),
        );
        put(
            &mut hash,
            validators.last_modified.as_deref().unwrap_or("").as_bytes(),
        );
        put(&mut hash, &length.unwrap_or(u64::MAX).to_be_bytes());
        if validators.strong_etag().is_none() {
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

    fn key(url: &str, vary: &str, class: Class) -> ResourceKey {
        ResourceKey::of_url(url, vary.as_bytes(), class)
    }

    #[test]
    fn a_changed_file_is_another_task() {
        let key = key("http://origin.example/f", "", Class::Anonymous);
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
    fn what_has_no_strong_validator_is_never_taken_for_the_same() {
        let key = key("http://origin.example/f", "", Class::Anonymous);
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
        for (etag, last_modified) in [
            (None, None),
            (None, date.clone()),
            (Some("W/\"a\"".to_owned()), date),
        ] {
            let weak = Validators {
                etag,
                last_modified,
            };
            assert_ne!(
                TaskId::of_content(&key, &weak, Some(1), 0),
                TaskId::of_content(&key, &weak, Some(1), 1)
            );
        }
    }

    #[test]
    fn classes_are_resources_of_their_own_and_may_be_one_content() {
        let url = "http://origin.example/f";
        let anonymous = key(url, "gzip", Class::Anonymous);
        let credentialed = key(url, "gzip", Class::Credentialed);
        assert_ne!(anonymous, credentialed);
        assert_eq!(anonymous.of_class(Class::Credentialed), credentialed);
        assert_eq!(credentialed.class(), Class::Credentialed);
        let v = Validators {
            etag: Some("\"a\"".into()),
            last_modified: None,
        };
        let id = |key| TaskId::of_content(&key, &v, Some(1), 0);
        assert_eq!(id(anonymous), id(credentialed));
        assert_ne!(id(anonymous), id(key(url, "", Class::Anonymous)));
    }

    #[test]
    fn the_resources_of_a_url_are_neighbours() {
        let url = "http://origin.example/f";
        let range = key(url, "", Class::Anonymous).of_same_url();
        for vary in ["", "gzip", "br"] {
            for class in [Class::Anonymous, Class::Credentialed] {
                assert!(range.contains(&key(url, vary, class)));
            }
        }
        assert!(!range.contains(&key("http://origin.example/g", "", Class::Anonymous)));
    }

    #[test]
    fn a_digest_is_a_claim_of_who_made_it() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest: ContentDigest = digest.parse().unwrap();
        let good = TaskId::of_digest("https://good.example", &digest);
        assert_eq!(good, TaskId::of_digest("https://good.example", &digest));
        assert_ne!(good, TaskId::of_digest("https://evil.example", &digest));
    }

    #[test]
    fn shown_urls_carry_no_secrets() {
        assert_eq!(
            display_url("https://me:pw@origin.example/a/b?X-Signature=1#f"),
            "https://origin.example/a/b"
        );
    }
}
