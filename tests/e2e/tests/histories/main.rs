//! Random histories: origins that lie, change what they serve, protect it and open it again, readers
//! with and without credentials of wholes, parts and heads, and a swarm whose programs are restarted.
//! Whatever happens, a reader gets what the origin that it named would have given this very reader at
//! a moment that freshness allows, or an error; never anything else. And while nothing changes for a
//! reader, it gets that and no error.
//!
//! What happens is decided by a seed. `E2E_HISTORIES`, `E2E_STEPS` and `E2E_SEED` choose more of them,
//! longer ones, and others.

mod model;

use std::{env, fmt::Write as _, net::SocketAddr, thread, time::Instant};

use model::{Given, Read, Reader, Resource, Version};
use pantala_e2e::{Content, Dfdaemon, Page, Site, Swarm, ask, until};

/// What tells the versions at a path apart, besides their bytes.
#[derive(Debug, Clone, Copy)]
enum Tells {
    StrongTag,
    /// The same for all of them.
    WeakTag,
    /// The same for all of them.
    Date,
    Nothing,
}

/// Paths that are protected and opened together: one file, or a repository of a registry.
struct Group {
    site: usize,
    tells: Tells,
    resources: Vec<Resource>,
}

/// Pseudo-random numbers (xorshift64*): a history is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

struct History {
    dice: Dice,
    sites: [Site; 2],
    groups: Vec<Group>,
    /// None where readers ask the origins themselves.
    swarm: Option<Swarm>,
    /// Whether those without credentials show Alice's.
    impostors: bool,
    versions: u64,
    /// What happened, to be told when something goes wrong.
    said: String,
}

/// A read that is about to be made.
struct Asked {
    group: usize,
    index: usize,
    reader: Reader,
    /// Whose credentials it shows.
    shown: Reader,
    addr: SocketAddr,
    target: String,
    head: bool,
    range: Option<(u64, u64)>,
}

const LENGTHS: [usize; 3] = [90_000, 1_300_000, 1_300_000];
const HOSTS: usize = 2;
const FLAGS: [&str; 2] = ["--remember-auth", "1s"];

impl History {
    fn new(seed: u64, swarm: Option<Swarm>) -> Self {
        let mut history = Self {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            sites: [Site::new(), Site::new()],
            groups: Vec::new(),
            swarm,
            impostors: false,
            versions: seed << 32,
            said: format!("history {seed}\n"),
        };
        let blobs = [0, 1].map(|number| Content::new(history.versions - 1 - number, 1_300_000));
        for site in 0..2 {
            for (name, tells) in [
                ("/tag", Tells::StrongTag),
                ("/weak", Tells::WeakTag),
                ("/date", Tells::Date),
                ("/nothing", Tells::Nothing),
            ] {
                let resources = vec![Resource::new(name.to_owned(), None)];
                history.groups.push(Group {
                    site,
                    tells,
                    resources,
                });
            }
            // One blob is in both repositories.
            for (repository, blobs) in [("a", &blobs[..]), ("b", &blobs[..1])] {
                let named = |blob: &Content| {
                    let path = format!("/v2/{repository}/blobs/sha256:{}", blob.sha256());
                    Resource::new(path, Some(blob.clone()))
                };
                history.groups.push(Group {
                    site,
                    tells: Tells::StrongTag,
                    resources: blobs.iter().map(named).collect(),
                });
            }
        }
        for group in 0..history.groups.len() {
            history.change(group);
        }
        history
    }

    /// One more thing happens. Gives what is wrong with what a reader got then, if anything is.
    fn step(&mut self) -> Result<(), String> {
        match self.dice.below(20) {
            0..12 => return self.reads(None),
            12..16 => {
                let group = self.dice.below(self.groups.len());
                self.change(group);
            }
            // While it is being read.
            16 => {
                let group = self.dice.below(self.groups.len());
                return self.reads(Some(group));
            }
            17 => self.rest(),
            18 => self.restart_supernode(),
            _ => self.restart_daemon(),
        }
        Ok(())
    }

    /// The origin changes what it serves at the paths of a group, and to whom.
    fn change(&mut self, number: usize) {
        let max_age = self.dice.pick(&[0, 1, 1, 3600]);
        let open = self.dice.below(4);
        let known = [0, 1].map(|_| self.dice.below(4));
        let (site, tells) = (self.groups[number].site, self.groups[number].tells);
        for index in 0..self.groups[number].resources.len() {
            let named = self.groups[number].resources[index].named.clone();
            // The tags of two origins are alike, whatever they serve.
            let count = &mut self.groups[number].resources[index].versions;
            let mut version = || match &named {
                Some(content) if site == 0 => blob(content),
                Some(content) => lie(content),
                None => {
                    (self.versions, *count) = (self.versions + 1, *count + 1);
                    let length = LENGTHS[self.versions as usize % LENGTHS.len()];
                    version(tells, &Content::new(self.versions, length), site, *count)
                }
            };
            let first = version();
            let to_all = match open {
                0 => Given::Refusal,
                1 => Given::This(login()),
                _ => Given::This(first.clone()),
            };
            let mut own = |known: usize| match known {
                // As anybody.
                0 => None,
                1 => Some(Given::This(version())),
                _ => Some(Given::This(first.clone())),
            };
            let to = known.map(&mut own);
            let resource = &mut self.groups[number].resources[index];
            let _ = writeln!(
                self.said,
                "  site {site} {}: max-age {max_age}, to all {to_all:?}, to Alice and Bob {to:?}",
                resource.path
            );
            resource.set(&self.sites[site], max_age, to_all, to);
        }
    }

    /// Some readers come at once, half of them to the same path; meanwhile a group may change.
    fn reads(&mut self, changing: Option<usize>) -> Result<(), String> {
        let group = changing.unwrap_or_else(|| self.dice.below(self.groups.len()));
        let count = 1 + self.dice.below(4);
        let mut asked = Vec::new();
        for _ in 0..count {
            let group = self.dice.pick(&[group, self.groups.len()]);
            let group = if group < self.groups.len() {
                group
            } else {
                self.dice.below(group)
            };
            let index = self.dice.below(self.groups[group].resources.len());
            let resource = &self.groups[group].resources[index];
            let reader = self.dice.pick(&Reader::ALL);
            let site = &self.sites[self.groups[group].site];
            let number = self.dice.below(HOSTS);
            let (addr, target) = match &self.swarm {
                Some(swarm) => (swarm.daemons[number].addr(), site.url(&resource.path)),
                None => (site.addr(), resource.path.clone()),
            };
            let (head, first) = (self.dice.below(6) == 0, self.dice.pick(&[0, 64, 70_000]));
            let range = (self.dice.below(2) == 0).then_some((first, first + 8191));
            let _ = writeln!(
                self.said,
                "  {reader:?} reads {} {range:?} of {target} at {number}",
                if head { "the head" } else { "" }
            );
            let shown = match reader {
                Reader::Anybody if self.impostors => Reader::Alice,
                reader => reader,
            };
            asked.push(Asked {
                group,
                index,
                reader,
                shown,
                addr,
                target,
                head,
                range,
            });
        }
        let reads: Vec<Read> = thread::scope(|scope| {
            let threads: Vec<_> = asked
                .iter()
                .map(|asked| scope.spawn(|| read(asked)))
                .collect();
            if let Some(group) = changing {
                self.change(group);
            }
            let answers = threads.into_iter().map(|thread| thread.join());
            answers.map(|answer| answer.expect("an answer")).collect()
        });
        for (asked, read) in asked.iter().zip(reads) {
            let Asked { group, index, .. } = *asked;
            let resource = &self.groups[group].resources[index];
            let site = self.groups[group].site;
            let elsewhere = self.groups.iter().filter(|other| other.site == site);
            let elsewhere = elsewhere.flat_map(|other| &other.resources);
            let elsewhere = elsewhere.filter(|other| resource.is_named_as(other));
            if let Some(complaint) = resource.complaint(&read, elsewhere) {
                let (reader, target) = (read.reader, &asked.target);
                let complaint = format!("{reader:?} at {target}: {complaint}\n{}", self.said);
                return Err(complaint);
            }
        }
        Ok(())
    }

    /// Until nothing counts any more that was before the last change and was fresh for a second.
    fn rest(&mut self) {
        if self.swarm.is_none() {
            return;
        }
        self.said += "  rest\n";
        let since = Instant::now();
        until("the end of what was remembered", || {
            (since.elapsed() > model::REMEMBERED + model::SLACK).then_some(())
        });
    }

    /// Another supernode takes the place of the one that is killed; nobody waits for the peers.
    fn restart_supernode(&mut self) {
        self.said += "  the supernode is restarted\n";
        if let Some(swarm) = &mut self.swarm {
            swarm.supernode.restart();
        }
    }

    fn restart_daemon(&mut self) {
        let number = self.dice.below(HOSTS);
        let _ = writeln!(self.said, "  daemon {number} is restarted");
        if let Some(swarm) = &mut self.swarm {
            swarm.daemons[number] = Dfdaemon::start(&swarm.supernode, &FLAGS);
        }
    }
}

fn read(asked: &Asked) -> Read {
    let range = asked.range;
    let text = range.map(|(first, last)| format!("bytes={first}-{last}"));
    let mut headers: Vec<(&str, &str)> = asked.shown.credentials().into_iter().collect();
    headers.extend(text.as_deref().map(|range| ("Range", range)));
    let method = if asked.head { "HEAD" } else { "GET" };
    let begun = Instant::now();
    let answer = ask(asked.addr, method, &asked.target, &headers, b"");
    Read {
        reader: asked.reader,
        range,
        head: asked.head,
        begun,
        ended: Instant::now(),
        answer,
    }
}

fn marked(content: &Content, page: Page, mark: &str, etag: Option<&str>) -> Version {
    let page = page.header("Content-Disposition", mark);
    Version {
        content: content.clone(),
        page: match etag {
            Some(etag) => page.etag(etag),
            None => page,
        },
        mark: mark.to_owned(),
        etag: etag.map(str::to_owned),
        page_only: false,
    }
}

/// A new version of a file: the `number`th of its site.
fn version(tells: Tells, content: &Content, site: usize, number: u64) -> Version {
    let mark = format!("version-{site}-{number}");
    let page = Page::of(content);
    match tells {
        Tells::StrongTag => marked(content, page, &mark, Some(&format!("\"{number}\""))),
        // An origin that says that a weak tag's content is unchanged would be believed.
        Tells::WeakTag => marked(content, page.unconditional(), &mark, Some("W/\"1\"")),
        Tells::Date => {
            let page = page.last_modified("Sun, 06 Nov 1994 08:49:37 GMT");
            marked(content, page.unconditional(), &mark, None)
        }
        Tells::Nothing => marked(content, page, &mark, None),
    }
}

/// What a registry has under a digest.
fn blob(content: &Content) -> Version {
    under_digest(content, content, "blob")
}

/// What a liar has under a digest, whoever asks and in whatever repository: it has the name right and
/// the bytes wrong.
fn lie(content: &Content) -> Version {
    let seed = content.bytes().first_chunk().copied();
    let lie = Content::new(
        u64::from_le_bytes(seed.unwrap_or_default()),
        content.bytes().len(),
    );
    under_digest(content, &lie, "lie")
}

fn under_digest(named: &Content, content: &Content, kind: &str) -> Version {
    let digest = format!("sha256:{}", named.sha256());
    let page = Page::of(content).header("Docker-Content-Digest", &digest);
    let mark = format!("{kind}-{}", &named.sha256()[..8]);
    marked(content, page, &mark, Some(&format!("\"{digest}\"")))
}

/// A page for people, long enough for every range.
fn login() -> Version {
    let content = Content::new(u64::MAX, 80_000);
    marked(
        &content,
        Page::of(&content),
        "login-page",
        Some("\"login\""),
    )
}

fn number(variable: &str, default: u64) -> u64 {
    let text = env::var(variable).ok();
    text.map_or(default, |text| text.parse().expect(variable))
}

#[test]
fn nobody_gets_anything_but_what_its_origin_would_give_it() {
    let (first, steps) = (number("E2E_SEED", 1), number("E2E_STEPS", 60));
    let seeds: Vec<u64> = (first..first + number("E2E_HISTORIES", 3)).collect();
    // Histories spend most of their time at rest.
    for seeds in seeds.chunks(3) {
        thread::scope(|scope| {
            for &seed in seeds {
                scope.spawn(move || {
                    let mut history = History::new(seed, Some(Swarm::start(HOSTS, &FLAGS)));
                    for _ in 0..steps {
                        history.step().unwrap_or_else(|wrong| panic!("{wrong}"));
                    }
                });
            }
        });
    }
}

/// The model itself: it has nothing to say of readers that ask the origins themselves.
#[test]
fn without_anything_between_readers_and_origins_nothing_is_wrong() {
    let mut history = History::new(1, None);
    for _ in 0..400 {
        history.step().unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

/// The model itself: it knows when one reader gets what is another's.
#[test]
fn readers_that_use_anothers_credentials_are_found_out() {
    let mut history = History::new(2, None);
    history.impostors = true;
    let found = (0..400).find_map(|_| history.step().err());
    assert!(found.is_some(), "{}", history.said);
}
