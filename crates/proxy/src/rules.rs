//! What happens to which requests of the HTTP proxy.

use globset::{Glob, GlobMatcher};
use url::Url;

use crate::names;

/// One rule: the first whose patterns match a request counts.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Which hosts, lower-case.
    pub host: Glob,
    /// Which paths, without query.
    pub path: Glob,
    /// What happens.
    pub action: Action,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Through the swarm, whatever it is.
    Stream,
    /// Straight to where it says.
    Direct,
    /// The same path of another host.
    Redirect(Url),
    /// 403.
    Refuse,
}

/// How a GET is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the swarm, whatever its type.
    Stream,
    /// Through the swarm, unless the answer turns out to be a page.
    UnlessPage,
    /// Straight from the origin.
    Direct,
}

/// What the rules say of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go(Way, Url),
    Refused,
}

#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<(GlobMatcher, GlobMatcher, Action)>,
}

impl Rules {
    pub fn new(rules: &[Rule]) -> Self {
        let compiled = rules.iter().map(|rule| {
            (
                names::of_hosts(&rule.host).compile_matcher(),
                names::of_paths(&rule.path).compile_matcher(),
                rule.action.clone(),
            )
        });
        Self {
            rules: compiled.collect(),
        }
    }

    /// What happens to a request for `url`.
    pub fn judge(&self, url: Url) -> Verdict {
        let host = names::host_of(&url);
        // What the server may take for something that is refused is refused as well.
        if self.find(&host, &names::lenient_path(url.path())) == Some(&Action::Refuse) {
            return Verdict::Refused;
        }
        let found = self.find(&host, &names::path(url.path()));
        let action = match found {
            Some(action) => action,
            None if looks_like_content(url.path()) => return Verdict::Go(Way::Stream, url),
            None => return Verdict::Go(Way::UnlessPage, url),
        };
        match action {
            Action::Stream => Verdict::Go(Way::Stream, url),
            Action::Direct => Verdict::Go(Way::Direct, url),
            Action::Refuse => Verdict::Refused,
            Action::Redirect(to) => {
                let mut there = to.clone();
                let root = to.path().trim_end_matches('/');
                there.set_path(&format!("{root}{}", url.path()));
                there.set_query(url.query());
                let way = match looks_like_content(there.path()) {
                    true => Way::Stream,
                    false => Way::UnlessPage,
                };
                Verdict::Go(way, there)
            }
        }
    }

    /// The action of the first rule that matches. Host and path are spelled as in [`names`].
    fn find(&self, host: &str, path: &str) -> Option<&Action> {
        let matches = |(hosts, paths, _): &&(GlobMatcher, GlobMatcher, Action)| {
            hosts.is_match(host) && paths.is_match(path)
        };
        self.rules.iter().find(matches).map(|(_, _, action)| action)
    }

    /// Whether everything of a host is refused, so that not even a tunnel leads there.
    pub fn refuses_host(&self, host: &str) -> bool {
        let host = names::host(host);
        let of_host = |(hosts, paths, _): &&(GlobMatcher, GlobMatcher, Action)| {
            hosts.is_match(&host) && paths.glob().glob() == "/**"
        };
        let found = self.rules.iter().find(of_host);
        found.is_some_and(|(_, _, action)| *action == Action::Refuse)
    }
}

/// Whether a path is one of content: packages, archives, weights, what is named by its digest.
/// Never by the host's name: there are mirrors of everything.
fn looks_like_content(path: &str) -> bool {
    const ENDS: [&str; 36] = [
        ".whl",
        ".tgz",
        ".deb",
        ".udeb",
        ".rpm",
        ".apk",
        ".crate",
        ".gem",
        ".jar",
        ".war",
        ".nupkg",
        ".egg",
        ".conda",
        ".zip",
        ".7z",
        ".tar",
        ".gz",
        ".bz2",
        ".xz",
        ".zst",
        ".lz4",
        ".iso",
        ".img",
        ".qcow2",
        ".vmdk",
        ".safetensors",
        ".gguf",
        ".ggml",
        ".onnx",
        ".pt",
        ".pth",
        ".ckpt",
        ".h5",
        ".parquet",
        ".bin",
        ".msi",
    ];
    let lower = path.to_ascii_lowercase();
    if lower.contains("/blobs/sha256:") || lower.contains("/blobs/sha256%3a") {
        return true;
    }
    let name = lower.rsplit('/').next().unwrap_or_default();
    // Package indexes are compressed and change under their name.
    let index = matches!(
        name.split('.').next().unwrap_or_default(),
        "packages" | "sources" | "release" | "inrelease" | "repomd" | "primary" | "filelists"
    ) || name.starts_with("contents-");
    !index
        && ENDS
            .iter()
            .any(|end| name.len() > end.len() && name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use globset::GlobBuilder;

    use super::*;

    fn rule(host: &str, path: &str, action: Action) -> Rule {
        let path = GlobBuilder::new(path).literal_separator(true).build();
        Rule {
            host: Glob::new(host).unwrap(),
            path: path.unwrap(),
            action,
        }
    }

    fn judge(rules: &Rules, url: &str) -> Verdict {
        rules.judge(url.parse().unwrap())
    }

    fn go(way: Way, url: &str) -> Verdict {
        Verdict::Go(way, url.parse().unwrap())
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = Rules::new(&[
            rule("*.models.example", "/private/**", Action::Direct),
            rule("*.models.example", "/**", Action::Stream),
            rule(
                "old.example",
                "/**",
                Action::Redirect("https://new.example/r/".parse().unwrap()),
            ),
            rule("ads.example", "/**", Action::Refuse),
            rule("half.example", "/x/*", Action::Refuse),
        ]);
        let direct = "http://a.models.example/private/a/b";
        assert_eq!(judge(&rules, direct), go(Way::Direct, direct));
        let stream = "http://A.models.example/x";
        assert_eq!(judge(&rules, stream), go(Way::Stream, stream));
        assert_eq!(
            judge(&rules, "http://old.example:8080/f.deb?x=1"),
            go(Way::Stream, "https://new.example/r/f.deb?x=1")
        );
        assert_eq!(judge(&rules, "http://ads.example/"), Verdict::Refused);
        assert_eq!(judge(&rules, "http://half.example/x/y"), Verdict::Refused);
        let deeper = "http://half.example/x/y/z";
        assert_eq!(judge(&rules, deeper), go(Way::UnlessPage, deeper));
        assert!(rules.refuses_host("ADS.example"));
        assert!(!rules.refuses_host("half.example"));
    }

    #[test]
    fn no_other_spelling_passes_a_refusal() {
        let rules = Rules::new(&[
            rule("files.example", "/public/**", Action::Stream),
            rule("files.example", "/alone", Action::Stream),
            rule("files.example", "/secret", Action::Refuse),
            rule("files.example", "/secret/**", Action::Refuse),
            rule("files.example", "/%7Eann/a b/*", Action::Refuse),
            rule("10.0.0.1", "/**", Action::Refuse),
            rule("::1", "/**", Action::Refuse),
            rule("*.bücher.example.", "/**", Action::Refuse),
            rule("ads.example", "/**", Action::Refuse),
        ]);
        for url in [
            "http://files.example/secret/x",
            "http://files.example/%73ecret/x",
            "http://files.example//secret/x",
            "http://files.example///secret//x",
            "http://files.example/secret",
            "http://files.example/secret/",
            "http://files.example/./secret/x",
            "http://files.example/a/%2e%2e/secret/x",
            "http://files.example/a/.%2E/secret/x",
            "http://files.example/public/..%2fsecret/x",
            "http://files.example/public/..;/secret/x",
            "http://files.example/secret;v=1/x",
            "http://files.example/secret;v=1",
            "http://files.example/secret%2Fx",
            "http://files.example\\secret\\x",
            "http://FILES.Example:80/secret/x",
            "http://files.example./secret/x",
            "http://user:pw@files.example/secret/x",
            "http://files.example:8080/secret/x?a#b",
            "http://files.example/~ann/a%20b/x",
            "http://files.example/%7eann/a%20b/x",
            "http://10.0.0.1/",
            "http://0x0a.0.0.1/",
            "http://167772161/",
            "http://10.1/",
            "http://[::ffff:10.0.0.1]/",
            "http://[0:0:0::1]:8080/x",
            "http://www.b%C3%BCcher.example/",
            "http://www.xn--bcher-kva.example/",
            "https://ADS.example./x",
        ] {
            assert_eq!(judge(&rules, url), Verdict::Refused, "{url}");
        }
        for url in [
            "http://files.example/public/secret",
            "http://files.example/secrets",
            "http://files.example/x?/secret/x",
            "http://ads.example@files.example/public/x",
            "http://nads.example/",
        ] {
            assert_ne!(judge(&rules, url), Verdict::Refused, "{url}");
        }
        for host in [
            "ads.example.",
            "ADS.EXAMPLE",
            "0x0a.0.0.1",
            "10.1",
            "::1",
            "[::1]",
        ] {
            assert!(rules.refuses_host(host), "{host}");
        }
    }

    #[test]
    fn what_goes_on_goes_on_as_it_was_asked() {
        let rules = Rules::new(&[rule(
            "old.example",
            "/a/**",
            Action::Redirect("https://new.example/r".parse().unwrap()),
        )]);
        let to = "https://new.example/r/%61//b%2fc;d.deb";
        let from = "http://old.example./%61//b%2fc;d.deb";
        assert_eq!(judge(&rules, from), go(Way::Stream, to));
    }

    #[test]
    fn content_is_known_by_its_shape() {
        for content in [
            "/packages/ab/cd/numpy-2.0-cp311-linux.whl",
            "/left-pad/-/left-pad-1.3.0.tgz",
            "/org/model/resolve/main/model-00001-of-00002.safetensors",
            "/pool/main/n/nginx/nginx_1.22_amd64.deb",
            "/v2/x/blobs/sha256:00",
            "/releases/v1/tool-linux.tar.GZ",
        ] {
            assert!(looks_like_content(content), "{content}");
        }
        for other in [
            "/",
            "/simple/numpy/",
            "/left-pad",
            "/dists/stable/main/Packages.gz",
            "/.bin",
            "/api/v1/status.json",
        ] {
            assert!(!looks_like_content(other), "{other}");
        }
    }
}
