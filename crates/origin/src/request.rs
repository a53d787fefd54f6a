use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pantala_core::{ByteRange, ContentMeta, Generation, Validators, display_url};
use url::Url;

use crate::{Asker, Interim};

/// What a reader wants from an origin.
#[derive(Clone)]
pub struct OriginRequest {
    /// Where it is. A user part becomes Basic credentials, as long as `headers` bring none.
    pub url: Url,
    /// The user's own headers. Hop-by-hop headers, `Host`, `Content-Length`, `Range` and `If-*`
    /// are dropped; without an `Accept-Encoding` the content is asked for as it is.
    pub headers: HeaderMap,
    /// Which bytes of it.
    pub range: ByteRange,
    /// The last so many bytes of it instead, wherever they begin. Then `range` is all.
    pub suffix: Option<u64>,
    /// What an earlier answer said of the content, when there was one.
    pub expect: Option<Expect>,
    /// Whether redirects are followed; else one is an answer that brings no content.
    pub follow: bool,
    /// Whether a status that may be better later (429, 5xx) is a reason to ask again; else it is the
    /// answer, for whoever passes it on.
    pub ask_again: bool,
    /// Who is told of what is said before the answer.
    pub interim: Option<Interim>,
    /// For whom it is.
    pub asker: Asker,
}

/// What an earlier answer said of a content. An answer that disagrees is an error of
/// [`Kind::Changed`](pantala_core::Kind::Changed).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expect {
    /// Sent as `If-Range` with a ranged request: the strong entity tag, else `Last-Modified`.
    pub validators: Validators,
    /// Bytes of the whole content, when known.
    pub length: Option<u64>,
    /// What says of another answer that it belongs to the same representation.
    pub generation: Generation,
}

impl Expect {
    /// What `meta` says of its content.
    pub fn of(meta: &ContentMeta) -> Self {
        Self {
            validators: meta.validators.clone(),
            length: meta.length,
            generation: meta.generation,
        }
    }

    /// The value of `If-Range`, when there is a validator that is good for one
    /// (RFC 9110, 13.1.5: a weak one is not).
    pub(crate) fn if_range(&self) -> Option<&str> {
        let date = || {
            let dated = self.generation == Generation::Validators && self.validators.etag.is_none();
            self.validators.last_modified.as_deref().filter(|_| dated)
        };
        self.validators.strong_etag().or_else(date)
    }

    /// Whether an answer may be joined to what was read before: the origin says that it is of the same
    /// representation, or a digest will. `partial`: it is a 206, which `If-Range` let through.
    ///
    /// A strong validator must be repeated, because an origin that does not know `If-Range` answers
    /// with a part of whatever is there. (RFC 9110, 15.3.7: a 206 carries the entity tag; the date
    /// only a 200 must.)
    pub(crate) fn agrees_with(&self, meta: &ContentMeta, partial: bool) -> bool {
        if self.generation == Generation::Validators {
            let (known, told) = (&self.validators, &meta.validators);
            let repeated = match (known.strong_etag(), &known.last_modified) {
                (Some(etag), _) => told.strong_etag() == Some(etag),
                (None, Some(_)) => {
                    told.last_modified == known.last_modified
                        || (partial && told.last_modified.is_none())
                }
                (None, None) => true,
            };
            if !repeated {
                return false;
            }
        }
        let lengths_agree = match (self.length, meta.length) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        lengths_agree && self.validators.agree_with(&meta.validators)
    }

    /// Whether there can be another answer of which it is known that it is of the same representation.
    pub(crate) fn can_be_joined(&self) -> bool {
        self.generation != Generation::Transfer
    }
}

impl OriginRequest {
    /// All of what stands at `url`, with no headers of the user's.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            headers: HeaderMap::new(),
            range: ByteRange::ALL,
            suffix: None,
            expect: None,
            follow: true,
            ask_again: true,
            interim: None,
            asker: Asker::Host,
        }
    }

    /// The validator this request sends as `If-Range`.
    pub(crate) fn if_range(&self) -> Option<&str> {
        if self.range.is_all() {
            return None;
        }
        self.expect.as_ref()?.if_range()
    }

    /// The headers as they are sent.
    pub(crate) fn sent_headers(&self, user_agent: &str) -> HeaderMap {
        let mut headers = end_to_end(&self.headers, user_agent);
        if !self.range.is_all() {
            let start = self.range.start();
            let range = match self.range.end() {
                Some(end) => format!("bytes={start}-{}", end.saturating_sub(1)),
                None => format!("bytes={start}-"),
            };
            put(&mut headers, header::RANGE, &range);
        }
        if let Some(last) = self.suffix {
            put(&mut headers, header::RANGE, &format!("bytes=-{last}"));
        }
        if let Some(validator) = self.if_range() {
            put(&mut headers, header::IF_RANGE, validator);
        }
        headers
    }

    /// Whether the request is for a part of the content.
    pub(crate) fn is_ranged(&self) -> bool {
        !self.range.is_all() || self.suffix.is_some()
    }
}

/// Asks for the content only if it is not the one with these validators any more.
pub(crate) fn put_unless(headers: &mut HeaderMap, known: &Validators) {
    if let Some(etag) = &known.etag {
        put(headers, header::IF_NONE_MATCH, etag);
    } else if let Some(date) = &known.last_modified {
        put(headers, header::IF_MODIFIED_SINCE, date);
    }
}

/// The user's headers without those that concern the connection, the host or a part of the
/// content, which are ours to set.
pub(crate) fn end_to_end(given: &HeaderMap, user_agent: &str) -> HeaderMap {
    let mut headers = given.clone();
    drop_hop_by_hop(&mut headers);
    for name in [
        header::HOST,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::RANGE,
    ] {
        headers.remove(name);
    }
    let conditions: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("if-"))
        .cloned()
        .collect();
    for name in conditions {
        headers.remove(name);
    }
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        put(&mut headers, header::ACCEPT_ENCODING, "identity");
    }
    if !headers.contains_key(header::USER_AGENT) {
        put(&mut headers, header::USER_AGENT, user_agent);
    }
    headers
}

/// Takes out the headers that are for the next hop alone (RFC 9110, 7.6.1), those that
/// `Connection` names included.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    const FIXED: [HeaderName; 9] = [
        header::CONNECTION,
        header::PROXY_AUTHORIZATION,
        header::PROXY_AUTHENTICATE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in FIXED.into_iter().chain(named) {
        headers.remove(name);
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // What cannot stand in a header is left out: a validator came from a header, so it can.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Shows neither query nor headers: both may carry credentials.
impl fmt::Debug for OriginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginRequest")
            .field("url", &display_url(self.url.as_str()))
            .field("range", &self.range)
            .field("suffix", &self.suffix)
            .field("expect", &self.expect)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> OriginRequest {
        let mut request = OriginRequest::new("http://origin.example/f".parse().unwrap());
        for (name, value) in headers {
            request
                .headers
                .append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn what_concerns_the_connection_or_a_part_is_not_passed_on() {
        let sent = request(&[
            ("host", "elsewhere"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("range", "bytes=1-2"),
            ("if-none-match", "\"a\""),
            ("if-range", "\"a\""),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer x"),
        ])
        .sent_headers("agent");
        let mut names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept-encoding", "authorization", "user-agent"]);
        assert_eq!(sent["accept-encoding"], "identity");
    }

    #[test]
    fn the_users_own_encoding_and_agent_stay() {
        let sent = request(&[("accept-encoding", "gzip"), ("user-agent", "me")]).sent_headers("a");
        assert_eq!(sent["accept-encoding"], "gzip");
        assert_eq!(sent["user-agent"], "me");
    }

    #[test]
    fn ranges_are_sent_with_the_best_validator() {
        let mut ranged = request(&[]);
        ranged.range = ByteRange::new(0, Some(10)).unwrap();
        ranged.expect = Some(Expect {
            validators: Validators {
                etag: Some("W/\"a\"".into()),
                last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".into()),
            },
            length: None,
            generation: Generation::Validators,
        });
        // A weak tag says that bytes may differ, and so does the date that comes with it.
        let sent = ranged.sent_headers("a");
        assert_eq!(sent["range"], "bytes=0-9");
        assert!(!sent.contains_key("if-range"));
        ranged.expect.as_mut().unwrap().validators.etag = None;
        assert_eq!(
            ranged.sent_headers("a")["if-range"],
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
        ranged.range = ByteRange::from(7);
        ranged.expect.as_mut().unwrap().validators.etag = Some("\"a\"".into());
        let sent = ranged.sent_headers("a");
        assert_eq!(sent["range"], "bytes=7-");
        assert_eq!(sent["if-range"], "\"a\"");
        ranged.range = ByteRange::ALL;
        assert!(!ranged.sent_headers("a").contains_key("if-range"));
    }
}
