//! How long an answer may be reused, and by whom: RFC 9111 as a shared cache reads it. In doubt an
//! answer is stale, and for its reader alone: that costs a question, and nothing worse.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

use crate::directives::{Directives, Seconds, delta};

/// How old an answer was when it came, and for how long it says it can be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// Its age when it came (RFC 9111, 4.2.3).
    pub(crate) age: Duration,
    /// Its freshness lifetime (RFC 9111, 4.2.1); `None` when it says nothing of it, zero when it
    /// must be asked for anew.
    lifetime: Option<Duration>,
}

impl Freshness {
    /// What the headers say of an answer that came at `now`, `delay` after it was asked for.
    ///
    /// The request's credentials play no part: whether a reader may have the content is checked
    /// for each reader, apart from whether it is still the same.
    pub(crate) fn of(headers: &HeaderMap, now: SystemTime, delay: Duration) -> Self {
        let date = single(headers, header::DATE).and_then(http_date);
        let apparent = date.and_then(|date| now.duration_since(date).ok());
        let given = match headers.contains_key(header::AGE) {
            true => single(headers, header::AGE).and_then(delta),
            false => Some(Duration::ZERO),
        };
        let lifetime = match given {
            Some(_) => lifetime(headers, date.unwrap_or(now)),
            // Of what age it is cannot be said.
            None => Some(Duration::ZERO),
        };
        let age = given
            .unwrap_or_default()
            .saturating_add(delay)
            .max(apparent.unwrap_or_default());
        Self { age, lifetime }
    }

    /// How long it is fresh from when it came.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.lifetime
            .map(|lifetime| lifetime.saturating_sub(self.age))
    }
}

fn lifetime(headers: &HeaderMap, date: SystemTime) -> Option<Duration> {
    let directives = Directives::of(headers);
    let old_no_cache = !headers.contains_key(header::CACHE_CONTROL)
        && list(headers, header::PRAGMA).any(|directive| directive == "no-cache");
    if directives.has("no-cache") || directives.has("no-store") || old_no_cache {
        return Some(Duration::ZERO);
    }
    for name in ["s-maxage", "max-age"] {
        match directives.seconds(name) {
            Seconds::Absent => {}
            Seconds::Invalid => return Some(Duration::ZERO),
            Seconds::Given(seconds) => return Some(seconds),
        }
    }
    if headers.contains_key(header::EXPIRES) {
        // What is no date has passed (RFC 9111, 5.3).
        let expires = single(headers, header::EXPIRES).and_then(http_date);
        let left = expires.and_then(|expires| expires.duration_since(date).ok());
        return Some(left.unwrap_or_default());
    }
    let strict = directives.has("must-revalidate") || directives.has("proxy-revalidate");
    strict.then_some(Duration::ZERO)
}

/// Whether an answer with these headers may be handed to others than who asked.
///
/// `encoded` says that the content has an encoding, and `asked` with which headers it was asked
/// for.
pub(crate) fn may_be_shared(headers: &HeaderMap, encoded: bool, asked: &HeaderMap) -> bool {
    let directives = Directives::of(headers);
    if directives.has("no-store") || directives.has("private") {
        return false;
    }
    if headers.contains_key(header::SET_COOKIE) {
        return false;
    }
    list(headers, header::VARY).all(|name| match name.as_str() {
        "accept-encoding" => {
            !encoded
                || asked
                    .get(header::ACCEPT_ENCODING)
                    .is_none_or(|encodings| encodings == "identity")
        }
        // A browser's question beforehand, which is an OPTIONS, is what these select.
        "access-control-request-headers" | "access-control-request-method" => true,
        // They select headers for browsers, never the content.
        "origin" => !asked.contains_key(header::ORIGIN),
        name => name.starts_with("sec-fetch-") && !asked.contains_key(name),
    })
}

/// The value of a header that stands there once.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

fn http_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// The elements of a comma-separated header, lower-case.
fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = String> {
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

    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn read(pairs: &[(&'static str, &'static str)], delay: u64) -> Freshness {
        let now = http_date(NOW).unwrap();
        Freshness::of(&headers(pairs), now, Duration::from_secs(delay))
    }

    fn fresh(pairs: &[(&'static str, &'static str)]) -> Option<u64> {
        read(pairs, 0).left().map(|fresh| fresh.as_secs())
    }

    #[test]
    fn freshness_is_a_shared_caches() {
        assert_eq!(fresh(&[("cache-control", "max-age=60")]), Some(60));
        assert_eq!(
            fresh(&[("cache-control", "max-age=60, s-maxage=5")]),
            Some(5)
        );
        assert_eq!(
            fresh(&[("date", NOW), ("expires", "Sun, 06 Nov 1994 08:50:37 GMT")]),
            Some(60)
        );
        assert_eq!(
            fresh(&[("expires", "Sun, 06 Nov 1994 08:50:37 GMT")]),
            Some(60)
        );
    }

    #[test]
    fn an_answer_is_as_old_as_its_age_its_date_and_its_way_say() {
        let minute = ("cache-control", "max-age=60");
        assert_eq!(fresh(&[minute, ("age", "20")]), Some(40));
        assert_eq!(
            fresh(&[minute, ("date", "Sun, 06 Nov 1994 08:49:07 GMT")]),
            Some(30)
        );
        // From a clock that goes before ours.
        assert_eq!(
            fresh(&[minute, ("date", "Sun, 06 Nov 1994 09:49:07 GMT")]),
            Some(60)
        );
        let slow = read(&[minute, ("age", "20")], 15);
        assert_eq!(slow.age, Duration::from_secs(35));
        assert_eq!(slow.left(), Some(Duration::from_secs(25)));
    }

    #[test]
    fn an_age_that_is_none_makes_an_answer_stale() {
        for ages in [
            &["abc"][..],
            &["-7200"],
            &["7200.0"],
            &["7200,0"],
            &["7200", "0"],
            &["0", "7200"],
            &["0, 0"],
            &["7200;foo=bar"],
            &[""],
        ] {
            let mut pairs = vec![("cache-control", "max-age=3600")];
            pairs.extend(ages.iter().map(|age| ("age", *age)));
            assert_eq!(fresh(&pairs), Some(0), "{ages:?}");
        }
    }

    #[test]
    fn what_must_be_asked_anew_is_not_what_says_nothing() {
        for stale in [
            ("cache-control", "no-cache"),
            ("cache-control", "max-age=600, No-CaChE"),
            ("cache-control", "Max-Age=0"),
            ("cache-control", "max-age=never"),
            ("cache-control", "must-revalidate"),
            ("expires", "0"),
            ("expires", "Thu, 18  Aug  2050 02:01:18 GMT"),
            ("expires", "Thu 18 Aug 2050 02:01:18 GMT"),
            ("pragma", "no-cache"),
        ] {
            assert_eq!(fresh(&[stale]), Some(0), "{stale:?}");
        }
        let twice = [("expires", "Thu, 18 Aug 2050 02:01:18 GMT"); 2];
        assert_eq!(fresh(&twice), Some(0));
        for silent in [
            ("cache-control", "public"),
            ("cache-control", "immutable"),
            ("pragma", "x"),
            ("last-modified", "Sun, 06 Nov 1993 08:49:37 GMT"),
        ] {
            assert_eq!(fresh(&[silent]), None, "{silent:?}");
        }
    }

    #[test]
    fn what_is_for_one_is_not_shared() {
        for not in [
            ("cache-control", "No-StOrE"),
            ("cache-control", "max-age=3, Private"),
            ("cache-control", "private=\"x\""),
            ("set-cookie", "a=b"),
            ("vary", "*"),
            ("vary", "Accept-Encoding, Cookie"),
            ("vary", "authorization"),
        ] {
            assert!(
                !may_be_shared(&headers(&[not]), false, &headers(&[])),
                "{not:?}"
            );
        }
        for yes in [
            ("cache-control", "no-cache"),
            ("vary", "Accept-Encoding, Origin"),
            ("etag", "\"a\""),
        ] {
            assert!(
                may_be_shared(&headers(&[yes]), false, &headers(&[])),
                "{yes:?}"
            );
        }
    }

    #[test]
    fn what_was_selected_by_a_header_is_not_shared() {
        let shared = |vary, encoded, asked| {
            may_be_shared(&headers(&[("vary", vary)]), encoded, &headers(&[asked]))
        };
        assert!(!shared(
            "Accept-Encoding",
            true,
            ("accept-encoding", "gzip")
        ));
        assert!(shared(
            "accept-encoding",
            false,
            ("accept-encoding", "gzip")
        ));
        assert!(shared(
            "accept-encoding",
            true,
            ("accept-encoding", "identity")
        ));
        for name in ["origin", "sec-fetch-mode"] {
            assert!(!shared(name, false, (name, "x")));
            assert!(shared(name, false, ("x", "y")));
        }
    }
}
