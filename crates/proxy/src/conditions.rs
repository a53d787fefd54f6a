//! Conditional requests, answered from what is known of the content (RFC 9110, 13).

use http::{HeaderMap, header};
use pantala_core::{ContentMeta, Validators};

/// Whether the client already has this content, so that 304 is the answer.
///
/// Only `If-None-Match` and `If-Modified-Since` are looked at; requests with other conditions are
/// passed on to the origin.
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
