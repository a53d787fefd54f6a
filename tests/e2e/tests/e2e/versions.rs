//! Content that changes at its URL: no reader is given an old version longer than the origin
//! allowed, whatever becomes of the supernode.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use pantala_e2e::{
    Answer, Content, Credentials, Dfdaemon, MIB, Page, Relay, Signal, Site, Supernode, ask,
    free_port, http_get, until,
};

const ALICE: Credentials = ("Authorization", "Bearer alice");
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Versions of a file, each at its own time.
struct Versions {
    site: Site,
    paths: Vec<String>,
    contents: [Content; 2],
}

impl Versions {
    /// `count` URLs, whose first version has to be asked for anew after `seconds`.
    fn start(seed: u64, count: usize, seconds: u64) -> Self {
        let contents = [0, 1].map(|version| Content::new(seed + version, 100_000));
        let versions = Self {
            site: Site::new(),
            paths: (0..count).map(|number| format!("/{number}.bin")).collect(),
            contents,
        };
        versions.put(0, seconds);
        versions
    }

    /// This version stands at all URLs from now on.
    fn put(&self, version: usize, seconds: u64) {
        let page = Page::of(&self.contents[version]).etag(&format!("\"v{version}\""));
        for path in &self.paths {
            self.site.serve(path, page.clone().max_age(seconds));
        }
    }

    /// Which version a host gives for a URL.
    #[track_caller]
    fn read(&self, daemon: &Dfdaemon, path: &str) -> usize {
        let answer = daemon.get(&self.site.url(path), &[]);
        version(&answer, &self.contents)
    }

    /// A host reads all URLs, over and over, until it gets this version of each.
    fn read_all(&self, daemon: &Dfdaemon, wanted: usize) {
        for path in &self.paths {
            until(&format!("version {wanted} of {path}"), || {
                (self.read(daemon, path) == wanted).then_some(())
            });
        }
    }

    /// A host gives this version of all URLs.
    #[track_caller]
    fn assert_all(&self, daemon: &Dfdaemon, wanted: usize) {
        let got = self.paths.iter().map(|path| self.read(daemon, path));
        let got: Vec<usize> = got.collect();
        assert_eq!(got, vec![wanted; got.len()], "the versions that it gives");
    }
}

/// Which of these contents an answer is.
#[track_caller]
fn version(answer: &Answer, contents: &[Content]) -> usize {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let is = |content: &Content| content.bytes() == answer.body;
    let found = contents.iter().position(is);
    found.unwrap_or_else(|| panic!("no version at all: {} bytes", answer.body.len()))
}

/// A figure of a supernode; nothing while it does not answer.
fn figure(addr: SocketAddr, name: &str) -> Option<u64> {
    let (_, figures) = http_get(addr, "/metrics")?;
    let line = figures.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

fn wait_for_peers(supernode: SocketAddr, count: u64) {
    until(&format!("{count} peers"), || {
        let peers = figure(supernode, "pantala_supernode_peers ")?;
        (peers == count).then_some(())
    });
}

/// Another supernode takes this one's place, and all peers come back.
fn restart(supernode: &mut Supernode, peers: u64) {
    supernode.restart();
    wait_for_peers(supernode.addr(), peers);
}

#[test]
fn old_versions_do_not_come_back_with_a_new_supernode() {
    let versions = Versions::start(1700, 12, 1);
    let mut supernode = Supernode::start();
    let daemon = Dfdaemon::start(&supernode, &[]);
    versions.assert_all(&daemon, 0);
    versions.put(1, 3600);
    versions.read_all(&daemon, 1);
    restart(&mut supernode, 1);
    let other = Dfdaemon::start(&supernode, &[]);
    versions.assert_all(&other, 1);
    versions.assert_all(&daemon, 1);
}

#[test]
fn old_versions_do_not_come_back_with_a_new_connection() {
    let versions = Versions::start(1710, 12, 1);
    let supernode = Supernode::start();
    let relay = Relay::to(supernode.addr());
    let daemon = Dfdaemon::start_towards(relay.addr(), &[]);
    versions.assert_all(&daemon, 0);
    versions.put(1, 3600);
    versions.read_all(&daemon, 1);
    relay.cut();
    wait_for_peers(supernode.addr(), 0);
    wait_for_peers(supernode.addr(), 1);
    let other = Dfdaemon::start(&supernode, &[]);
    versions.assert_all(&other, 1);
    versions.assert_all(&daemon, 1);
}

#[test]
fn a_new_supernode_makes_nothing_fresh_anew() {
    const SECONDS: u64 = 4;
    let versions = Versions::start(1720, 4, SECONDS);
    let mut supernode = Supernode::start();
    let daemon = Dfdaemon::start(&supernode, &[]);
    versions.assert_all(&daemon, 0);
    let read = Instant::now();
    versions.put(1, SECONDS);
    // Restarted shortly before the time is over.
    until("most of its time", || {
        let over = read.elapsed() > Duration::from_secs(SECONDS).mul_f64(0.7);
        over.then_some(())
    });
    restart(&mut supernode, 1);
    let other = Dfdaemon::start(&supernode, &[]);
    until("the end of its time", || {
        (read.elapsed() > Duration::from_secs(SECONDS)).then_some(())
    });
    versions.assert_all(&other, 1);
    versions.assert_all(&daemon, 1);
}

/// What a host gives that was told twice of a version, as long as no supernode is there.
fn without_a_supernode(seed: u64, seconds: u64) {
    let versions = Versions::start(seed, 6, seconds);
    let supernode = Supernode::start();
    let daemon = Dfdaemon::start(&supernode, &[]);
    versions.assert_all(&daemon, 0);
    versions.put(1, seconds);
    versions.read_all(&daemon, 1);
    supernode.process().signal(Signal::Kill);
    drop(supernode);
    versions.assert_all(&daemon, 1);
    // Now that version is old.
    versions.put(0, seconds);
    let since = Instant::now();
    until("the end of its time", || {
        (since.elapsed() > Duration::from_secs(seconds)).then_some(())
    });
    versions.assert_all(&daemon, 0);
}

#[test]
fn without_a_supernode_what_must_be_asked_for_anew_is() {
    without_a_supernode(1730, 0);
}

#[test]
fn without_a_supernode_no_version_outlives_its_time() {
    without_a_supernode(1740, 1);
}

#[test]
fn where_no_supernode_ever_was_no_version_outlives_its_time() {
    let versions = Versions::start(1750, 4, 1);
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let daemon = Dfdaemon::start_towards(nobody, &[]);
    versions.assert_all(&daemon, 0);
    // Within its time it is given without a word to the origin.
    let asked = versions.site.hits().len();
    assert_eq!(asked, versions.paths.len());
    versions.put(1, 3600);
    let since = Instant::now();
    until("the end of its time", || {
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    versions.assert_all(&daemon, 1);
    versions.assert_all(&daemon, 1);
    let asked = versions.site.hits().len();
    assert_eq!(
        asked,
        2 * versions.paths.len(),
        "{:?}",
        versions.site.hits()
    );
}

#[test]
fn without_a_supernode_an_origin_that_is_down_is_no_reason_to_lie() {
    let versions = Versions::start(1760, 1, 0);
    let supernode = Supernode::start();
    let daemon = Dfdaemon::start(&supernode, &[]);
    versions.assert_all(&daemon, 0);
    supernode.process().signal(Signal::Kill);
    drop(supernode);
    versions.site.serve("/0.bin", Page::status(404));
    let answer = daemon.get(&versions.site.url("/0.bin"), &[]);
    assert_eq!(answer.status, 404, "{} bytes", answer.body.len());
}

/// Two versions that a URL's validators do not tell apart; the origin sends the second in full to
/// whoever asks whether the first has changed.
fn versions_that_look_alike(seed: u64, with: impl Fn(Page) -> Page) {
    let contents = [0, 1].map(|version| Content::new(seed + version, 2 * MIB));
    let site = Site::new();
    let page = |version: usize| with(Page::of(&contents[version])).unconditional();
    site.serve("/f", page(0).max_age(1));
    let supernode = Supernode::start();
    let daemons = [(); 2].map(|()| Dfdaemon::start(&supernode, &[]));
    let url = site.url("/f");
    for daemon in &daemons {
        assert_eq!(version(&daemon.get(&url, &[]), &contents), 0);
    }
    site.serve("/f", page(1).max_age(3600));
    let since = Instant::now();
    until("the end of its time", || {
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    for daemon in &daemons {
        assert_eq!(version(&daemon.get(&url, &[]), &contents), 1);
        let part = daemon.get(&url, &[("Range", "bytes=1048570-1048580")]);
        assert_eq!(part.body, contents[1].bytes()[1_048_570..=1_048_580]);
    }
}

#[test]
fn a_new_version_with_the_old_ones_date_and_length_is_new() {
    versions_that_look_alike(1770, |page| page.last_modified(DATE));
}

#[test]
fn a_new_version_with_the_old_ones_weak_tag_is_new() {
    versions_that_look_alike(1780, |page| page.etag("W/\"1\""));
}

/// Alice has been admitted to a private content, and what she was told was to be believed for an
/// hour.
struct Admitted {
    content: Content,
    path: &'static str,
    site: Site,
    daemons: [Dfdaemon; 2],
    _supernode: Supernode,
}

const BOB: Credentials = ("Authorization", "Bearer bob");

impl Admitted {
    fn start(seed: u64, path: &'static str) -> Self {
        let content = Content::new(seed, 2 * MIB);
        let site = Site::new();
        site.serve(path, Page::unauthorized());
        let page = Page::of(&content).etag("\"v1\"").max_age(3600);
        site.serve_to(BOB, path, page.clone());
        site.serve_to(ALICE, path, page);
        let supernode = Supernode::start();
        let flags = ["--remember-auth", "1h"];
        let daemons = [(); 2].map(|()| Dfdaemon::start(&supernode, &flags));
        // Bob reads it first, so that Alice is admitted to what is there.
        for reader in [BOB, ALICE] {
            for daemon in &daemons {
                let answer = daemon.get(&site.url(path), &[reader]);
                assert_eq!(answer.status, 200, "{}", answer.text());
                content.assert_bytes(&answer.body);
            }
        }
        Self {
            content,
            path,
            site,
            daemons,
            _supernode: supernode,
        }
    }

    /// Alice is refused everything at a host, and Bob nothing.
    #[track_caller]
    fn assert_ended(&self, daemon: &Dfdaemon) {
        let url = self.site.url(self.path);
        for headers in [&[ALICE][..], &[ALICE, ("Range", "bytes=0-99")]] {
            let answer = daemon.get(&url, headers);
            let len = answer.body.len();
            assert_eq!(answer.status, 401, "{len} bytes to whom the origin refused");
            assert!(!self.content.leaks_into(&answer.body));
        }
        let head = ask(daemon.addr(), "HEAD", &url, &[ALICE], b"");
        assert_eq!(head.status, 401);
        let answer = daemon.get(&url, &[BOB]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.content.assert_bytes(&answer.body);
    }
}

#[test]
fn a_refusal_that_passes_through_ends_an_admission() {
    let admitted = Admitted::start(1800, "/f");
    admitted.site.revoke(ALICE, "/f");
    let url = admitted.site.url("/f");
    for daemon in &admitted.daemons {
        // She insists on the origin's own answer.
        let answer = daemon.get(&url, &[ALICE, ("Cache-Control", "no-cache")]);
        assert_eq!(answer.status, 401);
        admitted.assert_ended(daemon);
    }
}

#[test]
fn a_refusal_of_another_method_ends_an_admission() {
    let admitted = Admitted::start(1810, "/f");
    admitted.site.serve("/f", Page::status(403));
    admitted.site.revoke(ALICE, "/f");
    let url = admitted.site.url("/f");
    for daemon in &admitted.daemons {
        let answer = ask(daemon.addr(), "POST", &url, &[ALICE], b"x");
        assert_eq!(answer.status, 403);
        let answer = daemon.get(&url, &[ALICE]);
        assert_eq!(answer.status, 403, "{} bytes", answer.body.len());
    }
}

#[test]
fn a_refusal_of_a_manifest_ends_the_admission_to_its_repository() {
    let blob = Content::new(1820, 2 * MIB);
    let blob_path = format!("/v2/team/app/blobs/sha256:{}", blob.sha256());
    let manifest = Content::of(br#"{"schemaVersion":2}"#.to_vec());
    let tag = "/v2/team/app/manifests/v1";
    let site = Site::new();
    for reader in [BOB, ALICE] {
        site.serve_to(reader, &blob_path, Page::of(&blob).named());
        site.serve_to(reader, tag, Page::of(&manifest).named());
    }
    for path in [tag, &blob_path] {
        site.serve(path, Page::unauthorized());
    }
    let supernode = Supernode::start();
    let upstream = site.upstream();
    let flags = ["--remember-auth", "1h", "--upstream", &upstream];
    let daemons = [(); 2].map(|()| Dfdaemon::start(&supernode, &flags));
    for reader in [BOB, ALICE] {
        for daemon in &daemons {
            assert_eq!(daemon.get(&site.mirrored(tag), &[reader]).status, 200);
            let answer = daemon.get(&site.url(&blob_path), &[reader]);
            assert_eq!(answer.status, 200, "{}", answer.text());
            blob.assert_bytes(&answer.body);
        }
    }
    for path in [tag, &blob_path] {
        site.revoke(ALICE, path);
    }
    // A client that looks a tag up is answered by the registry: at the mirror always, through the
    // proxy when it does not want to hear what is known already.
    let lookups = [
        (site.mirrored(tag), vec![ALICE]),
        (site.url(tag), vec![ALICE, ("Cache-Control", "no-cache")]),
    ];
    for (daemon, (tag, headers)) in daemons.iter().zip(&lookups) {
        let remembered = daemon.get(&site.url(&blob_path), &[ALICE]);
        assert_eq!(remembered.status, 200, "{}", remembered.text());
        assert_eq!(daemon.get(tag, headers).status, 401);
        let answer = daemon.get(&site.url(&blob_path), &[ALICE]);
        assert_eq!(answer.status, 401, "{} bytes", answer.body.len());
        let answer = daemon.get(&site.url(&blob_path), &[BOB]);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}
