//! One digest that stands for two contents, at two places of one registry: one of them lies, or is broken.
//! An answer's headers never come with the other's bytes.

use std::thread;

use pantala_e2e::{Answer, Content, Dfdaemon, Page, Site, Swarm, ask, until};

/// A registry with two repositories that differ on what a digest stands for.
struct Registry {
    site: Site,
    /// What has the digest.
    good: Content,
    bad: Content,
}

impl Registry {
    fn new(seed: u64) -> Self {
        let registry = Self {
            site: Site::new(),
            good: Content::new(seed, 400_000),
            bad: Content::new(seed + 1, 300_000),
        };
        registry.serve(|page| page);
        registry
    }

    fn serve(&self, how: impl Fn(Page) -> Page) {
        for (place, content) in [("good", &self.good), ("bad", &self.bad)] {
            let page = Page::of(content).header("X-Place", place);
            self.site.serve(&self.path(place), how(page));
        }
    }

    fn path(&self, place: &str) -> String {
        format!("/v2/{place}/blobs/sha256:{}", self.good.sha256())
    }

    fn url(&self, place: &str) -> String {
        self.site.url(&self.path(place))
    }

    /// An answer that has one place's headers has nothing of the other's bytes.
    #[track_caller]
    fn assert_unmixed(&self, answer: &Answer) {
        let of_length = |content: &Content| content.len().to_string();
        let length = answer.header("content-length").map(str::to_owned);
        match answer.header("x-place") {
            Some("good") => {
                assert_eq!(length, Some(of_length(&self.good)));
                answer.assert_nothing_of(&self.bad);
            }
            Some("bad") => {
                assert_eq!(length, Some(of_length(&self.bad)));
                answer.assert_nothing_of(&self.good);
            }
            _ => assert!(answer.status >= 500, "{answer:?}"),
        }
    }
}

/// What stood for the name has been found out and forgotten, and the name stands for something else.
#[test]
fn headers_of_a_content_that_was_forgotten_are_not_given_with_another() {
    let registry = Registry::new(1900);
    let daemon = Dfdaemon::start_alone(&[]);
    let first = daemon.get(&registry.url("bad"), &[]);
    assert!(
        !first.whole || first.status >= 500,
        "it is not what it says"
    );
    daemon
        .get(&registry.url("good"), &[])
        .assert_is(&registry.good);
    registry.assert_unmixed(&daemon.get(&registry.url("bad"), &[]));
    daemon
        .get(&registry.url("good"), &[])
        .assert_is(&registry.good);
}

/// Both places are asked, and answer, at the same moment.
fn answers_at_the_same_moment(seed: u64, daemons: [&Dfdaemon; 2]) {
    let registry = Registry::new(seed);
    registry.serve(Page::hold_head);
    let reads: Vec<_> = ["good", "bad"]
        .into_iter()
        .zip(daemons)
        .map(|(place, daemon)| {
            let (addr, url) = (daemon.addr(), registry.url(place));
            thread::spawn(move || ask(addr, "GET", &url, &[], b""))
        })
        .collect();
    until("both are asked", || {
        (registry.site.hits().len() == 2).then_some(())
    });
    registry.site.release();
    let answers = reads.into_iter().map(|read| read.join().unwrap());
    let answers: Vec<Answer> = answers.collect();
    answers
        .iter()
        .for_each(|answer| registry.assert_unmixed(answer));
    answers[0].assert_is(&registry.good);
    for daemon in daemons {
        registry.assert_unmixed(&daemon.get(&registry.url("bad"), &[]));
        daemon
            .get(&registry.url("good"), &[])
            .assert_is(&registry.good);
    }
}

#[test]
fn two_answers_to_one_host_at_the_same_moment_are_not_mixed() {
    let daemon = Dfdaemon::start_alone(&[]);
    for seed in 0..2 {
        answers_at_the_same_moment(1910 + 2 * seed, [&daemon, &daemon]);
    }
}

#[test]
fn two_answers_to_two_hosts_at_the_same_moment_are_not_mixed() {
    let two = Swarm::start(2, &[]);
    for seed in 0..2 {
        let daemons = [&two.daemons[0], &two.daemons[1]];
        answers_at_the_same_moment(1920 + 2 * seed, daemons);
    }
}
