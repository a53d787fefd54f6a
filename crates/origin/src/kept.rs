//! Which headers of an answer belong to the content, so that every reader gets them: all
//! end-to-end headers (RFC 9111, 3.1), as far as they are not told in another way.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pantala_core::{HEADER_BYTES_MAX, HEADER_LINES_MAX};

use crate::request::drop_hop_by_hop;

/// Headers that never travel with a content's metadata: they speak of one message, are for one
/// reader, or have a field of their own there.
const NEVER: [HeaderName; 14] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::SET_COOKIE,
    header::AGE,
    header::ETAG,
    header::LAST_MODIFIED,
];
/// The same, of which the content's own fields bring the right ones.
const OWN: [HeaderName; 2] = [header::CONTENT_TYPE, header::CONTENT_ENCODING];
/// Headers of a 304 that say nothing new of a content that is the same (RFC 9111, 3.2).
const FIXED: [&str; 3] = ["content-md5", "content-digest", "repr-digest"];

/// Whether a header may travel with a content's metadata and be told to any of its readers.
pub fn may_be_kept(name: &HeaderName) -> bool {
    let text = name.as_str();
    let hop = text == "keep-alive" || text.starts_with("proxy-");
    !hop && !NEVER.contains(name) && !OWN.contains(name)
}

/// The headers of an answer that are kept; `None` when they are more than may travel, or cannot
/// travel as text. Then the answer is for its reader alone.
pub(crate) fn of(headers: &HeaderMap) -> Option<Vec<(String, String)>> {
    let mut kept = headers.clone();
    drop_hop_by_hop(&mut kept);
    // What has a field of its own counts too.
    let bytes = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let fits = kept.len() <= HEADER_LINES_MAX
        && kept.iter().map(bytes).sum::<usize>() <= HEADER_BYTES_MAX
        && kept.values().all(|value| text(value).is_some());
    let lines = kept
        .iter()
        .filter(|(name, _)| may_be_kept(name))
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?.to_owned())));
    fits.then(|| lines.collect())
}

/// What is kept once a 304 has brought these headers: they take the place of those of the same
/// name.
pub(crate) fn updated(known: &[(String, String)], headers: &HeaderMap) -> HeaderMap {
    let mut said = headers.clone();
    drop_hop_by_hop(&mut said);
    let news = |name: &HeaderName| may_be_kept(name) && !FIXED.contains(&name.as_str());
    let mut updated = HeaderMap::new();
    for (name, value) in known {
        // They came from a message, or from a peer: what cannot stand in one is left out.
        if let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name.as_str()),
            HeaderValue::from_bytes(value.as_bytes()),
        ) && !(news(&name) && said.contains_key(&name))
        {
            updated.append(name, value);
        }
    }
    for (name, value) in said.iter().filter(|(name, _)| news(name)) {
        updated.append(name, value.clone());
    }
    updated
}

fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn pairs(kept: &[(String, String)]) -> Vec<(&str, &str)> {
        let pairs = kept.iter().map(|(name, value)| (&**name, &**value));
        pairs.collect()
    }

    #[test]
    fn all_end_to_end_headers_are_kept() {
        let kept = of(&headers(&[
            ("access-control-allow-origin", "*"),
            ("x-linked-etag", "\"a\""),
            ("x-amz-meta-a", "1"),
            ("link", "</a>; rel=a"),
            ("link", "</b>; rel=b"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-anything", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("set-cookie", "a=b"),
            ("age", "1"),
            ("etag", "\"a\""),
        ]))
        .unwrap();
        assert_eq!(
            pairs(&kept),
            [
                ("access-control-allow-origin", "*"),
                ("x-linked-etag", "\"a\""),
                ("x-amz-meta-a", "1"),
                ("link", "</a>; rel=a"),
                ("link", "</b>; rel=b"),
            ]
        );
    }

    #[test]
    fn what_is_too_much_or_no_text_is_not_kept() {
        let mut many = HeaderMap::new();
        for line in 0..HEADER_LINES_MAX {
            many.append("x-line", line.into());
        }
        assert_eq!(of(&many).unwrap().len(), HEADER_LINES_MAX);
        many.append("x-line", 1.into());
        assert_eq!(of(&many), None);

        let long = |bytes: usize| {
            let value = HeaderValue::try_from("a".repeat(bytes - 1)).unwrap();
            of(&HeaderMap::from_iter([(
                HeaderName::from_static("x"),
                value,
            )]))
        };
        assert!(long(HEADER_BYTES_MAX).is_some());
        assert!(long(HEADER_BYTES_MAX + 1).is_none());

        let latin = HeaderValue::from_bytes(b"\xfc").unwrap();
        assert!(of(&HeaderMap::from_iter([(header::LINK, latin)])).is_none());
        let utf8 = HeaderValue::from_bytes("ü".as_bytes()).unwrap();
        assert!(of(&HeaderMap::from_iter([(header::LINK, utf8)])).is_some());
    }

    #[test]
    fn a_304_replaces_what_it_names() {
        let known = of(&headers(&[
            ("link", "</a>"),
            ("link", "</b>"),
            ("x-a", "1"),
            ("content-md5", "x"),
        ]));
        let said = headers(&[
            ("link", "</c>"),
            ("x-b", "2"),
            ("content-md5", "y"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "7"),
        ]);
        let updated = updated(&known.unwrap(), &said);
        assert_eq!(
            pairs(&of(&updated).unwrap()),
            [
                ("x-a", "1"),
                ("content-md5", "x"),
                ("link", "</c>"),
                ("x-b", "2")
            ]
        );
    }
}
