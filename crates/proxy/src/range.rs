//! The `Range` header of a request, and `Content-Range` of the answer.

use http::HeaderValue;
use pantala_core::ByteRange;
use pantala_node::Range;

/// Reads a `Range` header with a single range of bytes (RFC 9110, 14.1.2). `None` for anything
/// else: several ranges, other units, nonsense; the origin knows best what to do with those.
pub(crate) fn parse(value: &[u8]) -> Option<Range> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    parse_spec(set.trim())
}

/// Reads `0-99`, `100-` or `-500`.
pub(crate) fn parse_spec(spec: &str) -> Option<Range> {
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| -> Option<Option<u64>> {
        match text {
            "" => Some(None),
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok().map(Some),
            _ => None,
        }
    };
    match (number(first)?, number(last)?) {
        (None, Some(last)) => Some(Range::Suffix(last)),
        (Some(first), None) => Some(Range::Bytes(ByteRange::from(first))),
        (Some(first), Some(last)) if first <= last => {
            // What ends beyond any content ends where the content does.
            let end = last.checked_add(1);
            ByteRange::new(first, end).map(Range::Bytes)
        }
        _ => None,
    }
}

/// The value of `Content-Range` for `start..end` of `length` bytes; `end` lies after `start`.
pub(crate) fn content_range(start: u64, end: u64, length: u64) -> HeaderValue {
    let text = format!("bytes {start}-{}/{length}", end.saturating_sub(1));
    // Digits and punctuation can stand in a header.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("bytes */*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(start: u64, end: Option<u64>) -> Option<Range> {
        ByteRange::new(start, end).map(Range::Bytes)
    }

    #[test]
    fn single_ranges_are_read() {
        assert_eq!(parse(b"bytes=0-99"), bytes(0, Some(100)));
        assert_eq!(parse(b"bytes=5-5"), bytes(5, Some(6)));
        assert_eq!(parse(b"Bytes= 7- "), bytes(7, None));
        assert_eq!(parse(b"bytes=-500"), Some(Range::Suffix(500)));
        assert_eq!(parse(b"bytes=9-18446744073709551615"), bytes(9, None));
    }

    #[test]
    fn anything_else_is_not_ours_to_read() {
        for other in [
            &b"bytes=0-1,3-4"[..],
            b"bytes=5-2",
            b"bytes=-",
            b"bytes=",
            b"bytes",
            b"items=0-1",
            b"bytes=+1-2",
            b"bytes=a-b",
            b"bytes=1-2-3",
            b"bytes=99999999999999999999-",
            b"\xff",
        ] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn content_ranges_count_from_zero_to_the_last() {
        assert_eq!(content_range(0, 1, 10), "bytes 0-0/10");
        assert_eq!(content_range(5, 10, 10), "bytes 5-9/10");
    }
}
