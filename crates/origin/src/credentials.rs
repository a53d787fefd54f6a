//! Tells which requests are anonymous and which carry credentials.
//!
//! A header counts as a credential unless it is known to be harmless: no list of credentials could
//! be complete, and a missed one would hand private content to the next reader. A header is harmless
//! when servers have no use for it in deciding who may read, and when it brings no other content
//! than `Vary` would say. That leaves out some ordinary headers:
//! - `Forwarded`, `X-Forwarded-*`, `X-Real-IP`: servers decide by the address or the user in them;
//! - `Referer`, `Origin`: servers refuse readers that come from elsewhere;
//! - `X-Original-URL`, `X-HTTP-Method-Override` and the like: they change what a request means;
//! - `npm-otp`, `baggage`, `From`: they say who the user is.

use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

/// The request headers that play no part in who may read, besides the well-known ones those that
/// the operator named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Harmless {
    added: Vec<HeaderName>,
}

impl Harmless {
    /// The well-known harmless headers and `added`.
    pub fn new(added: impl IntoIterator<Item = HeaderName>) -> Self {
        let added = added.into_iter().collect();
        Self { added }
    }

    /// Whether a request says nothing of who sends it, so that its answer may be meant for
    /// everybody. A request can say so in a header, in the URL's user part, or as a signature in its
    /// query.
    pub fn is_anonymous(&self, url: &Url, headers: &HeaderMap) -> bool {
        !has_user(url) && !is_signed(url) && self.credentials_in(headers).next().is_none()
    }

    /// The headers that may say who sends a request.
    pub fn credentials_in<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        headers.iter().filter(|(name, _)| !self.has(name))
    }

    /// Takes out the headers that must not follow to another host.
    pub(crate) fn drop_credentials(&self, headers: &mut HeaderMap) {
        let names: Vec<HeaderName> = headers
            .keys()
            .filter(|name| !self.has(name))
            .cloned()
            .collect();
        for name in names {
            headers.remove(name);
        }
    }

    fn has(&self, name: &HeaderName) -> bool {
        is_well_known(name.as_str()) || self.added.contains(name)
    }
}

/// Whether a header is known to be harmless. The names are in lower case.
fn is_well_known(name: &str) -> bool {
    is_of_http(name) || is_of_browsers(name) || is_of_clients(name) || is_of_traces(name)
}

/// The headers of HTTP itself: which form and which part of the content is wanted, how it may be
/// cached, and what concerns the connection alone.
fn is_of_http(name: &str) -> bool {
    matches!(
        name,
        "accept"
            | "accept-charset"
            | "accept-datetime"
            | "accept-encoding"
            | "accept-language"
            | "accept-ranges"
            | "alt-used"
            | "cache-control"
            | "cdn-loop"
            | "connection"
            | "content-length"
            | "content-type"
            | "date"
            | "early-data"
            | "expect"
            | "host"
            | "http2-settings"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-range"
            | "if-unmodified-since"
            | "keep-alive"
            | "max-forwards"
            | "pragma"
            | "priority"
            | "proxy-connection"
            | "range"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "user-agent"
            | "via"
            | "want-content-digest"
            | "want-digest"
            | "want-repr-digest"
    )
}

/// What browsers say of themselves and of what they want a file for.
fn is_of_browsers(name: &str) -> bool {
    name.starts_with("sec-ch-")
        || name.starts_with("sec-fetch-")
        || matches!(
            name,
            "device-memory"
                | "dnt"
                | "downlink"
                | "dpr"
                | "ect"
                | "purpose"
                | "rtt"
                | "save-data"
                | "sec-gpc"
                | "sec-purpose"
                | "upgrade-insecure-requests"
                | "viewport-width"
                | "width"
        )
}

/// What package managers, registry clients and object stores' libraries send with each request,
/// also without credentials.
fn is_of_clients(name: &str) -> bool {
    matches!(
        name,
        // npm. There is `npm-otp` too: a password.
        "npm-auth-type" | "npm-command" | "npm-in-ci" | "npm-scope" | "npm-session"
            | "pacote-integrity" | "pacote-pkg-id" | "pacote-req-type" | "pacote-version"
            // Maven sends these two.
            | "cache-store" | "expires"
            | "cargo-protocol"
            // podman, skopeo and buildah.
            | "docker-distribution-api-version"
            | "flatpak-ref" | "flatpak-upgrade-from"
            | "git-protocol"
            | "x-github-api-version"
            | "x-nuget-client-version" | "x-nuget-protocol-version" | "x-nuget-session-id"
            | "x-terraform-version"
            | "x-zypp-anonymousid" | "x-zypp-distributionflavor"
            // S3, Google's and Azure's stores.
            | "amz-sdk-invocation-id" | "amz-sdk-request" | "x-amz-checksum-mode"
            | "x-goog-api-client"
            | "x-ms-client-request-id" | "x-ms-version"
    )
}

/// Names of requests, by which operators find them in several programs' logs.
fn is_of_traces(name: &str) -> bool {
    matches!(
        name,
        "traceparent"
            | "tracestate"
            | "b3"
            | "x-b3-flags"
            | "x-b3-parentspanid"
            | "x-b3-sampled"
            | "x-b3-spanid"
            | "x-b3-traceid"
            | "elastic-apm-traceparent"
            | "request-id"
            | "sentry-trace"
            | "uber-trace-id"
            | "x-amzn-trace-id"
            | "x-cloud-trace-context"
            | "x-correlation-id"
            | "x-datadog-origin"
            | "x-datadog-parent-id"
            | "x-datadog-sampling-priority"
            | "x-datadog-trace-id"
            | "x-ot-span-context"
            | "x-request-id"
            | "x-trace-id"
    )
}

/// The value of `Authorization` for a name and a password (RFC 7617).
pub(crate) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let value = http_auth::basic::encode_credentials(username, password);
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether the URL's query carries a signature or a token.
///
/// Such a URL is often good for one method only: an object store refuses a HEAD of what was
/// signed for GET.
pub fn is_signed(url: &Url) -> bool {
    url.query_pairs().any(|(name, value)| {
        let name = name.to_ascii_lowercase();
        !value.is_empty()
            && (matches!(
                name.as_str(),
                "sig" | "signature" | "token" | "auth" | "apikey" | "api_key" | "api-key"
            ) || [
                "-signature",
                "_signature",
                "-token",
                "_token",
                "-credential",
            ]
            .iter()
            .any(|end| name.ends_with(end)))
    })
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn anonymous(harmless: &Harmless, url: &str, header: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(name) = header {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        harmless.is_anonymous(&url.parse().unwrap(), &headers)
    }

    #[test]
    fn credentials_are_seen_wherever_they_hide() {
        let harmless = Harmless::default();
        let plain = "http://origin.example/f";
        for name in [
            "authorization",
            "cookie",
            "proxy-authorization",
            "x-auth-token",
            "private-token",
            "x-auth-key",
            "x-access-key",
            "x-session-id",
            "ocp-apim-subscription-key",
            "x-anything",
            "npm-otp",
            "x-nuget-apikey",
            "x-amz-server-side-encryption-customer-key",
            "x-forwarded-user",
            "x-forwarded-for",
            "referer",
        ] {
            assert!(!anonymous(&harmless, plain, Some(name)), "{name}");
        }
        for url in [
            "http://me:pw@origin.example/f",
            "http://origin.example/f?X-Amz-Signature=1",
            "http://origin.example/f?x=1&X-Goog-Signature=2",
            "http://origin.example/f?sig=1",
            "http://origin.example/f?Signature=1",
            "http://origin.example/f?token=1",
            "http://origin.example/f?access_token=1",
        ] {
            assert!(!anonymous(&harmless, url, None), "{url}");
        }
    }

    #[test]
    fn ordinary_requests_are_public() {
        let harmless = Harmless::default();
        let url = "http://origin.example/f?version=2&design=1&token=";
        for name in [
            "accept",
            "x-request-id",
            "sec-fetch-site",
            "sec-ch-ua",
            "npm-session",
            "docker-distribution-api-version",
            "via",
        ] {
            assert!(anonymous(&harmless, url, Some(name)), "{name}");
        }
    }

    #[test]
    fn the_operator_adds_to_the_harmless() {
        let url = "http://origin.example/f";
        let harmless = Harmless::new([HeaderName::from_static("x-build")]);
        assert!(anonymous(&harmless, url, Some("x-build")));
        assert!(!anonymous(&harmless, url, Some("x-builder")));
        let mut headers = HeaderMap::new();
        for name in ["x-build", "x-key", "accept", "x-key"] {
            headers.append(name, HeaderValue::from_static("x"));
        }
        harmless.drop_credentials(&mut headers);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "x-build"]);
    }
}
