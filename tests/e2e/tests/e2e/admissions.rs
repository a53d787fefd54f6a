//! What it costs a registry that many nodes pull a private image: bytes once, and a question per
//! credentials and repository, not per layer and reader.

use std::thread;

use pantala_e2e::{Content, Dfdaemon, Hit, Page, Site, Supernode};

const NODES: usize = 10;
const LAYERS: usize = 8;
const REPOSITORY: &str = "/v2/team/app";

/// A registry with a private image.
struct Registry {
    site: Site,
    manifest: Content,
    blobs: Vec<Content>,
}

impl Registry {
    /// One that serves those who show one of these tokens.
    fn start(seed: u64, tokens: &[String]) -> Self {
        let sizes = (0..LAYERS).map(|layer| 20_000 + 150_000 * layer);
        let blobs: Vec<Content> = (seed..)
            .zip(sizes)
            .map(|(seed, size)| Content::new(seed, size))
            .collect();
        let names: Vec<&str> = blobs.iter().map(Content::sha256).collect();
        let manifest = format!(r#"{{"schemaVersion":2,"layers":{names:?}}}"#);
        let registry = Self {
            site: Site::new(),
            manifest: Content::of(manifest.into_bytes()),
            blobs,
        };
        for (path, page) in registry.pages() {
            registry.site.serve(&path, Page::unauthorized());
            for token in tokens {
                let credentials = ("Authorization", token.as_str());
                registry.site.serve_to(credentials, &path, page.clone());
            }
        }
        registry
    }

    fn pages(&self) -> Vec<(String, Page)> {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = Page::of(&self.manifest)
            .named()
            .header("Content-Type", kind);
        let blobs = self
            .blobs
            .iter()
            .map(|blob| (blob_path(blob), Page::of(blob).named().max_age(31_536_000)));
        [self.by_tag(), self.by_digest()]
            .map(|path| (path, manifest.clone()))
            .into_iter()
            .chain(blobs)
            .collect()
    }

    fn by_tag(&self) -> String {
        format!("{REPOSITORY}/manifests/v1")
    }

    fn by_digest(&self) -> String {
        format!("{REPOSITORY}/manifests/sha256:{}", self.manifest.sha256())
    }

    /// One node pulls the image at its own mirror, as runtimes do.
    fn pull(&self, daemon: &Dfdaemon, token: &str) {
        let get = |path: &str, content: &Content| {
            let target = self.site.mirrored(path);
            let answer = daemon.get(&target, &[("Authorization", token)]);
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            content.assert_bytes(&answer.body);
        };
        get(&self.by_tag(), &self.manifest);
        get(&self.by_digest(), &self.manifest);
        thread::scope(|scope| {
            // Runtimes fetch a few layers at a time.
            for blobs in self.blobs.chunks(LAYERS.div_ceil(3)) {
                scope.spawn(|| blobs.iter().for_each(|blob| get(&blob_path(blob), blob)));
            }
        });
    }

    /// Requests that brought no bytes of the image: what it costs to know who may read it.
    fn questions(&self) -> Vec<Hit> {
        let mut hits = self.site.hits();
        hits.retain(|hit| hit.sent < 2);
        hits
    }
}

fn blob_path(blob: &Content) -> String {
    format!("{REPOSITORY}/blobs/sha256:{}", blob.sha256())
}

/// Ten nodes pull, each with one of these tokens, twice.
fn pull_everywhere(seed: u64, tokens: &[String]) {
    let registry = Registry::start(seed, tokens);
    let supernode = Supernode::start();
    let flags = ["--upstream", &registry.site.upstream()];
    let daemons: Vec<Dfdaemon> = (0..NODES)
        .map(|_| Dfdaemon::start(&supernode, &flags))
        .collect();
    for _ in 0..2 {
        thread::scope(|scope| {
            for (daemon, token) in daemons.iter().zip(tokens.iter().cycle()) {
                scope.spawn(|| registry.pull(daemon, token));
            }
        });
    }
    for blob in &registry.blobs {
        assert_eq!(registry.site.sent_of(blob), blob.len());
    }
    let asked = registry.questions();
    let targets: Vec<String> = asked
        .iter()
        .map(|hit| format!("{} {} {}", hit.method, hit.target, hit.status))
        .collect();
    assert!(
        asked.len() <= tokens.len(),
        "{} requests besides those for bytes: {targets:#?}",
        asked.len()
    );
}

#[test]
fn nodes_with_the_same_credentials_ask_for_all_of_an_image_at_most_once() {
    pull_everywhere(1900, &["Bearer robot".to_owned()]);
}

#[test]
fn nodes_with_tokens_of_their_own_ask_for_all_of_an_image_at_most_once_each() {
    let tokens: Vec<String> = (0..NODES).map(|node| format!("Bearer {node}")).collect();
    pull_everywhere(1910, &tokens);
}
