//! Keeps pages in browsers away from what this daemon does for programs.
//!
//! A page comes from anywhere, and its browser sends what it asks for to this host too. A page of
//! another site gives itself away by `Origin` and `Sec-Fetch-Site`. A page whose name was bound to
//! this host's address after it was loaded (DNS rebinding) looks like one of ours to the browser;
//! it gives itself away by that name in `Host`. Programs are not affected: they send the address
//! or the name they were configured with, and neither of the other two.

use std::net::IpAddr;

use globset::{Glob, GlobSet, GlobSetBuilder};
use http::{HeaderMap, StatusCode, header, uri::Authority};
use pantala_core::{Error, Kind, Result, Who};

use crate::reply::{self, Reply};

/// The names that clients may know this daemon by, besides its addresses and `localhost`.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    names: GlobSet,
}

/// Which pages may use something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Those of this daemon.
    Ours,
    /// None. Only what a user opens is answered: what a registry serves would be a page of ours.
    None,
}

impl Guard {
    /// # Errors
    /// `BadInput` when the names cannot be matched together.
    pub fn new(names: &[Glob]) -> Result<Self> {
        let mut set = GlobSetBuilder::new();
        for name in names {
            set.add(name.clone());
        }
        let names = set.build().map_err(|error| {
            let what = format!("--allow-host: {error}");
            Error::new(Who::User, Kind::BadInput, what).hint("write names like *.example")
        })?;
        Ok(Self { names })
    }

    /// The answer to a request that a page may have sent; `None` for one that may be answered.
    pub fn refusal(&self, headers: &HeaderMap, pages: Pages) -> Option<Reply> {
        let line = if let Some(name) = self.foreign(headers) {
            format!(
                "this dfdaemon is not known as {name}; use its IP address or localhost, or start it \
                 with --allow-host {name}"
            )
        } else if is_of_a_page(headers, pages) {
            "this is for programs, not for pages in a browser".to_owned()
        } else {
            return None;
        };
        Some(reply::text(StatusCode::FORBIDDEN, &line))
    }

    /// The name in `Host` that is none of this daemon's. Without a `Host` it is no browser's.
    fn foreign(&self, headers: &HeaderMap) -> Option<String> {
        headers.get_all(header::HOST).iter().find_map(|host| {
            let text = String::from_utf8_lossy(host.as_bytes());
            match text.parse::<Authority>() {
                Ok(host) if self.is_known(host.host()) => None,
                Ok(host) => Some(host.host().to_owned()),
                Err(_) => Some(text.into_owned()),
            }
        })
    }

    fn is_known(&self, host: &str) -> bool {
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        // No name leads to a page that was loaded from an address.
        name.parse::<IpAddr>().is_ok() || name == "localhost" || self.names.is_match(&name)
    }
}

/// Whether a browser says that a page asks, and none of those that may.
fn is_of_a_page(headers: &HeaderMap, pages: Pages) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    headers.contains_key(header::ORIGIN)
        || sites.any(|site| site != "none" && (pages == Pages::None || site != "same-origin"))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn refused(guard: &Guard, pages: Pages, lines: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        guard.refusal(&headers, pages).is_some()
    }

    #[test]
    fn a_name_that_is_none_of_ours_is_refused() {
        let names = [Glob::new("*.nodes.example").unwrap()];
        let guard = Guard::new(&names).unwrap();
        for (host, expected) in [
            ("127.0.0.1:65001", false),
            ("10.1.2.3", false),
            ("[::1]:65001", false),
            ("localhost:65001", false),
            ("LOCALHOST", false),
            ("localhost.", false),
            ("a.nodes.example:65001", false),
            ("A.Nodes.Example.", false),
            ("nodes.example", true),
            ("evil.example:65001", true),
            ("localhost.evil.example", true),
            ("127.0.0.1.evil.example", true),
            ("127.1", true),
            ("", true),
            ("a b", true),
        ] {
            let lines = [("host", host)];
            assert_eq!(refused(&guard, Pages::None, &lines), expected, "{host}");
        }
        assert!(!refused(&guard, Pages::None, &[]));
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert!(refused(&guard, Pages::None, &two));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let guard = Guard::default();
        for (name, value, ours, none) in [
            ("sec-fetch-site", "none", false, false),
            ("sec-fetch-site", "same-origin", false, true),
            ("sec-fetch-site", "same-site", true, true),
            ("sec-fetch-site", "cross-site", true, true),
            ("origin", "http://localhost", true, true),
            ("origin", "null", true, true),
            ("sec-fetch-mode", "cors", false, false),
        ] {
            let lines = [("host", "localhost"), (name, value)];
            assert_eq!(refused(&guard, Pages::Ours, &lines), ours, "{value}");
            assert_eq!(refused(&guard, Pages::None, &lines), none, "{value}");
        }
    }
}
