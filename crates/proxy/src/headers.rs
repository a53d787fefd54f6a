//! Which headers go on to the next hop, and which end here.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Takes out the headers that are for the next hop alone (RFC 9110, 7.6.1), those that
/// `Connection` names included, and all that are meant for a proxy.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    const FIXED: [HeaderName; 7] = [
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    let doomed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .chain(
            headers
                .keys()
                .filter(|name| name.as_str().starts_with("proxy-"))
                .cloned(),
        )
        .collect();
    for name in FIXED.into_iter().chain(doomed) {
        headers.remove(name);
    }
}

/// A proxy's name among the proxies a request came by.
#[derive(Debug, Clone)]
pub(crate) struct Via {
    name: String,
    value: HeaderValue,
}

impl Via {
    /// `id` tells this proxy from every other.
    pub fn new(id: &str) -> Self {
        let name = format!("pantala-{id}");
        let value = HeaderValue::try_from(format!("1.1 {name}"))
            .unwrap_or_else(|_| HeaderValue::from_static("1.1 pantala"));
        Self { name, value }
    }

    /// Adds this proxy to those the request came by.
    pub fn add(&self, headers: &mut HeaderMap) {
        headers.append(header::VIA, self.value.clone());
    }

    /// Whether the request has been here before: somebody sends it in a circle, or tries to reach
    /// this host's own API through its proxy.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::VIA)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains(&self.name))
    }
}

/// The elements of a comma-separated header, lower-case.
pub(crate) fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = String> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(|element| String::from_utf8_lossy(element).trim().to_ascii_lowercase())
        .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_for_the_end_goes_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("proxy-authorization", "Basic x"),
            ("proxy-anything", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "a"),
            ("authorization", "Bearer x"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append("accept", HeaderValue::from_static("b"));
        drop_hop_by_hop(&mut headers);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "authorization"]);
        // Lines stay lines: some registries read only the first of a folded list.
        assert_eq!(headers.get_all("accept").iter().count(), 2);
    }

    #[test]
    fn a_circle_is_seen() {
        let (ours, other) = (Via::new("a1"), Via::new("b2"));
        let mut headers = HeaderMap::new();
        other.add(&mut headers);
        assert!(!ours.is_in(&headers));
        ours.add(&mut headers);
        assert!(ours.is_in(&headers));
    }
}
