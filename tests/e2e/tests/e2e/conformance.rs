//! The mirror answers as the registry behind it does: the pull part of the distribution
//! specification, request by request, and what else clients send.

use std::{collections::BTreeMap, net::SocketAddr};

use pantala_e2e::{
    Answer, Content, Dfdaemon, Image, MIB, Need, Process, Registry, ask, needs, skopeo,
};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// As dockerd sends them: a line each.
const SIX: [(&str, &str); 6] = [
    ("Accept", DOCKER_MANIFEST),
    ("Accept", DOCKER_LIST),
    ("Accept", OCI_INDEX),
    ("Accept", OCI_MANIFEST),
    (
        "Accept",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ),
    ("Accept", "application/json"),
];

/// What is the same in both answers, where it is there at all.
const SAME: [&str; 12] = [
    "content-type",
    "content-length",
    "content-range",
    "docker-content-digest",
    "docker-distribution-api-version",
    "etag",
    "cache-control",
    "link",
    "location",
    "www-authenticate",
    "allow",
    "docker-upload-uuid",
];

/// A registry and a mirror of it, asked the same.
struct Both {
    registry: Registry,
    mirror: Dfdaemon,
    image: Image,
}

impl Both {
    fn start(seed: u64) -> Self {
        let registry = Registry::start();
        let image = Image::new(seed, &[3 * MIB + 7, 5_000]);
        registry.push(&image, "team/app:v1");
        let mirror = Dfdaemon::start_alone(&["--mirror", &registry.url()]);
        Self {
            registry,
            mirror,
            image,
        }
    }

    /// Both answer alike, also the second time: then the mirror has it in memory.
    #[track_caller]
    fn same(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let expected = ask(self.registry.addr(), method, target, headers, b"");
        for time in ["first", "second"] {
            let got = ask(self.mirror.addr(), method, target, headers, b"");
            let what = format!("{method} {target} {headers:?}, the {time} time");
            compare(&what, &expected, &got);
        }
        expected
    }

    /// Both answer alike, or the mirror gives what was asked for by its digest though the registry
    /// does not: it has come by before, and its name is all that counts.
    #[track_caller]
    fn same_or_named(&self, method: &str, target: &str, headers: &[(&str, &str)]) {
        let expected = ask(self.registry.addr(), method, target, headers, b"");
        let got = ask(self.mirror.addr(), method, target, headers, b"");
        let what = format!("{method} {target} {headers:?}");
        if (expected.status, got.status) != (404, 200) {
            return compare(&what, &expected, &got);
        }
        let (_, digest) = target.split_once("sha256:").expect("a digest");
        let named = format!("sha256:{digest}");
        assert_eq!(got.header("docker-content-digest"), Some(named.as_str()));
        if method == "GET" {
            assert_eq!(Content::of(got.body).sha256(), digest, "{what}");
        }
    }

    #[track_caller]
    fn same_status(&self, status: u16, method: &str, target: &str, headers: &[(&str, &str)]) {
        let answer = self.same(method, target, headers);
        assert_eq!(answer.status, status, "{method} {target} {headers:?}");
    }

    fn put_manifest(&self, reference: &str, media_type: &str, manifest: &[u8]) {
        let target = format!("/v2/team/app/manifests/{reference}");
        let headers = [("Content-Type", media_type)];
        let done = ask(self.registry.addr(), "PUT", &target, &headers, manifest);
        assert_eq!(done.status, 201, "{}", done.text());
    }
}

#[track_caller]
fn compare(what: &str, expected: &Answer, got: &Answer) {
    if expected.status == 416 {
        // The registry's own such answers are cut short: they announce the blob's length.
        assert_eq!(got.status, 416, "{what}");
        assert!(got.whole || !expected.whole, "{what}");
        let range = "content-range";
        assert_eq!(got.header(range), expected.header(range), "{what}");
        return;
    }
    let shown = |answer: &Answer| {
        let headers: BTreeMap<&str, Vec<&str>> = SAME
            .iter()
            .map(|name| (*name, answer.all(name)))
            .filter(|(_, values)| !values.is_empty())
            .collect();
        format!("{} {headers:#?}", answer.status)
    };
    assert_eq!(shown(got), shown(expected), "{what}: {}", got.text());
    let (got, expected) = (&got.body, Content::of(expected.body.clone()));
    assert_eq!(
        got.len() as u64,
        expected.len(),
        "{what}: the body's length"
    );
    expected.assert_bytes(got);
}

#[test]
fn the_version_is_told() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let both = Both::start(400);
    both.same_status(200, "GET", "/v2/", &[]);
    both.same_status(200, "HEAD", "/v2/", &[]);
    both.same("GET", "/v2", &[]);
}

#[test]
fn manifests_are_told_by_tag_and_digest() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let both = Both::start(410);
    let manifest = both.image.manifest();
    let digest = format!("sha256:{}", manifest.sha256());
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":{},"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#,
        manifest.len()
    );
    both.put_manifest("index", OCI_INDEX, index.as_bytes());
    let list = index.replace(OCI_INDEX, DOCKER_LIST);
    both.put_manifest("list", DOCKER_LIST, list.as_bytes());
    let mut convert = skopeo();
    convert
        .args(["copy", "--format", "v2s2"])
        .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
        .arg(format!("docker://{}/team/app:v1", both.registry.addr()))
        .arg(format!("docker://{}/team/app:docker", both.registry.addr()));
    let done = Process::start("skopeo", convert).wait();
    assert_eq!(done.code, 0, "{}", done.stderr);

    let nothing = Content::new(1, 1);
    let by_digest = |content: &[u8]| format!("sha256:{}", Content::of(content.to_vec()).sha256());
    let references = [
        ("v1".to_owned(), 200),
        ("docker".to_owned(), 200),
        ("index".to_owned(), 200),
        ("list".to_owned(), 200),
        ("none".to_owned(), 404),
        (digest.clone(), 200),
        (by_digest(index.as_bytes()), 200),
        (by_digest(list.as_bytes()), 200),
        (format!("sha256:{}", nothing.sha256()), 404),
    ];
    let all = format!("{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_INDEX}, {OCI_MANIFEST}");
    let accepts: [&[(&str, &str)]; 6] = [
        &SIX,
        &[("Accept", &all)],
        &[("Accept", "*/*")],
        &[("Accept", OCI_MANIFEST)],
        &[("Accept", DOCKER_MANIFEST)],
        &[("Accept", OCI_INDEX), ("Accept", OCI_MANIFEST)],
    ];
    for (reference, status) in &references {
        let target = format!("/v2/team/app/manifests/{reference}");
        for method in ["HEAD", "GET"] {
            both.same_status(*status, method, &target, &SIX);
            for accept in accepts {
                if reference.contains(':') && *status == 200 {
                    both.same_or_named(method, &target, accept);
                } else {
                    both.same(method, &target, accept);
                }
            }
        }
    }
    // Without a word on what is accepted registries convert, or refuse.
    for reference in ["v1", "docker", "index"] {
        both.same("GET", &format!("/v2/team/app/manifests/{reference}"), &[]);
    }
    let target = format!("/v2/team/app/manifests/{digest}");
    let etag = format!("\"{digest}\"");
    let same = [SIX.as_slice(), &[("If-None-Match", &etag)]].concat();
    let other = [SIX.as_slice(), &[("If-None-Match", "\"x\"")]].concat();
    let by_tag = "/v2/team/app/manifests/v1";
    both.same_status(304, "GET", by_tag, &same);
    both.same_status(200, "GET", by_tag, &other);
    both.same_status(200, "GET", &target, &other);
    // The registry leaves out of this one what the protocol wants in it: the tag itself.
    let unchanged = ask(both.mirror.addr(), "GET", &target, &same, b"");
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    assert_eq!(unchanged.header("etag"), Some(etag.as_str()));
    for nonsense in ["sha256:12", "md5:00", "-x", "a:b", "sha256:", "%20"] {
        let target = format!("/v2/team/app/manifests/{nonsense}");
        both.same("GET", &target, &SIX);
        both.same("HEAD", &target, &SIX);
    }
}

#[test]
fn blobs_are_told_by_digest() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let both = Both::start(420);
    let blob = |content: &Content| format!("/v2/team/app/blobs/sha256:{}", content.sha256());
    for content in both.image.blobs() {
        both.same_status(200, "HEAD", &blob(content), &[]);
        both.same_status(200, "GET", &blob(content), &[]);
        both.same_status(200, "HEAD", &blob(content), &[]);
        both.same("GET", &blob(content), &[("Accept-Encoding", "gzip")]);
        both.same("GET", &blob(content), &[("Accept", "application/json")]);
    }
    let escaped = blob(&both.image.blobs()[0]).replace(':', "%3A");
    both.same_status(200, "GET", &escaped, &[]);
    both.same_status(200, "GET", &escaped.replace("%3A", "%3a"), &[]);
    let nothing = Content::new(1, 1);
    for method in ["GET", "HEAD"] {
        both.same_status(404, method, &blob(&nothing), &[]);
        for nonsense in ["sha256:12", "sha256:", "md5:00", "sha256", "sha512:12"] {
            both.same(method, &format!("/v2/team/app/blobs/{nonsense}"), &[]);
        }
    }
    // What everybody may have is the same in every repository.
    let known = both.image.blobs()[0].sha256();
    let elsewhere = format!("/v2/team/other/blobs/sha256:{known}");
    both.same_or_named("GET", &elsewhere, &[]);
    both.same_or_named("HEAD", &elsewhere, &[]);
}

#[test]
fn parts_of_blobs_are_told() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let both = Both::start(430);
    let content = &both.image.blobs()[0];
    let target = format!("/v2/team/app/blobs/sha256:{}", content.sha256());
    let len = content.len();
    let ranges = [
        ("bytes=0-0".to_owned(), 206),
        ("bytes=0-99".to_owned(), 206),
        ("bytes=1048570-2097160".to_owned(), 206),
        ("bytes=-1".to_owned(), 206),
        ("bytes=-70000".to_owned(), 206),
        (format!("bytes=-{}", len + 5), 206),
        ("bytes=1048577-".to_owned(), 206),
        (format!("bytes={}-", len - 1), 206),
        (format!("bytes=0-{}", len - 1), 206),
        (format!("bytes=5-{}", len + 100), 206),
        (format!("bytes={len}-"), 416),
        (format!("bytes={}-{}", len + 5, len + 9), 416),
    ];
    for (range, status) in &ranges {
        both.same_status(*status, "GET", &target, &[("Range", range)]);
    }
    let beyond = ("Range", ranges[10].0.as_str());
    let refused = ask(both.mirror.addr(), "GET", &target, &[beyond], b"");
    assert!(refused.whole, "{refused:?}");
    let etag = format!("\"sha256:{}\"", content.sha256());
    let part = ("Range", "bytes=10-19");
    both.same_status(206, "GET", &target, &[part, ("If-Range", &etag)]);
    both.same_status(200, "GET", &target, &[part, ("If-Range", "\"x\"")]);
    both.same_status(304, "GET", &target, &[("If-None-Match", &etag)]);
    both.same_status(304, "HEAD", &target, &[("If-None-Match", &etag)]);
    both.same_status(304, "GET", &target, &[("If-None-Match", "*")]);
    both.same_status(200, "GET", &target, &[("If-None-Match", "\"x\"")]);
}

#[test]
fn odd_ranges_are_answered_alike() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let both = Both::start(435);
    let content = &both.image.blobs()[0];
    let target = format!("/v2/team/app/blobs/sha256:{}", content.sha256());
    for range in ["bytes=9-3", "bytes=", "bytes=a-b", "lines=1-2", "bytes=-"] {
        both.same("GET", &target, &[("Range", range)]);
    }
    // The last no bytes: the registry sends a part that ends before it begins.
    for _ in 0..2 {
        let none = [("Range", "bytes=-0")];
        let none = ask(both.mirror.addr(), "GET", &target, &none, b"");
        assert!(matches!(none.status, 206 | 416), "{none:?}");
    }
    // A range means something to GET alone (RFC 9110, 14.2), whatever this registry makes of it.
    let whole = both.same("HEAD", &target, &[]);
    for range in ["bytes=0-9".to_owned(), format!("bytes={}-", content.len())] {
        let got = ask(
            both.mirror.addr(),
            "HEAD",
            &target,
            &[("Range", &range)],
            b"",
        );
        compare(&range, &whole, &got);
    }
}

#[test]
fn tags_are_listed_page_by_page() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let both = Both::start(440);
    for tag in ["a", "b", "c", "v2"] {
        both.put_manifest(tag, OCI_MANIFEST, both.image.manifest().bytes());
    }
    let mut target = "/v2/team/app/tags/list?n=2".to_owned();
    both.same_status(200, "GET", "/v2/team/app/tags/list", &[]);
    both.same_status(200, "GET", "/v2/team/app/tags/list?n=2&last=b", &[]);
    both.same("GET", "/v2/team/app/tags/list?n=0", &[]);
    both.same("GET", "/v2/team/app/tags/list?n=x", &[]);
    both.same("GET", "/v2/team/app/tags/list?last=%61", &[]);
    both.same_status(404, "GET", "/v2/team/none/tags/list", &[]);
    both.same_status(200, "GET", "/v2/_catalog", &[]);
    // The registry says where the next page is, and that leads through the mirror again.
    for _ in 0..5 {
        let page = both.same("GET", &target, &[]);
        let Some(link) = page.header("link") else {
            return;
        };
        let inner = link.split(['<', '>']).nth(1).unwrap_or_default();
        assert!(inner.starts_with('/'), "{link}");
        target = inner.to_owned();
    }
}

#[test]
fn what_is_unknown_is_told_alike() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let both = Both::start(450);
    let digest = format!("sha256:{}", both.image.manifest().sha256());
    let code = |target: &str, code: &str| {
        let answer = both.same("GET", target, &SIX);
        assert_eq!(answer.status, 404);
        assert!(answer.text().contains(code), "{}", answer.text());
    };
    code("/v2/team/none/manifests/v1", "MANIFEST_UNKNOWN");
    code("/v2/team/app/manifests/none", "MANIFEST_UNKNOWN");
    code(
        &format!("/v2/team/none/manifests/{digest}"),
        "MANIFEST_UNKNOWN",
    );
    let nothing = Content::new(1, 1);
    let blob = format!("/v2/team/app/blobs/sha256:{}", nothing.sha256());
    code(&blob, "BLOB_UNKNOWN");
    code("/v2/team/none/tags/list", "NAME_UNKNOWN");
    for target in [
        format!("/v2/team/app/referrers/{digest}"),
        format!("/v2/team/app/referrers/{digest}?artifactType=application/x"),
        "/v2/TEAM/App/manifests/v1".to_owned(),
        "/v2/a..b/manifests/v1".to_owned(),
        "/v2/team/app/manifests/".to_owned(),
        "/v2//manifests/v1".to_owned(),
        "/v2/team//app/manifests/v1".to_owned(),
        "/v2/team%2Fapp/manifests/v1".to_owned(),
        "/v2/team/app/manifests/v%31".to_owned(),
        "/v2/team/%61pp/manifests/v1".to_owned(),
        format!("/v2/team/app%2fblobs/{digest}"),
        "/v2/team/app/manifests/v1?x=%20&y=a%2Bb+c".to_owned(),
        "/v2/team/app/unknown".to_owned(),
        "/v2/caf%C3%A9/manifests/v1".to_owned(),
        "/v2/team/app/manifests/v1%00".to_owned(),
        "/v2/team/app/manifests/%".to_owned(),
        "/v2/team/app/manifests/a|b^c".to_owned(),
    ] {
        for method in ["GET", "HEAD"] {
            both.same(method, &target, &SIX);
        }
    }
    // The registry redirects from these to where the mirror asks at once.
    for detour in [
        "/v2/team/./app/manifests/v1",
        "/v2/team/../team/app/manifests/v1",
    ] {
        let straight = both.same("GET", "/v2/team/app/manifests/v1", &SIX);
        let got = ask(both.mirror.addr(), "GET", detour, &SIX, b"");
        compare(detour, &straight, &got);
    }
    for method in ["POST", "PUT", "PATCH", "OPTIONS"] {
        both.same(method, "/v2/team/app/tags/list", &[]);
    }
}

#[test]
fn what_changes_the_registry_is_passed_on() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let both = Both::start(460);
    let image = Image::new(470, &[2 * MIB, 100]);
    Registry::push_to(both.mirror.addr(), &image, "pushed/app:v1", &[]);
    let directory = tempfile::tempdir().unwrap();
    let from = both.registry.addr();
    let done = Registry::start_pull(from, "pushed/app:v1", directory.path()).wait();
    assert_eq!(done.code, 0, "{}", done.stderr);
    image.assert_pulled(directory.path());

    let manifest = format!(
        "/v2/pushed/app/manifests/sha256:{}",
        image.manifest().sha256()
    );
    let blob = format!("/v2/pushed/app/blobs/sha256:{}", image.blobs()[0].sha256());
    let status =
        |addr: SocketAddr, method: &str, target: &str| ask(addr, method, target, &SIX, b"").status;
    let mirror = both.mirror.addr();
    assert_eq!(status(mirror, "DELETE", &blob), 202);
    assert_eq!(status(both.registry.addr(), "GET", &blob), 404);
    assert_eq!(status(mirror, "DELETE", &blob), 404);
    assert_eq!(status(mirror, "DELETE", &manifest), 202);
    assert_eq!(status(both.registry.addr(), "GET", &manifest), 404);
    assert_eq!(status(mirror, "GET", "/v2/pushed/app/manifests/v1"), 404);
    // An upload by hand: its place, its state, its end.
    let begun = ask(mirror, "POST", "/v2/pushed/app/blobs/uploads/", &[], b"");
    assert_eq!(begun.status, 202, "{}", begun.text());
    let location = begun.header("location").unwrap_or_default();
    let place = location.split_once("/v2/").map_or("", |(_, rest)| rest);
    assert!(!place.is_empty(), "{begun:?}");
    let content = Content::new(480, 300_000);
    let target = format!("/v2/{place}&digest=sha256:{}", content.sha256());
    let ended = ask(mirror, "PUT", &target, &[], content.bytes());
    assert_eq!(ended.status, 201, "{}", ended.text());
    let target = format!("/v2/pushed/app/blobs/sha256:{}", content.sha256());
    both.same_status(200, "GET", &target, &[]);
}
