use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::Url;

/// Whether what this request brings back may be meant for its sender alone: it carries
/// credentials in a header, in the URL's user part, or as a signature in its query.
pub fn carries_credentials(url: &Url, headers: &HeaderMap) -> bool {
    has_user(url) || is_signed(url) || headers.keys().any(is_credential)
}

/// The value of `Authorization` for a name and a password (RFC 7617).
pub(crate) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let value = http_auth::basic::encode_credentials(username, password);
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The headers that prove who sends a request.
pub fn credentials_in(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| is_credential(name))
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

/// Whether a request header proves who sends it, so that it must not follow to another host.
pub(crate) fn is_credential(name: &HeaderName) -> bool {
    if [
        header::AUTHORIZATION,
        header::COOKIE,
        header::PROXY_AUTHORIZATION,
    ]
    .contains(name)
    {
        return true;
    }
    // Custom schemes: X-Auth-Token, Private-Token, X-JFrog-Art-Api, X-Amz-Security-Token …
    let name = name.as_str();
    [
        "token",
        "api-key",
        "apikey",
        "art-api",
        "secret",
        "signature",
        "password",
    ]
    .iter()
    .any(|word| name.contains(word))
}

/// Takes out what must not follow to another host.
pub(crate) fn drop_credentials(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_credential(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn private(url: &str, header: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(name) = header {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        carries_credentials(&url.parse().unwrap(), &headers)
    }

    #[test]
    fn credentials_are_seen_wherever_they_hide() {
        let plain = "http://origin.example/f";
        for name in [
            "authorization",
            "cookie",
            "proxy-authorization",
            "x-auth-token",
            "private-token",
        ] {
            assert!(private(plain, Some(name)), "{name}");
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
            assert!(private(url, None), "{url}");
        }
    }

    #[test]
    fn ordinary_requests_are_public() {
        assert!(!private(
            "http://origin.example/f?version=2&design=1",
            Some("accept")
        ));
        assert!(!private(
            "http://origin.example/f?token=",
            Some("x-request-id")
        ));
    }
}
