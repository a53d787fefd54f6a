//! Which registry a request of the mirror is for.
//!
//! Clients say so in one of three ways: with `ns=NAME` (containerd), with the registry's name as
//! the first part of the repository's path (whoever takes a mirror with a path: podman, skopeo,
//! buildah, CRI-O), or not at all (dockerd).

use pantala_core::ContentDigest;
use pantala_origin::is_loopback;
use url::Url;

use crate::named::{Named, View};

/// A registry under the name that clients call it by.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// `registry.example` or `registry.example:5000`, lower-case.
    pub name: String,
    /// Where it is.
    pub url: Url,
}

/// All registries that are mirrored.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    /// For clients that name none. Alone it stands for every name.
    mirror: Option<Url>,
    named: Vec<Upstream>,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub url: Url,
    pub what: What,
    /// How the client sees the paths there.
    pub view: View,
    /// Whether the operator has named it.
    pub set_up: bool,
}

/// What a path of the distribution API names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A blob, or a manifest, by its digest: the same bytes for ever.
    Named(ContentDigest, Kind),
    /// A manifest by its tag.
    Tag,
    /// Anything else.
    Other,
}

/// Of which kind a named content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Blob,
    Manifest,
}

impl Upstreams {
    pub fn new(mirror: Option<Url>, named: Vec<Upstream>) -> Self {
        Self { mirror, named }
    }

    /// Where a request for `path`, which begins with `/v2`, goes; with `anywhere` also to
    /// registries of which nobody here has said anything. `None` when none is meant.
    pub fn find(&self, path: &str, query: Option<&str>, anywhere: bool) -> Option<Destination> {
        let set_up = |url| Base { url, set_up: true };
        let by_name = |name: &str| {
            let url = anywhere.then(|| by_name(name)).flatten()?;
            let set_up = false;
            Some(Base { url, set_up })
        };
        let Query { ns, pair, rest } = without_ns(query);
        if let Some(ns) = &ns {
            let base = self
                .named(ns)
                .or_else(|| self.alone())
                .map(set_up)
                .or_else(|| by_name(ns))?;
            return destination(&base, path, &rest, Named::ByNs(pair));
        }
        let prefixed = path
            .strip_prefix("/v2/")
            .and_then(|path| path.split_once('/'));
        if let Some((first, inner)) = prefixed {
            let base = self.named(first).map(set_up).or_else(|| {
                // Without a registry for all, what looks like a host's name is one.
                (self.mirror.is_none() && is_host(first))
                    .then(|| by_name(first))
                    .flatten()
            });
            if let Some(base) = base {
                let named = Named::InPath(first.to_owned());
                return destination(&base, &format!("/v2/{inner}"), &rest, named);
            }
        }
        let base = set_up(self.mirror.clone()?);
        destination(&base, path, &rest, Named::Not)
    }

    fn named(&self, name: &str) -> Option<Url> {
        let of_name = |upstream: &&Upstream| upstream.name.eq_ignore_ascii_case(name);
        self.named
            .iter()
            .find(of_name)
            .map(|found| found.url.clone())
    }

    fn alone(&self) -> Option<Url> {
        self.mirror.clone().filter(|_| self.named.is_empty())
    }
}

/// Where a registry is of which only the name is known: behind HTTPS. What stands on this host
/// itself is meant by nobody who did not set it up here.
fn by_name(name: &str) -> Option<Url> {
    let name = match name.to_ascii_lowercase().as_str() {
        // Under this name are the pages of a company; every client knows where its registry is.
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        _ => name,
    };
    let url: Url = format!("https://{name}/").parse().ok()?;
    let sound = url.path() == "/" && url.query().is_none() && url.username().is_empty();
    (sound && !is_loopback(&url)).then_some(url)
}

/// What clients take for a registry's name in front of a repository.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// A query, apart from what it says to mirrors alone.
struct Query {
    /// The value of `ns=`.
    ns: Option<String>,
    /// The whole parameter, as it came.
    pair: String,
    /// The query for the registry.
    rest: String,
}

/// Takes the `ns=` parameter out of a query.
fn without_ns(query: Option<&str>) -> Query {
    let pairs = query
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty());
    let (ns, rest): (Vec<&str>, Vec<&str>) =
        pairs.partition(|pair| *pair == "ns" || pair.starts_with("ns="));
    let pair = ns.first().copied().unwrap_or_default();
    let value = url::form_urlencoded::parse(pair.as_bytes()).next();
    let ns = value.and_then(|(_, value)| (!value.is_empty()).then(|| value.into_owned()));
    Query {
        ns,
        pair: pair.to_owned(),
        rest: rest.join("&"),
    }
}

/// The address of a registry.
struct Base {
    url: Url,
    /// Whether the operator has named it.
    set_up: bool,
}

/// The upstream's URL for a path of ours. `None` when the path goes up and out of the upstream's
/// own (`..` is resolved as the upstream would).
fn destination(base: &Base, path: &str, query: &str, named: Named) -> Option<Destination> {
    let mut url = base.url.clone();
    let root = base.url.path().trim_end_matches('/');
    url.set_path(&format!("{root}{path}"));
    url.set_query((!query.is_empty()).then_some(query));
    let path = url.path().strip_prefix(root)?;
    if path != "/v2" && !path.starts_with("/v2/") {
        return None;
    }
    let what = what(path);
    let view = View {
        named,
        root: root.to_owned(),
    };
    Some(Destination {
        url,
        what,
        view,
        set_up: base.set_up,
    })
}

/// What a path of the distribution API names.
pub(crate) fn what(path: &str) -> What {
    let named = |kind: &str| {
        let (name, reference) = path.strip_prefix("/v2/")?.rsplit_once(kind)?;
        (!name.is_empty() && !reference.is_empty() && !reference.contains('/')).then_some(reference)
    };
    // Digests are written with a colon, or with its escape.
    let digest = |reference: &str| reference.replacen("%3A", ":", 1).parse().ok();
    if let Some(reference) = named("/blobs/") {
        return digest(reference).map_or(What::Other, |digest| What::Named(digest, Kind::Blob));
    }
    if let Some(reference) = named("/manifests/") {
        if let Some(digest) = digest(reference) {
            return What::Named(digest, Kind::Manifest);
        }
        // A digest that cannot be checked is the registry's to answer for.
        return match reference.contains(':') {
            true => What::Other,
            false => What::Tag,
        };
    }
    What::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn upstreams(mirror: Option<&str>, named: &[(&str, &str)]) -> Upstreams {
        let named = named.iter().map(|(name, url)| Upstream {
            name: (*name).to_owned(),
            url: url.parse().unwrap(),
        });
        Upstreams::new(mirror.map(|url| url.parse().unwrap()), named.collect())
    }

    fn goes(upstreams: &Upstreams, path: &str, query: Option<&str>) -> Option<String> {
        let found = upstreams.find(path, query, true)?;
        Some(found.url.to_string())
    }

    #[test]
    fn contents_are_told_from_everything_else() {
        for name in ["a", "library/a", "a/blobs/b"] {
            for colon in [":", "%3A"] {
                let blob = what(&format!("/v2/{name}/blobs/sha256{colon}{HEX}"));
                assert!(matches!(blob, What::Named(_, Kind::Blob)), "{blob:?}");
                let manifest = what(&format!("/v2/{name}/manifests/sha256{colon}{HEX}"));
                assert!(matches!(manifest, What::Named(_, Kind::Manifest)));
            }
            assert_eq!(what(&format!("/v2/{name}/manifests/v1.2")), What::Tag);
        }
        for other in [
            "/v2/".to_owned(),
            "/v2/a/blobs/uploads/".to_owned(),
            "/v2/a/blobs/sha256:12".to_owned(),
            "/v2/a/manifests/md5:12".to_owned(),
            "/v2/a/tags/list".to_owned(),
            format!("/v2/a/referrers/sha256:{HEX}"),
            format!("/v2//blobs/sha256:{HEX}"),
            format!("/v2/a/blobs/sha256:{HEX}/x"),
        ] {
            assert_eq!(what(&other), What::Other, "{other}");
        }
    }

    #[test]
    fn the_registry_is_named_by_ns_or_path_or_not_at_all() {
        let many = upstreams(
            Some("https://registry.example"),
            &[("hub.example", "https://registry-1.hub.example/sub/")],
        );
        for (path, query, url) in [
            (
                "/v2/a/tags/list",
                Some("ns=hub.example&n=3&last=a%2Fb"),
                "https://registry-1.hub.example/sub/v2/a/tags/list?n=3&last=a%2Fb",
            ),
            (
                "/v2/hub.example/a/tags/list",
                None,
                "https://registry-1.hub.example/sub/v2/a/tags/list",
            ),
            (
                "/v2/a/tags/list",
                None,
                "https://registry.example/v2/a/tags/list",
            ),
            // A repository may be called so.
            (
                "/v2/my.team/a/tags/list",
                None,
                "https://registry.example/v2/my.team/a/tags/list",
            ),
            (
                "/v2/a/b",
                Some("ns=other.example%3A5000"),
                "https://other.example:5000/v2/a/b",
            ),
        ] {
            assert_eq!(
                goes(&many, path, query).as_deref(),
                Some(url),
                "{path} {query:?}"
            );
        }
        for up in [
            "/v2/../a",
            "/v2/a/../../x",
            "/v2/%2E%2e/a",
            "/v2/../../v2/a",
        ] {
            assert_eq!(goes(&many, up, Some("ns=hub.example")), None, "{up}");
        }
        for nonsense in ["ns=a/b", "ns=a@b", "ns=%00"] {
            assert_eq!(goes(&many, "/v2/", Some(nonsense)), None, "{nonsense}");
        }
    }

    #[test]
    fn services_of_this_host_are_not_found_by_name() {
        let none = upstreams(None, &[]);
        let set_up = upstreams(None, &[("localhost:5000", "http://localhost:5000")]);
        for name in [
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1:5000",
            "[::1]:5000",
            "0.0.0.0:5000",
            "[::ffff:127.0.0.1]:5000",
            "localhost.:5000",
            "x.localhost:5000",
        ] {
            let ns = format!("ns={name}");
            assert_eq!(goes(&none, "/v2/a/tags/list", Some(&ns)), None, "{name}");
            let path = format!("/v2/{name}/a/tags/list");
            assert_eq!(goes(&none, &path, None), None, "{name}");
        }
        let found = goes(&set_up, "/v2/a/tags/list", Some("ns=localhost:5000"));
        assert_eq!(
            found.as_deref(),
            Some("http://localhost:5000/v2/a/tags/list")
        );
    }

    #[test]
    fn one_mirror_alone_stands_for_every_name() {
        let one = upstreams(Some("http://registry.example:5000"), &[]);
        assert!(one.find("/v2/", Some("ns=hub.example"), false).is_some());
        let url = Some("http://registry.example:5000/v2/".to_owned());
        assert_eq!(goes(&one, "/v2/", Some("ns=hub.example")), url);
        assert_eq!(goes(&one, "/v2/", None), url);
    }

    #[test]
    fn without_a_mirror_names_speak_for_themselves() {
        let none = upstreams(None, &[]);
        assert_eq!(
            goes(&none, "/v2/hub.example/a/tags/list", None).as_deref(),
            Some("https://hub.example/v2/a/tags/list")
        );
        assert_eq!(goes(&none, "/v2/a/tags/list", None), None);
        // Unless whoever asks may not go anywhere.
        assert_eq!(none.find("/v2/hub.example/a/tags/list", None, false), None);
        assert_eq!(none.find("/v2/a/b", Some("ns=hub.example"), false), None);
        assert_eq!(goes(&none, "/v2/", None), None);
    }

    #[test]
    fn docker_io_is_where_every_client_looks_for_it() {
        let hub = "https://registry-1.docker.io/v2/library/a/tags/list";
        for (mirror, path, query) in [
            (None, "/v2/library/a/tags/list", Some("ns=docker.io")),
            (None, "/v2/docker.io/library/a/tags/list", None),
            (None, "/v2/Index.Docker.io/library/a/tags/list", None),
        ] {
            let found = goes(&upstreams(mirror, &[]), path, query);
            assert_eq!(found.as_deref(), Some(hub), "{path} {query:?}");
        }
        let own = upstreams(None, &[("docker.io", "https://hub.example")]);
        assert_eq!(
            goes(&own, "/v2/", Some("ns=docker.io")).as_deref(),
            Some("https://hub.example/v2/")
        );
    }
}
