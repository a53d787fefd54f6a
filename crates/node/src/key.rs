//! Under which name a content is asked for.

use http::header;
use pantala_core::{Class, ContentDigest, ResourceKey, TaskId};
use pantala_origin::{Place, is_signed};
use url::Url;

use crate::node::ContentRequest;

/// The parameters by which object stores and content networks sign URLs: for the same content they
/// differ from reader to reader. Each reader's own URL is shown to the origin all the same.
const SIGNING: [&str; 31] = [
    "awsaccesskeyid",
    "expires",
    "googleaccessid",
    "key-pair-id",
    "policy",
    "se",
    "sig",
    "signature",
    "ske",
    "skoid",
    "sks",
    "skt",
    "sktid",
    "skv",
    "sp",
    "spr",
    "sr",
    "st",
    "sv",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
    "x-goog-algorithm",
    "x-goog-credential",
    "x-goog-date",
    "x-goog-expires",
    "x-goog-signature",
];

/// The resource that a request asks for. `filtered` are query parameters that do not tell contents
/// apart, and `class` says whether the request proves something of its sender.
pub(crate) fn of(request: &ContentRequest, filtered: &[String], class: Class) -> ResourceKey {
    let url = identity(&request.url, filtered);
    if let Some(digest) = &request.digest {
        // A digest names bytes, not an encoding of them.
        return ResourceKey::of_url(url.as_str(), digest.to_string().as_bytes(), class);
    }
    let encoding = request.headers.get(header::ACCEPT_ENCODING);
    let vary = encoding.map_or(&b""[..], |value| value.as_bytes());
    ResourceKey::of_url(url.as_str(), vary, class)
}

/// A resource of a URL: all others of it are its neighbours.
pub(crate) fn of_url(url: &Url, filtered: &[String]) -> ResourceKey {
    ResourceKey::of_url(identity(url, filtered).as_str(), b"", Class::Anonymous)
}

/// The task of a content that the request names by its digest: one for each origin, because it is
/// the origin's word until the whole has been hashed. In a registry all repositories have the
/// same; elsewhere a name says nothing beyond its own URL.
pub(crate) fn content(request: &ContentRequest, filtered: &[String]) -> Option<TaskId> {
    let digest = request.digest.as_ref()?;
    let place = Place::of(&request.url);
    Some(match place.repository {
        Some(_) => TaskId::of_digest(&place.origin, digest),
        None => TaskId::of_digest(identity(&request.url, filtered).as_str(), digest),
    })
}

/// Whether a URL itself names a content by this digest, as a registry's does.
pub(crate) fn names(url: &Url, digest: &ContentDigest) -> bool {
    let name = digest.to_string();
    // The colon may be written otherwise.
    let hexadecimal = name.split(':').next_back().unwrap_or_default();
    url.path().ends_with(hexadecimal)
}

/// The URL without what does not tell contents apart.
fn identity(url: &Url, filtered: &[String]) -> Url {
    let mut identity = url.clone();
    identity.set_fragment(None);
    // Who asks is no part of what is asked for. Both only fail for URLs without a host.
    let _ = identity.set_username("");
    let _ = identity.set_password(None);
    let signed = is_signed(url);
    if url.query().is_none() || (filtered.is_empty() && !signed) {
        return identity;
    }
    let is_left_out = |name: &str| {
        filtered.iter().any(|filtered| filtered == name)
            || (signed && SIGNING.contains(&name.to_ascii_lowercase().as_str()))
    };
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| !is_left_out(name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    identity.set_query(None);
    if !kept.is_empty() {
        identity.query_pairs_mut().extend_pairs(kept);
    }
    identity
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        let filtered = ["t".to_owned()];
        let identity = |url: &str| identity(&url.parse().unwrap(), &filtered);
        identity(a) == identity(b)
    }

    #[test]
    fn signatures_do_not_tell_contents_apart() {
        let url = "https://store.example/b/f";
        for (a, b) in [
            (
                "?X-Amz-Signature=1&X-Amz-Date=2",
                "?X-Amz-Signature=3&X-Amz-Date=4",
            ),
            (
                "?Expires=1&Signature=a&Key-Pair-Id=k",
                "?Expires=2&Signature=b&Key-Pair-Id=k",
            ),
            ("?sv=1&sp=r&se=x&sig=a", "?sv=1&sp=r&se=y&sig=b"),
            ("?t=1", "?t=2#x"),
        ] {
            assert!(same(&format!("{url}{a}"), &format!("{url}{b}")), "{a} {b}");
        }
        assert!(same("https://me:pw@store.example/b/f", url));
        for (a, b) in [
            // Without a signature they mean whatever the origin likes.
            ("?Expires=1", "?Expires=2"),
            ("?sp=1", "?sp=2"),
            (
                "?X-Amz-Signature=1&versionId=1",
                "?X-Amz-Signature=1&versionId=2",
            ),
            ("?x=1", "?x=2"),
        ] {
            assert!(!same(&format!("{url}{a}"), &format!("{url}{b}")), "{a} {b}");
        }
    }
}
