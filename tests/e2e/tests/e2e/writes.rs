//! Writes: who reads through a host after a write that went through it gets what stands there since, and
//! nobody keeps what was asked for before (RFC 9111, 4.4).

use std::{net::SocketAddr, thread};

use pantala_e2e::{
    Answer, Content, Dfdaemon, Page, Relay, Site, Supernode, ask, free_port, http_get, until,
};

const PATH: &str = "/f.bin";
/// How long an answer is fresh, in seconds: longer than any test.
const FRESH: u64 = 3600;

/// One file of an origin, before and after a write.
struct File {
    site: Site,
    versions: [Content; 2],
}

impl File {
    fn new(seed: u64) -> Self {
        let file = Self {
            site: Site::new(),
            versions: [0, 1].map(|version| Content::new(seed + version, 100_000)),
        };
        file.site.serve(PATH, file.page(0));
        file
    }

    fn page(&self, version: usize) -> Page {
        let tag = format!("\"v{version}\"");
        Page::of(&self.versions[version]).etag(&tag).max_age(FRESH)
    }

    fn url(&self) -> String {
        self.site.url(PATH)
    }

    /// A client of a host changes the file.
    #[track_caller]
    fn write_through(&self, daemon: &Dfdaemon) {
        self.site.serve(PATH, self.page(1));
        let answer = ask(daemon.addr(), "PUT", &self.url(), &[], b"anew");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Which version an answer is.
    #[track_caller]
    fn version(&self, answer: &Answer) -> usize {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let is = |content: &Content| content.bytes() == answer.body;
        let found = self.versions.iter().position(is);
        found.unwrap_or_else(|| panic!("no version at all: {} bytes", answer.body.len()))
    }

    /// Which version a client of a host gets.
    #[track_caller]
    fn read(&self, daemon: &Dfdaemon) -> usize {
        self.version(&daemon.get(&self.url(), &[]))
    }

    /// A client of a host reads meanwhile.
    fn reads(&self, daemon: &Dfdaemon) -> thread::JoinHandle<Answer> {
        let (addr, url) = (daemon.addr(), self.url());
        thread::spawn(move || ask(addr, "GET", &url, &[], b""))
    }
}

fn wait_for_peers(supernode: SocketAddr, count: u64) {
    let name = "pantala_supernode_peers ";
    until(&format!("{count} peers"), || {
        let (_, figures) = http_get(supernode, "/metrics")?;
        let line = figures.lines().find_map(|line| line.strip_prefix(name))?;
        (line.trim().parse() == Ok(count)).then_some(())
    });
}

/// Waits until the supernode's answer to a request is held: with less than this many bytes it would
/// be the connection's own housekeeping.
fn until_answered(relay: &Relay, before: usize) {
    const ANSWER: usize = 90;
    until("an answer of the supernode", || {
        (relay.held() >= before + ANSWER).then_some(())
    });
}

#[test]
fn an_answer_that_was_on_its_way_during_a_write_is_not_believed_after_it() {
    let file = File::new(1800);
    let supernode = Supernode::start();
    let relay = Relay::to(supernode.addr());
    let writer = Dfdaemon::start_towards(relay.addr(), &[]);
    let other = Dfdaemon::start(&supernode, &[]);
    wait_for_peers(supernode.addr(), 2);
    assert_eq!(file.read(&other), 0);
    relay.hold_answers();
    let early = file.reads(&writer);
    until_answered(&relay, 0);
    file.write_through(&writer);
    let held = relay.held();
    let late = file.reads(&writer);
    until_answered(&relay, held);
    relay.release_answers();
    // The first was asked for before the write: both versions are right.
    file.version(&early.join().unwrap());
    assert_eq!(file.version(&late.join().unwrap()), 1, "after the write");
    assert_eq!(file.read(&writer), 1, "from what the writer's host knows");
    until("the write is known", || {
        (file.read(&other) == 1).then_some(())
    });
}

/// When a client reads that asks after a write, while the answer to one that asked before it is late.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    Meanwhile,
    Afterwards,
}

/// The origin was asked before the write, and answers after it with what stood there before.
fn a_slow_answer_is_not_kept(file: &File, reader: &Dfdaemon, writer: &Dfdaemon, reads: Reads) {
    file.site.serve(PATH, file.page(0).hold_head());
    let slow = file.reads(reader);
    until("the origin is asked", || {
        (!file.site.hits_at(PATH).is_empty()).then_some(())
    });
    file.write_through(writer);
    if reads == Reads::Meanwhile {
        assert_eq!(file.read(writer), 1, "while the other still waits");
    }
    file.site.release();
    file.version(&slow.join().unwrap());
    for daemon in [reader, writer] {
        assert_eq!(file.read(daemon), 1, "afterwards");
    }
}

#[test]
fn what_a_host_asked_for_before_its_own_write_is_not_kept() {
    for (seed, reads) in [(1810, Reads::Meanwhile), (1812, Reads::Afterwards)] {
        let file = File::new(seed);
        let daemon = Dfdaemon::start_alone(&[]);
        a_slow_answer_is_not_kept(&file, &daemon, &daemon, reads);
    }
}

#[test]
fn what_a_host_asked_for_before_its_own_write_is_not_kept_without_a_supernode() {
    for (seed, reads) in [(1820, Reads::Meanwhile), (1822, Reads::Afterwards)] {
        let file = File::new(seed);
        let nobody = ([127, 0, 0, 1], free_port()).into();
        let daemon = Dfdaemon::start_towards(nobody, &[]);
        a_slow_answer_is_not_kept(&file, &daemon, &daemon, reads);
    }
}

#[test]
fn what_a_host_asked_for_before_anothers_write_is_not_kept() {
    for (seed, reads) in [(1830, Reads::Meanwhile), (1832, Reads::Afterwards)] {
        let file = File::new(seed);
        let supernode = Supernode::start();
        let reader = Dfdaemon::start(&supernode, &[]);
        let writer = Dfdaemon::start(&supernode, &[]);
        wait_for_peers(supernode.addr(), 2);
        a_slow_answer_is_not_kept(&file, &reader, &writer, reads);
    }
}

#[test]
fn a_write_that_the_supernode_did_not_hear_of_is_told_when_it_is_back() {
    let file = File::new(1840);
    let supernode = Supernode::start();
    let relay = Relay::to(supernode.addr());
    let writer = Dfdaemon::start_towards(relay.addr(), &[]);
    let other = Dfdaemon::start(&supernode, &[]);
    wait_for_peers(supernode.addr(), 2);
    for daemon in [&other, &writer] {
        assert_eq!(file.read(daemon), 0);
    }
    relay.refuse(true);
    relay.cut();
    wait_for_peers(supernode.addr(), 1);
    file.write_through(&writer);
    relay.refuse(false);
    wait_for_peers(supernode.addr(), 2);
    assert_eq!(file.read(&writer), 1);
    until("the write is known", || {
        (file.read(&other) == 1).then_some(())
    });
}
