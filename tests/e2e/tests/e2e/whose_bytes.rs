//! Origins that lie, protect and unprotect, and readers with other credentials or none: bytes come
//! from the origin that the reader named, and go to those readers whom that origin would serve.

use std::{
    thread,
    time::{Duration, Instant},
};

use pantala_e2e::{Content, Credentials, MIB, Page, Site, Swarm, ask, begin_get, until};

const ALICE: Credentials = ("Authorization", "Bearer alice");
const BOB: Credentials = ("Authorization", "Bearer bob");
const STRANGER: Credentials = ("Authorization", "Bearer stranger");
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn blob_path(repository: &str, content: &Content) -> String {
    format!("/v2/{repository}/blobs/sha256:{}", content.sha256())
}

/// As a registry serves a blob.
fn blob(content: &Content) -> Page {
    Page::of(content).named().max_age(31_536_000)
}

/// A liar has been asked for a content under its digest, in this way, before anybody asked the
/// registry that has it: readers of the registry get the registry's bytes.
fn a_liar_was_asked_first(seed: u64, way: impl Fn(&Site, &str) -> String, range: &str) {
    let good = Content::new(seed, 3 * MIB);
    let bad = Content::new(seed + 1, 3 * MIB);
    let (liar, registry) = (Site::new(), Site::new());
    let path = blob_path("x", &good);
    let name = format!("sha256:{}", good.sha256());
    liar.serve(&path, Page::of(&bad).header("Docker-Content-Digest", &name));
    registry.serve(&path, blob(&good));
    let upstreams = [&liar, &registry].map(Site::upstream);
    let two = Swarm::start(
        2,
        &["--upstream", &upstreams[0], "--upstream", &upstreams[1]],
    );
    let (one, other) = (&two.daemons[0], &two.daemons[1]);
    let range: Vec<(&str, &str)> = [("Range", range)]
        .into_iter()
        .filter(|(_, range)| !range.is_empty())
        .collect();
    one.get(&way(&liar, &path), &range);

    let url = way(&registry, &path);
    // Lazy snapshotters read nothing but parts; all others read nothing but wholes.
    if range.is_empty() {
        for daemon in [one, other] {
            daemon.get(&url, &[]).assert_is(&good);
        }
        // The readers of one origin share as ever.
        assert_eq!(registry.sent_of(&good), good.len());
    }
    for daemon in [one, other] {
        for (first, last) in [(0, 99), (MIB - 50, MIB + 50), (2 * MIB, 3 * MIB - 1)] {
            let range = format!("bytes={first}-{last}");
            let answer = daemon.get(&url, &[("Range", &range)]);
            answer.assert_nothing_of(&bad);
            answer.assert_is_part(&good, first, last);
        }
        daemon.get(&url, &[]).assert_is(&good);
    }
}

/// Through the proxy.
fn proxied(site: &Site, path: &str) -> String {
    site.url(path)
}

/// At the mirror, as containerd names a registry.
fn mirrored(site: &Site, path: &str) -> String {
    site.mirrored(path)
}

#[test]
fn a_digest_names_the_registrys_bytes_whoever_was_asked_for_a_part_before() {
    a_liar_was_asked_first(1000, proxied, "bytes=0-99");
}

#[test]
fn a_digest_names_the_registrys_bytes_whoever_was_asked_for_the_whole_before() {
    a_liar_was_asked_first(1010, proxied, "");
}

#[test]
fn a_digest_names_the_registrys_bytes_at_the_mirror() {
    a_liar_was_asked_first(1020, mirrored, "bytes=0-99");
}

#[test]
fn a_liar_that_stalls_holds_up_nobody_else() {
    let good = Content::new(1030, 3 * MIB);
    let bad = Content::new(1031, 3 * MIB);
    let (liar, registry) = (Site::new(), Site::new());
    let path = blob_path("x", &good);
    liar.serve(&path, Page::of(&bad).hold_at(MIB as u64 + 10));
    registry.serve(&path, blob(&good));
    let two = Swarm::start(2, &[]);
    let (one, other) = (two.daemons[0].addr(), &two.daemons[1]);
    let url = liar.url(&path);
    let fooled = thread::spawn(move || ask(one, "GET", &url, &[], b""));
    until("the liar's bytes", || {
        (liar.sent_of(&bad) > MIB as u64).then_some(())
    });
    for daemon in [&two.daemons[0], other] {
        daemon.get(&registry.url(&path), &[]).assert_is(&good);
    }
    liar.release();
    let answer = fooled.join().unwrap();
    assert!(!answer.whole || answer.status >= 500, "{answer:?}");
}

/// What one host holds of one tenant under a digest is not another tenant's.
#[test]
fn registries_below_one_host_are_told_apart() {
    let good = Content::new(1040, 2 * MIB);
    let bad = Content::new(1041, 2 * MIB);
    let host = Site::new();
    let path = blob_path("x", &good);
    host.serve(&format!("/liar{path}"), Page::of(&bad));
    host.serve(&format!("/registry{path}"), blob(&good));
    let (liar, registry) = (host.url("/liar"), host.url("/registry"));
    let liar = format!("liar.example={liar}");
    let registry = format!("registry.example={registry}");
    let two = Swarm::start(2, &["--upstream", &liar, "--upstream", &registry]);
    let part = [("Range", "bytes=0-99")];
    two.daemons[0].get(&format!("{path}?ns=liar.example"), &part);
    for daemon in &two.daemons {
        let url = format!("{path}?ns=registry.example");
        daemon.get(&url, &part).assert_is_part(&good, 0, 99);
        daemon.get(&url, &[]).assert_is(&good);
    }
}

/// What a repository answers with under a blob's name is no blob, though another repository of the
/// same registry has that.
#[test]
fn a_login_page_at_a_blobs_url_is_not_mixed_with_the_blob_of_another_repository() {
    let content = Content::new(1145, 2 * MIB);
    let registry = Site::new();
    let (open, closed) = (
        blob_path("open/app", &content),
        blob_path("closed/app", &content),
    );
    registry.serve(&open, blob(&content));
    let page = Content::new(1146, 80_000);
    registry.serve(&closed, Page::of(&page).etag("\"login\"").max_age(3600));
    let two = Swarm::start(2, &[]);
    let part = [("Range", "bytes=64-8255")];
    for daemon in &two.daemons {
        let answer = daemon.get(&registry.url(&open), &part);
        answer.assert_is_part(&content, 64, 8255);
        let answer = daemon.get(&registry.url(&closed), &part);
        // The blob is no secret, so that it may be the answer; but then with its own headers.
        if content.leaks_into(&answer.body) {
            answer.assert_is_part(&content, 64, 8255);
            let own = format!("\"sha256:{}\"", content.sha256());
            assert_eq!(answer.header("etag"), Some(own.as_str()));
        } else {
            assert_ne!(
                answer.header("content-range"),
                Some("bytes 64-8255/2097152")
            );
        }
    }
}

/// A private blob that Alice has read, and what others get who know its digest.
struct Warm {
    content: Content,
    path: String,
    registry: Site,
    /// Somebody else's host.
    stranger: Site,
    two: Swarm,
}

impl Warm {
    /// The registry answers everybody but Alice and Bob with this page.
    fn start(seed: u64, others: Page) -> Self {
        let content = Content::new(seed, 3 * MIB);
        let path = blob_path("team/app", &content);
        let registry = Site::new();
        registry.serve(&path, others);
        registry.serve_to(ALICE, &path, blob(&content));
        registry.serve_to(BOB, &path, blob(&content));
        let stranger = Site::new();
        let upstreams = [&registry, &stranger].map(Site::upstream);
        let two = Swarm::start(
            2,
            &["--upstream", &upstreams[0], "--upstream", &upstreams[1]],
        );
        let answer = two.daemons[0].get(&registry.url(&path), &[ALICE]);
        answer.assert_is(&content);
        Self {
            content,
            path,
            registry,
            stranger,
            two,
        }
    }

    /// Neither host gives anything of the content to any of these, whichever way they ask.
    fn assert_kept_from(&self, site: &Site, readers: &[Option<Credentials>]) {
        for daemon in &self.two.daemons {
            for target in [proxied(site, &self.path), mirrored(site, &self.path)] {
                for &reader in readers {
                    let headers: Vec<_> = reader.into_iter().collect();
                    daemon
                        .get(&target, &headers)
                        .assert_nothing_of(&self.content);
                    let part = [&headers[..], &[("Range", "bytes=128-4095")]].concat();
                    daemon.get(&target, &part).assert_nothing_of(&self.content);
                    let head = ask(daemon.addr(), "HEAD", &target, &headers, b"");
                    head.assert_nothing_of(&self.content);
                }
            }
        }
    }

    /// Those whom the registry serves get it, and it leaves the registry once.
    fn assert_shared(&self) {
        for daemon in &self.two.daemons {
            for reader in [ALICE, BOB] {
                let answer = daemon.get(&self.registry.url(&self.path), &[reader]);
                answer.assert_is(&self.content);
            }
        }
        assert_eq!(self.registry.sent_of(&self.content), self.content.len());
    }
}

#[test]
fn a_private_blob_is_not_for_those_who_know_its_digest_and_another_host() {
    let warm = Warm::start(1100, Page::unauthorized());
    let stranger = &warm.stranger;
    let same_length = Content::new(1101, warm.content.len() as usize);
    for page in [
        Page::login(),
        Page::of(&same_length),
        // It claims to have it.
        Page::of(&same_length).etag(&format!("\"sha256:{}\"", warm.content.sha256())),
    ] {
        stranger.serve(&warm.path, page);
        warm.assert_kept_from(stranger, &[None, Some(ALICE), Some(STRANGER)]);
    }
    warm.assert_kept_from(&warm.registry, &[None, Some(STRANGER)]);
    warm.assert_shared();
}

#[test]
fn a_login_page_admits_nobody() {
    let page = Page::login();
    let warm = Warm::start(1110, page);
    warm.assert_kept_from(&warm.registry, &[None, Some(STRANGER)]);
    warm.assert_shared();
}

#[test]
fn a_login_page_of_the_right_length_admits_nobody() {
    let page = Page::of(&Content::new(1121, 3 * MIB)).header("Content-Type", "text/html");
    let warm = Warm::start(1120, page);
    warm.assert_kept_from(&warm.registry, &[None, Some(STRANGER)]);
}

#[test]
fn a_redirect_to_a_login_page_admits_nobody() {
    let gateway = Site::new();
    gateway.serve("/login", Page::login());
    let warm = Warm::start(1130, Page::redirect(&gateway.url("/login")));
    warm.assert_kept_from(&warm.registry, &[None, Some(STRANGER)]);
    warm.assert_shared();
}

#[test]
fn a_login_page_does_not_get_a_blobs_name() {
    let warm = Warm::start(1135, Page::login());
    for daemon in &warm.two.daemons {
        for target in [
            proxied(&warm.registry, &warm.path),
            mirrored(&warm.registry, &warm.path),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = ask(daemon.addr(), method, &target, &[], b"");
                assert_eq!(answer.status, 200, "{method} {target}");
                assert_eq!(
                    answer.header("docker-content-digest"),
                    None,
                    "{method} {target}"
                );
            }
        }
    }
}

#[test]
fn one_repositorys_blob_is_not_for_readers_of_another() {
    let warm = Warm::start(1140, Page::unauthorized());
    // The same registry lets the stranger read another repository, which has another blob.
    let other = Content::new(1141, 100_000);
    let path = blob_path("team/other", &other);
    warm.registry.serve_to(STRANGER, &path, blob(&other));
    for daemon in &warm.two.daemons {
        daemon
            .get(&warm.registry.url(&path), &[STRANGER])
            .assert_is(&other);
    }
    warm.assert_kept_from(&warm.registry, &[None, Some(STRANGER)]);
    // Nor is it under the name of a repository that does not have it.
    let elsewhere = warm.registry.url(&blob_path("team/other", &warm.content));
    for daemon in &warm.two.daemons {
        for reader in [ALICE, STRANGER] {
            daemon
                .get(&elsewhere, &[reader])
                .assert_nothing_of(&warm.content);
        }
    }
}

#[test]
fn a_private_blob_stays_private_though_somebody_claimed_it_was_public() {
    let content = Content::new(1200, 3 * MIB);
    let path = blob_path("team/app", &content);
    let (own, registry) = (Site::new(), Site::new());
    // Somebody's own server has no more than the length right, and does not go on.
    own.serve(&path, Page::of(&Content::new(1201, 3 * MIB)).hold_at(0));
    registry.serve(&path, Page::unauthorized());
    registry.serve_to(ALICE, &path, blob(&content));
    let two = Swarm::start(2, &[]);
    let claim = begin_get(two.daemons[0].addr(), &own.url(&path), &[]);
    until("the request at somebody's own server", || {
        (!own.hits_at(&path).is_empty()).then_some(())
    });
    drop(claim);
    let url = registry.url(&path);
    for daemon in &two.daemons {
        daemon.get(&url, &[ALICE]).assert_is(&content);
    }
    for daemon in &two.daemons {
        daemon.get(&url, &[]).assert_refuses(&content);
        daemon
            .get(&url, &[("Range", "bytes=0-999")])
            .assert_refuses(&content);
        daemon.get(&url, &[STRANGER]).assert_refuses(&content);
    }
}

#[test]
fn what_is_protected_later_is_not_public_for_ever() {
    let content = Content::new(1300, 2 * MIB);
    let site = Site::new();
    let page = Page::of(&content).etag("\"v1\"");
    site.serve("/f", page.clone().max_age(1));
    let two = Swarm::start(2, &[]);
    let url = site.url("/f");
    for daemon in &two.daemons {
        daemon.get(&url, &[]).assert_is(&content);
    }
    site.serve("/f", Page::unauthorized());
    site.serve_to(ALICE, "/f", page.max_age(3600));
    // When its time is over one of those who may have it asks whether it has changed.
    let since = Instant::now();
    until("the end of its time", || {
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    two.daemons[0].get(&url, &[ALICE]).assert_is(&content);
    for daemon in &two.daemons {
        daemon.get(&url, &[ALICE]).assert_is(&content);
        daemon.get(&url, &[]).assert_refuses(&content);
        daemon
            .get(&url, &[("Range", "bytes=0-999")])
            .assert_refuses(&content);
        daemon.get(&url, &[STRANGER]).assert_refuses(&content);
        let head = ask(daemon.addr(), "HEAD", &url, &[], b"");
        assert_eq!((head.status, head.header("etag")), (401, None));
    }
    assert_eq!(site.sent_of(&content), content.len(), "{:?}", site.hits());
}

#[test]
fn what_is_unprotected_later_is_public_then() {
    let content = Content::new(1310, 2 * MIB);
    let site = Site::new();
    let page = Page::of(&content).etag("\"v1\"").max_age(3600);
    site.serve("/f", Page::unauthorized());
    site.serve_to(ALICE, "/f", page.clone());
    let two = Swarm::start(2, &[]);
    let url = site.url("/f");
    two.daemons[0].get(&url, &[ALICE]).assert_is(&content);
    for daemon in &two.daemons {
        daemon.get(&url, &[]).assert_refuses(&content);
    }
    site.serve("/f", page);
    for daemon in &two.daemons {
        daemon.get(&url, &[]).assert_is(&content);
        daemon.get(&url, &[ALICE]).assert_is(&content);
    }
}

#[test]
fn an_unchanged_answers_headers_are_taken_over() {
    let content = Content::new(1320, MIB + 1);
    let site = Site::new();
    let page = |name: &str| {
        let disposition = format!("attachment; filename={name}");
        let page = Page::of(&content).etag("\"v1\"");
        page.header("Content-Disposition", &disposition)
    };
    site.serve("/f", page("old").max_age(1));
    let two = Swarm::start(2, &[]);
    let url = site.url("/f");
    for daemon in &two.daemons {
        daemon.get(&url, &[]).assert_is(&content);
    }
    site.serve("/f", page("new").max_age(3600));
    until("a revalidation", || {
        two.daemons[0].get(&url, &[]).assert_is(&content);
        let hits = site.hits_at("/f");
        hits.iter().any(|hit| hit.status == 304).then_some(())
    });
    for daemon in &two.daemons {
        let answer = daemon.get(&url, &[]);
        answer.assert_is(&content);
        let disposition = answer.header("content-disposition");
        assert_eq!(disposition, Some("attachment; filename=new"));
        assert_eq!(answer.header("cache-control"), Some("max-age=3600"));
    }
    assert_eq!(site.sent_of(&content), content.len());
}

/// Alice's and Bob's files stand at one URL, and these validators are the same for both.
fn one_url_for_two(seed: u64, lengths: (usize, usize), with: impl Fn(Page) -> Page) {
    let alices = Content::new(seed, lengths.0);
    let bobs = Content::new(seed + 1, lengths.1);
    let site = Site::new();
    let path = "/export.zip";
    site.serve(path, Page::unauthorized());
    site.serve_to(ALICE, path, with(Page::of(&alices)).max_age(3600));
    site.serve_to(BOB, path, with(Page::of(&bobs)).max_age(3600));
    let two = Swarm::start(2, &[]);
    let url = site.url(path);
    for daemon in &two.daemons {
        for (reader, own, others) in [(ALICE, &alices, &bobs), (BOB, &bobs, &alices)] {
            let answer = daemon.get(&url, &[reader]);
            answer.assert_nothing_of(others);
            answer.assert_is(own);
            let part = daemon.get(&url, &[reader, ("Range", "bytes=64-8191")]);
            part.assert_is_part(own, 64, 8191);
        }
        daemon.get(&url, &[]).assert_refuses(&alices);
    }
}

#[test]
fn an_equal_date_does_not_make_two_readers_files_one() {
    one_url_for_two(1400, (2 * MIB, MIB + 500), |page| page.last_modified(DATE));
}

#[test]
fn an_equal_date_and_length_do_not_make_two_readers_files_one() {
    one_url_for_two(1410, (2 * MIB, 2 * MIB), |page| page.last_modified(DATE));
}

#[test]
fn an_equal_weak_tag_does_not_make_two_readers_files_one() {
    one_url_for_two(1420, (2 * MIB, 2 * MIB), |page| page.etag("W/\"1\""));
    one_url_for_two(1430, (2 * MIB, 2 * MIB), |page| {
        page.etag("W/\"1\"").last_modified(DATE)
    });
}

#[test]
fn nothing_that_tells_two_readers_files_apart_means_that_they_are_two() {
    one_url_for_two(1440, (2 * MIB, 2 * MIB), |page| page);
}

#[test]
fn what_strangers_are_told_is_not_told_to_those_who_log_in() {
    let content = Content::new(1600, 2 * MIB);
    let site = Site::new();
    let welcome = Content::of(vec![b'.'; 70_000]);
    // It looks like a file, and is fresh for long.
    let page = Page::of(&welcome).etag("\"welcome\"").max_age(3600);
    site.serve("/f", page);
    site.serve_to(ALICE, "/f", Page::of(&content).etag("\"v1\"").max_age(3600));
    let two = Swarm::start(2, &[]);
    let url = site.url("/f");
    two.daemons[0].get(&url, &[]).assert_is(&welcome);
    for daemon in &two.daemons {
        daemon.get(&url, &[ALICE]).assert_is(&content);
        let part = daemon.get(&url, &[ALICE, ("Range", "bytes=0-99")]);
        part.assert_is_part(&content, 0, 99);
        daemon.get(&url, &[]).assert_is(&welcome);
        // One whom the site does not know is a stranger to it.
        daemon.get(&url, &[STRANGER]).assert_is(&welcome);
        let head = ask(daemon.addr(), "HEAD", &url, &[ALICE], b"");
        let length = head.header("content-length").map(str::to_owned);
        assert_eq!(length, Some(content.len().to_string()));
    }
}

#[test]
fn a_login_page_at_a_blobs_own_url_spoils_nobodys_pull() {
    let content = Content::new(1610, 3 * MIB);
    let path = blob_path("team/app", &content);
    let registry = Site::new();
    registry.serve(&path, Page::login().max_age(3600));
    registry.serve_to(ALICE, &path, blob(&content));
    let two = Swarm::start(2, &[]);
    let url = registry.url(&path);
    for _ in 0..2 {
        for daemon in &two.daemons {
            daemon.get(&url, &[]).assert_nothing_of(&content);
            daemon.get(&url, &[STRANGER]).assert_nothing_of(&content);
            daemon.get(&url, &[ALICE]).assert_is(&content);
            let part = daemon.get(&url, &[ALICE, ("Range", "bytes=100-199")]);
            part.assert_is_part(&content, 100, 199);
        }
    }
    assert_eq!(registry.sent_of(&content), content.len());
}

/// Who was given something for one name in a repository has not shown that it may read the repository.
#[test]
fn a_login_page_at_one_blobs_url_admits_nobody_to_the_others() {
    let content = Content::new(1620, 3 * MIB);
    let other = Content::new(1621, 3 * MIB);
    let page = Content::new(1622, 80_000);
    let registry = Site::new();
    for content in [&content, &other] {
        let path = blob_path("team/app", content);
        let page = Page::of(&page).etag("\"login\"").max_age(3600);
        registry.serve(&path, page);
        registry.serve_to(ALICE, &path, blob(content));
    }
    let two = Swarm::start(2, &[]);
    let [url, elsewhere] =
        [&content, &other].map(|content| registry.url(&blob_path("team/app", content)));
    let daemon = &two.daemons[0];
    daemon.get(&url, &[ALICE]).assert_is(&content);
    for range in [&[][..], &[("Range", "bytes=0-99")]] {
        let headers = [&[STRANGER], range].concat();
        daemon.get(&elsewhere, &headers);
        daemon.get(&url, &headers).assert_nothing_of(&content);
    }
    // Nor does that page stand for the blob where another has read it.
    daemon.get(&elsewhere, &[ALICE]).assert_is(&other);
}
