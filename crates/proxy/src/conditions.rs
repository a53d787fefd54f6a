//! Conditional requests, answered from what is known of the content (RFC 9110, 13).

use http::{HeaderMap, header};
use pantala_core::{ContentMeta, Validators};
use pantala_origin::{Directives, Seconds};

/// Whether the client already has this content, so that 304 is the answer.
///
/// Only `If-None-Match` and `If-Modified-Since` are looked at; requests with `If-Match` or
/// `If-Unmodified-Since` are passed on to the origin.
pub(crate) fn is_unchanged(headers: &HeaderMap, meta: &ContentMeta) -> bool {
    let Validators {
        etag,
        last_modified,
    } = &meta.validators;
    if headers.contains_key(header::IF_NONE_MATCH) {
        // The date does not count beside it.
        return etag.as_deref().is_some_and(|etag| names(headers, etag));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let since = headers
        .get(header::IF_MODIFIED_SINCE)
        .and_then(|value| value.to_str().ok())
        .and_then(date);
    match (since, last_modified.as_deref().and_then(date)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// Whether an answer is as fresh as the client wants it (RFC 9111, 5.2.1).
pub(crate) fn is_fresh_enough(headers: &HeaderMap, meta: &ContentMeta) -> bool {
    let directives = Directives::of(headers);
    let young = match directives.seconds("max-age") {
        Seconds::Given(most) => meta.age <= most,
        Seconds::Absent | Seconds::Invalid => true,
    };
    let lasting = match directives.seconds("min-fresh") {
        Seconds::Given(least) => meta.fresh_for.is_some_and(|left| left >= least),
        Seconds::Absent | Seconds::Invalid => true,
    };
    young && lasting
}

/// Whether a range is wanted of this content: by `If-Range` a client says of which content it has
/// another part (RFC 9110, 13.1.5).
pub(crate) fn range_holds(headers: &HeaderMap, meta: &ContentMeta) -> bool {
    let Some(given) = headers.get(header::IF_RANGE) else {
        return true;
    };
    let given = given.as_bytes();
    let validators = &meta.validators;
    match given.first() {
        Some(b'"') => validators
            .strong_etag()
            .is_some_and(|etag| etag.as_bytes() == given),
        // A date counts only as the origin wrote it. A weak tag never does, nor does nonsense.
        _ => {
            let modified = validators.last_modified.as_deref();
            modified.is_some_and(|modified| modified.as_bytes() == given)
        }
    }
}

/// Whether `If-None-Match` names this entity tag, by weak comparison.
fn names(headers: &HeaderMap, etag: &str) -> bool {
    fn opaque(tag: &str) -> &str {
        tag.strip_prefix("W/").unwrap_or(tag)
    }
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|list| {
            let mut rest = list.trim();
            if rest == "*" {
                return true;
            }
            // A tag is quoted and may hold commas.
            while let Some((before, after)) = rest.split_once('"') {
                let Some((tag, after)) = after.split_once('"') else {
                    return false;
                };
                if !before.trim_matches([' ', ',', '\t', 'W', '/']).is_empty() {
                    return false;
                }
                if opaque(etag).trim_matches('"') == tag {
                    return true;
                }
                rest = after;
            }
            false
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn meta() -> ContentMeta {
        ContentMeta {
            validators: Validators {
                etag: Some("\"a,b\"".into()),
                last_modified: Some(DATE.into()),
            },
            ..ContentMeta::default()
        }
    }

    fn unchanged(name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        is_unchanged(&headers, &meta())
    }

    #[test]
    fn a_part_is_wanted_of_the_very_same_content_only() {
        let holds = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("if-range", value.parse().unwrap());
            range_holds(&headers, &meta())
        };
        assert!(holds("\"a,b\"") && holds(DATE));
        for other in [
            "W/\"a,b\"",
            "\"x\"",
            "Sun, 06 Nov 1994 08:49:38 GMT",
            "a,b",
            "",
        ] {
            assert!(!holds(other), "{other}");
        }
        assert!(range_holds(&HeaderMap::new(), &meta()));
    }

    #[test]
    fn a_client_says_how_fresh_is_fresh_enough() {
        let meta = ContentMeta {
            age: Duration::from_secs(30),
            fresh_for: Some(Duration::from_secs(60)),
            ..meta()
        };
        for (directives, enough) in [
            ("no-transform", true),
            ("max-age=30", true),
            ("max-age=29", false),
            ("min-fresh=60", true),
            ("Min-Fresh=61", false),
            ("max-age=60, min-fresh=100", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("cache-control", directives.parse().unwrap());
            assert_eq!(is_fresh_enough(&headers, &meta), enough, "{directives}");
        }
    }

    #[test]
    fn tags_are_compared_weakly() {
        for same in ["\"a,b\"", "W/\"a,b\"", "\"x\", W/\"a,b\"", "*"] {
            assert!(unchanged("if-none-match", same), "{same}");
        }
        for other in ["\"a\"", "a,b", "", "\"x\",\"y\"", "\"a,b"] {
            assert!(!unchanged("if-none-match", other), "{other}");
        }
    }

    #[test]
    fn dates_count_without_tags_only() {
        assert!(unchanged("if-modified-since", DATE));
        assert!(unchanged(
            "if-modified-since",
            "Sun, 06 Nov 1994 08:49:38 GMT"
        ));
        assert!(!unchanged(
            "if-modified-since",
            "Sun, 06 Nov 1994 08:49:36 GMT"
        ));
        assert!(!unchanged("if-modified-since", "yesterday"));
        let mut headers = HeaderMap::new();
        headers.insert("if-none-match", "\"x\"".parse().unwrap());
        headers.insert("if-modified-since", DATE.parse().unwrap());
        assert!(!is_unchanged(&headers, &meta()));
    }
}
