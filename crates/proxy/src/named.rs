//! References within a registry, for clients that name it in the path or with `ns=`.
//!
//! A registry says where to go on as if it had been asked itself: `</v2/a/tags/list?last=b>`. A
//! client that asked this mirror resolves that against what it asked for, and would no longer name
//! the registry.

use http::{HeaderMap, HeaderValue, header};

/// How a client named the registry that it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// Not at all.
    Not,
    /// As the first part of the repository's path.
    InPath(String),
    /// With `ns=`, as the query has it.
    ByNs(String),
}

/// A client's view of a registry's paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub named: Named,
    /// The path below which the registry has its `/v2/`, without a slash at its end.
    pub root: String,
}

impl View {
    /// Makes the references of an answer such that the client comes back to the same registry.
    pub fn put(&self, headers: &mut HeaderMap) {
        if self.named == Named::Not && self.root.is_empty() {
            return;
        }
        let ours = |value: &HeaderValue, rewrite: &dyn Fn(&str) -> String| {
            let text = std::str::from_utf8(value.as_bytes()).ok()?;
            HeaderValue::try_from(rewrite(text)).ok()
        };
        for (name, value) in headers.iter_mut() {
            let new = if name == header::LINK {
                ours(value, &|text| self.links(text))
            } else if name == header::LOCATION {
                ours(value, &|text| self.reference(text))
            } else {
                None
            };
            if let Some(new) = new {
                *value = new;
            }
        }
    }

    /// The targets of a `Link`, which stand between angle brackets.
    fn links(&self, value: &str) -> String {
        let mut rest = value;
        let mut all = String::new();
        while let Some((before, after)) = rest.split_once('<')
            && let Some((target, after)) = after.split_once('>')
        {
            all.push_str(&format!("{before}<{}>", self.reference(target)));
            rest = after;
        }
        all.push_str(rest);
        all
    }

    fn reference(&self, reference: &str) -> String {
        let elsewhere = reference.starts_with("//")
            || reference
                .split(['/', '?', '#'])
                .next()
                .is_some_and(|first| first.contains(':'));
        if elsewhere {
            return reference.to_owned();
        }
        let below = match reference.starts_with('/') {
            true => reference
                .strip_prefix(self.root.as_str())
                .and_then(|path| path.strip_prefix("/v2/")),
            false => None,
        };
        match (&self.named, below) {
            (Named::InPath(name), Some(below)) => format!("/v2/{name}/{below}"),
            (Named::ByNs(ns), Some(below)) => with_ns(&format!("/v2/{below}"), ns),
            (Named::Not, Some(below)) => format!("/v2/{below}"),
            (Named::ByNs(ns), None) if !reference.starts_with('/') => with_ns(reference, ns),
            _ => reference.to_owned(),
        }
    }
}

fn with_ns(reference: &str, ns: &str) -> String {
    let (reference, fragment) = match reference.split_once('#') {
        Some((reference, fragment)) => (reference, format!("#{fragment}")),
        None => (reference, String::new()),
    };
    let sign = match reference.contains('?') {
        true => '&',
        false => '?',
    };
    format!("{reference}{sign}{ns}{fragment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(named: Named, root: &str, name: &'static str, value: &'static str) -> String {
        let root = root.to_owned();
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        View { named, root }.put(&mut headers);
        headers[name].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_client_comes_back_to_the_registry_that_it_named() {
        let path = || Named::InPath("hub.example:5000".to_owned());
        let ns = || Named::ByNs("ns=hub.example".to_owned());
        let next = "</v2/a/tags/list?last=b&n=1>; rel=\"next\"";
        for (named, root, value, ours) in [
            (
                path(),
                "",
                next,
                "</v2/hub.example:5000/a/tags/list?last=b&n=1>; rel=\"next\"",
            ),
            (
                ns(),
                "",
                next,
                "</v2/a/tags/list?last=b&n=1&ns=hub.example>; rel=\"next\"",
            ),
            (Named::Not, "", next, next),
            (
                path(),
                "/sub",
                "</sub/v2/a/b>; rel=x, <https://other.example/v2/c>; rel=y",
                "</v2/hub.example:5000/a/b>; rel=x, <https://other.example/v2/c>; rel=y",
            ),
            (Named::Not, "/sub", "</sub/v2/a/b>", "</v2/a/b>"),
            // They are relative to what was asked for, whichever way that was named.
            (path(), "", "<list?last=b>", "<list?last=b>"),
            (ns(), "", "<?last=b>", "<?last=b&ns=hub.example>"),
            (path(), "", "</page>", "</page>"),
            (path(), "", "no link <", "no link <"),
        ] {
            assert_eq!(seen(named, root, "link", value), ours);
        }
        assert_eq!(
            seen(path(), "", "location", "/v2/a/blobs/uploads/1?x=y"),
            "/v2/hub.example:5000/a/blobs/uploads/1?x=y"
        );
        for elsewhere in ["https://hub.example/v2/a", "//hub.example/v2/a", "urn:x"] {
            assert_eq!(seen(path(), "", "location", elsewhere), elsewhere);
        }
    }
}
