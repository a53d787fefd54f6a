//! What each reader may be told at each moment: a record of everything that the origins were set to
//! answer, and a judge of what readers got. It knows nothing of how the programs work.

use std::{
    fmt,
    time::{Duration, Instant},
};

use pantala_e2e::{Answer, Content, Credentials, Page, Site};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Without any credentials.
    Anybody,
    Alice,
    Bob,
    /// With credentials that no origin knows: it is answered as anybody is.
    Stranger,
}

impl Reader {
    pub const ALL: [Self; 4] = [Self::Anybody, Self::Alice, Self::Bob, Self::Stranger];

    pub fn credentials(self) -> Option<Credentials<'static>> {
        match self {
            Self::Anybody => None,
            Self::Alice => Some(("Authorization", "Bearer alice")),
            // What no list of words knows is a credential all the same.
            Self::Bob => Some(("X-Access-Key", "of-bob")),
            Self::Stranger => Some(("Authorization", "Bearer stranger")),
        }
    }
}

/// What stands at a path for one reader.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are versions, and few are kept"
)]
pub enum Given {
    Refusal,
    This(Version),
}

/// A content with what tells it from others.
#[derive(Clone)]
pub struct Version {
    pub content: Content,
    pub page: Page,
    /// A header of this version alone.
    pub mark: String,
    pub etag: Option<String>,
    /// Whether it is a page that stands there instead of the content.
    pub page_only: bool,
}

/// By its name alone: a history has many.
impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mark)
    }
}

/// What a path answers from one moment to another.
struct State {
    since: Instant,
    /// When another state had certainly taken its place.
    until: Option<Instant>,
    max_age: Duration,
    to_all: Given,
    /// To Alice and to Bob, where that is something else.
    to: [Option<Given>; 2],
}

/// A path of an origin, and all that it was ever set to answer.
pub struct Resource {
    pub path: String,
    /// The content that the path names by its digest.
    pub named: Option<Content>,
    /// How many versions of a file there have been.
    pub versions: u64,
    states: Vec<State>,
}

/// What a read asked for and got, and when.
pub struct Read {
    pub reader: Reader,
    /// The first and the last byte.
    pub range: Option<(u64, u64)>,
    pub head: bool,
    pub begun: Instant,
    pub ended: Instant,
    pub answer: Answer,
}

/// How long the programs under test may believe that a reader is admitted.
pub const REMEMBERED: Duration = Duration::from_secs(1);
/// What a loaded machine may add between an origin's answer and the moment from which its freshness
/// is counted.
pub const SLACK: Duration = Duration::from_secs(2);

impl Resource {
    pub fn new(path: String, named: Option<Content>) -> Self {
        Self {
            path,
            named,
            versions: 0,
            states: Vec::new(),
        }
    }

    /// Whether both name the same digest.
    pub fn is_named_as(&self, other: &Resource) -> bool {
        let digest = |resource: &Resource| Some(resource.named.as_ref()?.sha256().to_owned());
        digest(self).is_some() && digest(self) == digest(other)
    }

    /// Sets what the path answers from now on.
    pub fn set(&mut self, site: &Site, max_age: u64, to_all: Given, to: [Option<Given>; 2]) {
        let since = Instant::now();
        let page = |given: &Given| match given {
            Given::Refusal => Page::unauthorized(),
            Given::This(version) => version.page.clone().max_age(max_age),
        };
        site.serve(&self.path, page(&to_all));
        for (reader, given) in [Reader::Alice, Reader::Bob].into_iter().zip(&to) {
            let credentials = reader.credentials().expect("one of those with a name");
            match given {
                Some(given) => site.serve_to(credentials, &self.path, page(given)),
                None => site.revoke(credentials, &self.path),
            }
        }
        if let Some(last) = self.states.last_mut() {
            last.until = Some(Instant::now());
        }
        self.states.push(State {
            since,
            until: None,
            max_age: Duration::from_secs(max_age),
            to_all,
            to,
        });
    }

    /// Why an answer is none that this reader may be given, if so. `elsewhere` are the other paths of
    /// the origin that name the same digest: what one of them gives to anybody is no secret, and the
    /// same content under all of them.
    pub fn complaint<'a>(
        &'a self,
        read: &Read,
        elsewhere: impl Iterator<Item = &'a Resource>,
    ) -> Option<String> {
        let allowed = self.allowed(read, read.reader);
        let public = elsewhere.flat_map(|other| other.allowed(read, Reader::Anybody));
        let public =
            public.filter(|given| matches!(given, Given::This(version) if !version.page_only));
        if allowed
            .iter()
            .copied()
            .chain(public)
            .any(|given| is(given, read))
        {
            return None;
        }
        let len = read.answer.body.len();
        let status = read.answer.status;
        let whose = self.whose(&read.answer.body);
        if let Some(whose) = whose.filter(|_| status < 300) {
            let may = allowed.iter().any(|given| is_part(given, read));
            if !may {
                let headers = &read.answer.headers;
                return Some(format!(
                    "a {status} with {len} bytes of {whose}: {headers:?}"
                ));
            }
        }
        // An error is an answer while the origin changes its mind, and where what it sends is not
        // what the path names.
        let steady = allowed.windows(2).all(|two| same(two[0], two[1]));
        let sound = match (&self.named, allowed.first()) {
            (Some(named), Some(Given::This(version))) => named.sha256() == version.content.sha256(),
            _ => true,
        };
        let failed = status >= 400 || !read.answer.whole;
        if failed && !(steady && sound) {
            return None;
        }
        let expected: Vec<String> = allowed.iter().map(|given| told(given)).collect();
        Some(format!(
            "a {status} of {len} bytes, headers {:?}, instead of {}: {:?}",
            read.answer.headers,
            expected.join(" or "),
            read.answer.text().chars().take(160).collect::<String>(),
        ))
    }

    /// What the origin would have told this reader at some moment that counts.
    fn allowed(&self, read: &Read, reader: Reader) -> Vec<&Given> {
        let counts = |state: &&State| {
            let believed = match reader {
                Reader::Anybody => state.max_age,
                // Whoever shows credentials is asked for again and again.
                _ => REMEMBERED,
            };
            let over = state.until.map(|until| until + believed + SLACK);
            state.since <= read.ended && over.is_none_or(|over| over >= read.begun)
        };
        let given = |state: &'_ State| match reader {
            Reader::Anybody | Reader::Stranger => None,
            Reader::Alice => state.to[0].is_some().then_some(0),
            Reader::Bob => state.to[1].is_some().then_some(1),
        };
        let states = self.states.iter().filter(counts);
        states
            .map(|state| match given(state) {
                Some(number) => state.to[number].as_ref().unwrap_or(&state.to_all),
                None => &state.to_all,
            })
            .collect()
    }

    /// Which content that ever stood here these bytes are of.
    fn whose(&self, body: &[u8]) -> Option<String> {
        let states = self.states.iter();
        let given = states.flat_map(|state| {
            [
                Some(&state.to_all),
                state.to[0].as_ref(),
                state.to[1].as_ref(),
            ]
        });
        let found = given.flatten().find_map(|given| match given {
            Given::This(version) if version.content.leaks_into(body) => Some(version),
            _ => None,
        })?;
        Some(found.mark.clone())
    }
}

/// The bytes of a content that a read is about.
fn part<'a>(content: &'a Content, read: &Read) -> &'a [u8] {
    match read.range {
        Some((first, last)) if !read.head => {
            let len = content.bytes().len();
            let (first, end) = ((first as usize).min(len), (last as usize + 1).min(len));
            &content.bytes()[first..end]
        }
        _ => content.bytes(),
    }
}

/// Whether an answer is this one, whole and with its headers.
fn is(given: &Given, read: &Read) -> bool {
    let answer = &read.answer;
    let Given::This(version) = given else {
        return answer.status == 401;
    };
    let bytes = part(&version.content, read);
    let status = if read.range.is_some() && !read.head {
        206
    } else {
        200
    };
    let length = answer.header("content-length").map(str::to_owned);
    let headers = answer.header("content-disposition") == Some(&version.mark)
        && answer.header("etag") == version.etag.as_deref()
        && length == Some(bytes.len().to_string());
    answer.status == status && headers && (read.head || answer.whole && answer.body == bytes)
}

/// Whether an answer is the beginning of this one: what a stream brought that failed.
fn is_part(given: &Given, read: &Read) -> bool {
    match given {
        Given::Refusal => false,
        Given::This(version) => part(&version.content, read).starts_with(&read.answer.body),
    }
}

fn same(a: &Given, b: &Given) -> bool {
    match (a, b) {
        (Given::Refusal, Given::Refusal) => true,
        (Given::This(a), Given::This(b)) => a.mark == b.mark,
        _ => false,
    }
}

fn told(given: &Given) -> String {
    match given {
        Given::Refusal => "a 401".to_owned(),
        Given::This(version) => format!("{} ({:?})", version.mark, version.content),
    }
}
