//! Where a URL leads, as far as one origin's word on it holds: names only, nothing is asked here.

use url::Url;

/// What one decision of an origin covers: a repository of a registry, or else the origin as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Scheme, host and port, and the path before a registry's API.
    pub origin: String,
    /// The registry's repository, where the URL is one of a registry's API.
    pub repository: Option<String>,
}

impl Place {
    /// The place of a URL.
    pub fn of(url: &Url) -> Self {
        let mut origin = url.origin().ascii_serialization();
        let found = repository(url.path());
        if let Some((prefix, _)) = found {
            origin.push_str(prefix);
        }
        Self {
            origin,
            repository: found.map(|(_, repository)| repository.to_owned()),
        }
    }
}

/// The repository in the path of a registry's API, and the path before the API.
fn repository(path: &str) -> Option<(&str, &str)> {
    let (prefix, rest) = path.split_once("/v2/")?;
    let ends = ["/blobs/", "/manifests/", "/tags/", "/referrers/"];
    let end = ends.iter().filter_map(|end| rest.rfind(end)).max()?;
    Some((prefix, rest.get(..end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_a_place_of_its_own() {
        for (url, origin, repository) in [
            (
                "https://R.example:443/v2/a/b/blobs/sha256:x",
                "https://r.example",
                Some("a/b"),
            ),
            (
                "http://r.example/v2/blobs/blobs/blobs/sha256:x",
                "http://r.example",
                Some("blobs/blobs"),
            ),
            (
                "http://r.example:5000/v2/a/manifests/latest",
                "http://r.example:5000",
                Some("a"),
            ),
            (
                "http://me:pw@r.example/mirror/v2/a/tags/list",
                "http://r.example/mirror",
                Some("a"),
            ),
            ("http://r.example/v2/", "http://r.example", None),
            ("http://r.example/files/a", "http://r.example", None),
        ] {
            let place = Place::of(&url.parse().unwrap());
            assert_eq!(
                (place.origin.as_str(), place.repository.as_deref()),
                (origin, repository),
                "{url}"
            );
        }
    }
}
