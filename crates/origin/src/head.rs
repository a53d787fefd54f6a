use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode, header};
use pantala_core::{
    ContentDigest, ContentMeta, Error, Generation, Kind, Result, Validators, Who, display_url,
};
use url::Url;

use crate::{
    OriginRequest,
    failure::protocol,
    freshness::{self, Freshness},
    kept,
};

/// What the head of a 200 or 206 says.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) meta: ContentMeta,
    /// The content's offset of the body's first byte.
    pub(crate) start: u64,
    /// The content's offset after the body's last byte, when known.
    pub(crate) end: Option<u64>,
    /// Whether it is a 206.
    pub(crate) partial: bool,
    /// Whether others than who asked may have it.
    pub(crate) shareable: bool,
}

/// Reads the head of a 200 or 206 that answers `request`; `url` is who gave it, `private` says
/// whether that may have known who asked, and `delay` how long it took to answer.
///
/// # Errors
/// `Protocol` when it is not an answer to that question, `Changed` when it disagrees with what
/// the request expects.
pub(crate) fn read(
    url: &Url,
    request: &OriginRequest,
    status: StatusCode,
    headers: &HeaderMap,
    private: bool,
    delay: Duration,
) -> Result<Head> {
    let partial = status == StatusCode::PARTIAL_CONTENT;
    let (start, end, length) = if partial {
        let part = part(url, request, headers)?;
        (part.start, Some(part.end), part.length)
    } else {
        let length = content_length(headers);
        (0, length, length)
    };
    let kept = kept::of(headers);
    let fits = kept.is_some();
    let freshness = Freshness::of(headers, SystemTime::now(), delay);
    let meta = ContentMeta {
        length,
        validators: validators(headers),
        ranges: partial || accepts_ranges(request, headers),
        content_type: text(headers, header::CONTENT_TYPE),
        content_encoding: text(headers, header::CONTENT_ENCODING)
            .filter(|encoding| !encoding.eq_ignore_ascii_case("identity")),
        headers: kept.unwrap_or_default(),
        fresh_for: freshness.left(),
        age: freshness.age,
        private,
        generation: match has_strong_validator(headers) {
            true => Generation::Validators,
            false => Generation::Transfer,
        },
        ..ContentMeta::default()
    };
    if let Some(expect) = &request.expect
        && !expect.agrees_with(&meta, partial)
    {
        let what = format!(
            "{} changed since it was first read",
            display_url(url.as_str())
        );
        return Err(Error::new(Who::Origin, Kind::Changed, what).hint("start again"));
    }
    let encoded = meta.content_encoding.is_some();
    let shareable = fits && freshness::may_be_shared(headers, encoded, &request.headers);
    Ok(Head {
        meta,
        start,
        end,
        partial,
        shareable,
    })
}

/// A content that was known before, as a 304 says it is now.
#[derive(Debug)]
pub(crate) struct Confirmed {
    pub(crate) meta: ContentMeta,
    /// Whether others than who asked may still have it.
    pub(crate) shareable: bool,
}

/// Applies the headers of a 304 to what was known (RFC 9111, 4.3.4). `None` when they speak of
/// another content: then nothing is known of this one.
pub(crate) fn confirm(
    known: &ContentMeta,
    request: &OriginRequest,
    headers: &HeaderMap,
    private: bool,
    delay: Duration,
) -> Option<Confirmed> {
    let said = validators(headers);
    let same = match (&known.validators.etag, &said.etag) {
        (Some(known), Some(said)) => opaque(known) == opaque(said),
        (Some(_), None) => true,
        // A strong tag names one content, and nobody knows that it is this one.
        (None, Some(_)) if said.strong_etag().is_some() => false,
        (None, _) => {
            let date = &known.validators.last_modified;
            said.last_modified.is_none() || said.last_modified == *date
        }
    };
    if !same {
        return None;
    }
    let mut now = kept::updated(&known.headers, headers);
    let kept = kept::of(&now);
    // These are of one answer: the earlier one's are over.
    for name in [header::AGE, header::DATE, header::SET_COOKIE] {
        now.remove(&name);
        for value in headers.get_all(&name) {
            now.append(&name, value.clone());
        }
    }
    let freshness = Freshness::of(&now, SystemTime::now(), delay);
    let encoded = known.content_encoding.is_some();
    let shareable = kept.is_some() && freshness::may_be_shared(&now, encoded, &request.headers);
    let meta = ContentMeta {
        content_type: text(headers, header::CONTENT_TYPE).or_else(|| known.content_type.clone()),
        headers: kept.unwrap_or_default(),
        fresh_for: freshness.left(),
        age: freshness.age,
        private,
        ..known.clone()
    };
    Some(Confirmed { meta, shareable })
}

/// An entity tag without its weakness.
fn opaque(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// How much older than its `Date` an answer's `Last-Modified` must be to count as strong. RFC 9110
/// asks for a second between two clocks that agree, and for more between others; RFC 7232 said how
/// much more.
const SETTLED: Duration = Duration::from_secs(60);

/// Whether the answer says which representation it is of, so that bytes of another answer with the
/// same validators are known to be of the same one (RFC 9110, 8.8.1): by a strong entity tag, or by
/// a date of modification that lies so far back that nothing can have changed within the same second
/// (8.8.2.2). A weak entity tag says that bytes may differ, whatever the date says.
fn has_strong_validator(headers: &HeaderMap) -> bool {
    let validators = validators(headers);
    if validators.etag.is_some() {
        return validators.strong_etag().is_some();
    }
    let date = |name| httpdate::parse_http_date(&text(headers, name)?).ok();
    let modified = date(header::LAST_MODIFIED);
    let Some((modified, sent)) = modified.zip(date(header::DATE)) else {
        return false;
    };
    sent.duration_since(modified)
        .is_ok_and(|age| age >= SETTLED)
}

/// What tells the content from others, by the headers that come with it.
pub(crate) fn validators(headers: &HeaderMap) -> Validators {
    Validators {
        etag: text(headers, header::ETAG),
        last_modified: text(headers, header::LAST_MODIFIED),
    }
}

/// The digest that a registry says a content has.
pub(crate) fn digest(headers: &HeaderMap) -> Option<ContentDigest> {
    let digest = headers.get("docker-content-digest")?;
    digest.to_str().ok()?.parse().ok()
}

/// Bytes of the whole content, by the head of an answer to a HEAD or to a GET of a part.
pub(crate) fn whole_length(headers: &HeaderMap) -> Option<u64> {
    match text(headers, header::CONTENT_RANGE) {
        Some(range) => parse_content_range(&range)?.length,
        None => content_length(headers),
    }
}

/// Whether the origin says in a 200 that it serves ranges of the content.
fn accepts_ranges(request: &OriginRequest, headers: &HeaderMap) -> bool {
    // A 200 to a ranged question denies ranges, whatever `Accept-Ranges` claims; unless `If-Range`
    // gave it the choice.
    if request.is_ranged() && request.if_range().is_none() {
        return false;
    }
    headers
        .get_all(header::ACCEPT_RANGES)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|unit| unit.trim().eq_ignore_ascii_case("bytes"))
}

/// Bytes in the body, when the head says. With `Transfer-Encoding` a `Content-Length` means
/// nothing (RFC 9112, 6.3).
fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    text(headers, header::CONTENT_LENGTH)?.trim().parse().ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = std::str::from_utf8(headers.get(name)?.as_bytes()).ok()?;
    Some(value.to_owned())
}

/// A part of a content: `start..end` of `length` bytes.
struct Part {
    start: u64,
    end: u64,
    length: Option<u64>,
}

/// The part a 206 holds, once it is sure that it is (the beginning of) the one asked for.
fn part(url: &Url, request: &OriginRequest, headers: &HeaderMap) -> Result<Part> {
    let multipart = text(headers, header::CONTENT_TYPE).is_some_and(|kind| {
        kind.to_ascii_lowercase()
            .starts_with("multipart/byteranges")
    });
    if multipart {
        return Err(protocol(url, "answered one range with several parts"));
    }
    let Some(value) = text(headers, header::CONTENT_RANGE) else {
        return Err(protocol(url, "answered 206 without a content-range"));
    };
    let part = parse_content_range(&value)
        .ok_or_else(|| protocol(url, format!("sent an unusable content-range {value:?}")))?;
    let range = request.range;
    let other = part.start != range.start() || range.end().is_some_and(|end| part.end > end);
    // Where the last bytes begin is the origin's to say.
    if other && request.suffix.is_none() {
        let asked = match range.end() {
            Some(end) => format!("{}-{}", range.start(), end.saturating_sub(1)),
            None => format!("{}-", range.start()),
        };
        return Err(protocol(
            url,
            format!("was asked for bytes {asked} and answered {value:?}"),
        ));
    }
    if let Some(length) = content_length(headers)
        && length != part.end - part.start
    {
        return Err(protocol(
            url,
            format!("sent a content-length of {length} with content-range {value:?}"),
        ));
    }
    Ok(part)
}

/// Reads `bytes FIRST-LAST/LENGTH` (RFC 9110, 14.4); the length may be `*`.
fn parse_content_range(value: &str) -> Option<Part> {
    let (unit, rest) = value.trim().split_once(' ')?;
    let (range, length) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (first, last) = (number(first)?, number(last)?);
    let length = match length.trim() {
        "*" => None,
        length => Some(number(length)?),
    };
    let sound = unit.eq_ignore_ascii_case("bytes")
        && first <= last
        && length.is_none_or(|length| last < length);
    sound.then_some(Part {
        start: first,
        end: last.checked_add(1)?,
        length,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use pantala_core::ByteRange;

    use super::*;

    fn answer(
        range: ByteRange,
        status: u16,
        pairs: &[(&'static str, &'static str)],
    ) -> Result<Head> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let mut request = OriginRequest::new("http://origin.example/f".parse().unwrap());
        request.range = range;
        read(
            &request.url,
            &request,
            StatusCode::from_u16(status).unwrap(),
            &headers,
            false,
            Duration::ZERO,
        )
    }

    #[test]
    fn content_ranges_are_read_or_refused() {
        for bad in [
            "",
            "bytes",
            "bytes 0-1",
            "bytes 2-1/3",
            "bytes 0-3/3",
            "items 0-1/3",
            "bytes */3",
            "bytes -1/3",
            "bytes 0-18446744073709551615/*",
            "bytes 0-1/x",
        ] {
            assert!(parse_content_range(bad).is_none(), "{bad}");
        }
        let part = parse_content_range("bytes 2-4/*").unwrap();
        assert_eq!((part.start, part.end, part.length), (2, 5, None));
    }

    #[test]
    fn a_part_that_was_not_asked_for_is_refused() {
        let range = ByteRange::new(10, Some(20)).unwrap();
        for pairs in [
            &[("content-range", "bytes 0-19/100")][..],
            &[("content-range", "bytes 10-20/100")],
            &[
                ("content-range", "bytes 10-19/100"),
                ("content-length", "5"),
            ],
            &[("content-type", "multipart/byteranges; boundary=x")],
            &[],
        ] {
            let error = answer(range, 206, pairs).unwrap_err();
            assert_eq!(error.kind(), Kind::Protocol, "{pairs:?}");
            assert!(!error.is_retryable());
        }
        let head = answer(range, 206, &[("content-range", "bytes 10-14/15")]).unwrap();
        assert_eq!(
            (head.start, head.end, head.meta.length),
            (10, Some(15), Some(15))
        );
        assert!(head.meta.ranges && head.partial);
    }

    #[test]
    fn ranges_are_believed_only_when_kept() {
        let accept = &[("accept-ranges", "bytes"), ("content-length", "3")];
        assert!(answer(ByteRange::ALL, 200, accept).unwrap().meta.ranges);
        let ignored = answer(ByteRange::from(1), 200, accept).unwrap();
        assert!(!ignored.meta.ranges);
        assert_eq!((ignored.start, ignored.end), (0, Some(3)));
        assert!(
            !answer(ByteRange::ALL, 200, &[("accept-ranges", "none")])
                .unwrap()
                .meta
                .ranges
        );
    }

    #[test]
    fn what_another_answer_can_be_told_by_is_a_strong_validator() {
        const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        const MODIFIED: &str = "last-modified";
        const WEAK: (&str, &str) = ("etag", "W/\"a\"");
        let old = (MODIFIED, "Sun, 06 Nov 1994 08:48:37 GMT");
        let fresh = (MODIFIED, "Sun, 06 Nov 1994 08:48:38 GMT");
        let later = (MODIFIED, "Sun, 06 Nov 1994 08:49:38 GMT");
        for (pairs, strong) in [
            (&[][..], false),
            (&[("etag", "\"a\"")], true),
            (&[("etag", "\"a\""), fresh, DATE], true),
            (&[WEAK], false),
            (&[WEAK, old, DATE], false),
            (&[old, DATE], true),
            (&[fresh, DATE], false),
            (&[later, DATE], false),
            // Nobody knows when it was sent.
            (&[old], false),
            (&[(MODIFIED, "yesterday"), DATE], false),
        ] {
            let meta = answer(ByteRange::ALL, 200, pairs).unwrap().meta;
            let is_strong = meta.generation == Generation::Validators;
            assert_eq!(is_strong, strong, "{pairs:?}");
        }
    }

    #[test]
    fn the_first_answer_tells_it_all() {
        let meta = answer(
            ByteRange::ALL,
            200,
            &[
                ("content-length", "7"),
                ("etag", "\"a\""),
                ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("content-type", "text/plain"),
                ("content-encoding", "gzip"),
                ("cache-control", "max-age=9"),
                ("docker-content-digest", "sha256:x"),
                ("server", "any"),
            ],
        )
        .unwrap()
        .meta;
        assert_eq!(meta.length, Some(7));
        assert_eq!(meta.validators.etag.as_deref(), Some("\"a\""));
        assert_eq!(meta.content_encoding.as_deref(), Some("gzip"));
        assert_eq!(meta.fresh_for.map(|fresh| fresh.as_secs()), Some(9));
        let mut names: Vec<&str> = meta.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "docker-content-digest", "server"]);
        assert!(!meta.private);
    }

    #[test]
    fn a_304_brings_headers_and_freshness_up_to_date() {
        let known = answer(
            ByteRange::ALL,
            200,
            &[
                ("content-length", "7"),
                ("etag", "\"a\""),
                ("content-type", "text/plain"),
                ("cache-control", "max-age=9"),
                ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("x-a", "1"),
                ("x-b", "1"),
            ],
        )
        .unwrap()
        .meta;
        // Of long ago.
        assert_eq!(known.fresh_for, Some(Duration::ZERO));
        let request = OriginRequest::new("http://origin.example/f".parse().unwrap());
        let confirm = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            confirm(&known, &request, &headers, false, Duration::ZERO)
        };
        let confirmed = confirm(&[("etag", "W/\"a\""), ("x-b", "2"), ("age", "2")]).unwrap();
        assert!(confirmed.shareable);
        let meta = confirmed.meta;
        assert_eq!(meta.length, Some(7));
        assert_eq!(meta.validators, known.validators);
        assert_eq!(meta.content_type.as_deref(), Some("text/plain"));
        assert_eq!(meta.fresh_for, Some(Duration::from_secs(7)));
        assert_eq!(meta.age, Duration::from_secs(2));
        let value = |name: &str| {
            let found = meta.headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| &**value)
        };
        assert_eq!((value("x-a"), value("x-b")), (Some("1"), Some("2")));

        for private in [
            ("cache-control", "private"),
            ("set-cookie", "a=b"),
            ("vary", "cookie"),
        ] {
            assert!(!confirm(&[private]).unwrap().shareable, "{private:?}");
        }
        assert!(confirm(&[("etag", "\"b\"")]).is_none());
    }

    #[test]
    fn a_304_of_something_else_confirms_nothing() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
        let known = ContentMeta {
            validators: Validators {
                etag: None,
                last_modified: date.clone(),
            },
            ..ContentMeta::default()
        };
        let request = OriginRequest::new("http://origin.example/f".parse().unwrap());
        let confirms = |name: &'static str, value: &str| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::try_from(value).unwrap(),
            )]);
            confirm(&known, &request, &headers, false, Duration::ZERO).is_some()
        };
        assert!(confirms("last-modified", date.as_deref().unwrap()));
        assert!(confirms("x-a", "1") && confirms("etag", "W/\"a\""));
        assert!(!confirms("last-modified", "Sun, 06 Nov 1994 08:49:38 GMT"));
        assert!(!confirms("etag", "\"a\""));
    }
}
