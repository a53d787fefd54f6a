use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_cache_semantics::{CacheOptions, CachePolicy};

/// How long an answer is fresh from `now` on, by RFC 9111 as a shared cache; `None` when it says
/// nothing of it, zero when it must be asked for anew.
///
/// The request's credentials play no part: whether a reader may have the content is checked for
/// each reader, apart from whether it is still the same.
pub(crate) fn fresh_for(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let directives = directives(headers);
    let says = |name: &str| directives.contains(name);
    let explicit = [
        "s-maxage",
        "max-age",
        "no-cache",
        "no-store",
        "proxy-revalidate",
        "immutable",
    ]
    .into_iter()
    .any(says)
        || headers.contains_key(header::EXPIRES)
        || (directives.is_empty() && headers.contains_key(header::PRAGMA));
    if !explicit {
        return None;
    }
    let request = Request::builder()
        .method(Method::GET)
        .uri(Uri::from_static("/"))
        .body(())
        .ok()?;
    // Always as a 200: the policy does not keep partial answers, and a part is as fresh as the whole.
    let mut response = Response::new(());
    *response.headers_mut() = headers.clone();
    let policy = CachePolicy::new_options(&request, &response, now, CacheOptions::default());
    Some(policy.time_to_live(now))
}

/// Whether an answer with these headers may be handed to others than who asked.
///
/// `encoded_for_us` says that the request asked for a content encoding of its sender's choice and
/// got one: then `Vary: Accept-Encoding` matters.
pub(crate) fn may_be_shared(headers: &HeaderMap, encoded_for_us: bool) -> bool {
    let directives = directives(headers);
    if directives.contains("no-store") || directives.contains("private") {
        return false;
    }
    if headers.contains_key(header::SET_COOKIE) {
        return false;
    }
    list(headers, header::VARY).all(|name| match name.as_str() {
        "accept-encoding" => !encoded_for_us,
        // They select headers for browsers, never the content.
        "origin" | "access-control-request-headers" | "access-control-request-method" => true,
        name => name.starts_with("sec-fetch-"),
    })
}

/// The names of the `Cache-Control` directives, lower-case.
fn directives(headers: &HeaderMap) -> BTreeSet<String> {
    list(headers, header::CACHE_CONTROL)
        .map(|directive| match directive.split_once('=') {
            Some((name, _)) => name.trim().to_owned(),
            None => directive,
        })
        .collect()
}

/// The elements of a comma-separated header, lower-case.
fn list(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = String> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(|element| String::from_utf8_lossy(element).trim().to_ascii_lowercase())
        .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn fresh(pairs: &[(&'static str, &'static str)]) -> Option<u64> {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        fresh_for(&headers(pairs), now).map(|fresh| fresh.as_secs())
    }

    #[test]
    fn freshness_is_a_shared_caches() {
        assert_eq!(fresh(&[("cache-control", "max-age=60")]), Some(60));
        assert_eq!(
            fresh(&[("cache-control", "max-age=60"), ("age", "20")]),
            Some(40)
        );
        assert_eq!(
            fresh(&[("cache-control", "max-age=60, s-maxage=5")]),
            Some(5)
        );
        assert_eq!(
            fresh(&[
                ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("expires", "Sun, 06 Nov 1994 08:50:37 GMT")
            ]),
            Some(60)
        );
    }

    #[test]
    fn what_must_be_asked_anew_is_not_what_says_nothing() {
        assert_eq!(fresh(&[("cache-control", "no-cache")]), Some(0));
        assert_eq!(fresh(&[("cache-control", "Max-Age=0")]), Some(0));
        assert_eq!(fresh(&[("expires", "0")]), Some(0));
        assert_eq!(fresh(&[("pragma", "no-cache")]), Some(0));
        assert_eq!(fresh(&[]), None);
        assert_eq!(fresh(&[("cache-control", "public")]), None);
        assert_eq!(
            fresh(&[("last-modified", "Sun, 06 Nov 1993 08:49:37 GMT")]),
            None
        );
    }

    #[test]
    fn what_is_for_one_is_not_shared() {
        for not in [
            ("cache-control", "no-store"),
            ("cache-control", "max-age=3, Private"),
            ("cache-control", "private=\"x\""),
            ("set-cookie", "a=b"),
            ("vary", "*"),
            ("vary", "Accept-Encoding, Cookie"),
            ("vary", "authorization"),
        ] {
            assert!(!may_be_shared(&headers(&[not]), false), "{not:?}");
        }
        for yes in [
            ("cache-control", "no-cache"),
            ("vary", "Accept-Encoding, Origin"),
            ("etag", "\"a\""),
        ] {
            assert!(may_be_shared(&headers(&[yes]), false), "{yes:?}");
        }
        assert!(!may_be_shared(
            &headers(&[("vary", "accept-encoding")]),
            true
        ));
    }
}
