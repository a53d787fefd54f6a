//! Who may have a content: the origin says so, for each reader with its own credentials. What it said is
//! remembered for a while; nothing else is believed, least of all that somebody else was let in.

use std::time::Instant;

use hashlink::LruCache;
use http::{HeaderMap, StatusCode};
use pantala_core::{
    ContentDigest, ContentMeta, Error, Generation, Kind, Result, TaskId, Validators, Who,
};
use pantala_origin::{Harmless, OriginResponse, Place, Served, is_signed};
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};
use url::Url;

use super::{Content, ContentRequest, Node, Opened};
use crate::{key, shelf::Standing, task::TaskHandle};

/// Readers that are remembered as let in; who has not come for longest is asked for again.
const REMEMBERED: usize = 4096;
/// Contents behind one URL that a reader is remembered to be let in to.
const VERSIONS: usize = 4;

/// Credentials at one place, by a hash: a repository of a registry, or else one URL.
type Name = [u8; 32];

/// What origins said of readers.
pub(crate) struct Admissions {
    granted: Mutex<LruCache<Name, Granted>>,
    /// Readers that are being asked for.
    asking: Mutex<std::collections::HashMap<Name, watch::Receiver<()>>>,
}

/// What credentials open.
#[derive(Default)]
struct Granted {
    /// Since when they are known to read the repository: whatever is known to be in it they may have.
    repository: Option<Instant>,
    /// Answers that the URL gave them, and since when that is known.
    contents: Vec<(Answer, Instant)>,
}

/// A content by a hash, and by what else told it from others where a name was all that its task is made of: an
/// origin may answer the same name with a page to whom it does not let in.
type Answer = [u8; 32];

/// A content that a reader asks for, as admissions know it.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// The answer by which it is known, where its URL alone opens it.
    answer: Answer,
    /// Whether it is known under its digest: then whoever reads the repository may have it.
    in_repository: bool,
}

impl Wanted {
    fn new(task: TaskId, meta: &ContentMeta) -> Self {
        let named = meta.generation == Generation::Digest;
        let mut hash = blake3::Hasher::new();
        hash.update(task.as_bytes());
        if named {
            let tag = meta.validators.strong_etag().unwrap_or_default();
            hash.update(tag.as_bytes());
        }
        Self {
            answer: *hash.finalize().as_bytes(),
            in_repository: named,
        }
    }
}

impl Admissions {
    pub fn new() -> Self {
        Self {
            granted: LruCache::new(REMEMBERED).into(),
            asking: Mutex::default(),
        }
    }

    /// Whether the origin has let these credentials in, by what is remembered from `since` on.
    fn holds(&self, name: &Name, wanted: Wanted, since: impl Fn(Instant) -> bool) -> bool {
        let mut granted = self.granted.lock();
        let Some(granted) = granted.get(name) else {
            return false;
        };
        wanted.in_repository && granted.repository.is_some_and(&since)
            || (granted.contents.iter()).any(|(of, at)| *of == wanted.answer && since(*at))
    }

    /// Whether these credentials are known to read the repository, likewise.
    fn reads(&self, name: &Name, since: impl Fn(Instant) -> bool) -> bool {
        let mut granted = self.granted.lock();
        let granted = granted.get(name);
        granted.is_some_and(|granted| granted.repository.is_some_and(since))
    }

    /// Remembers that these credentials read the repository.
    fn grant_repository(&self, name: Name, now: Instant) {
        let mut granted = self.granted.lock();
        let entry = granted.entry(name).or_insert_with(Granted::default);
        entry.repository = Some(now);
    }

    /// Remembers that the URL gave this answer to these credentials.
    fn grant(&self, name: Name, wanted: Wanted, now: Instant) {
        let mut granted = self.granted.lock();
        let entry = granted.entry(name).or_insert_with(Granted::default);
        entry.contents.retain(|(of, _)| *of != wanted.answer);
        if entry.contents.len() == VERSIONS {
            entry.contents.remove(0);
        }
        entry.contents.push((wanted.answer, now));
    }

    fn withdraw(&self, name: &Name) {
        self.granted.lock().remove(name);
    }
}

impl Node {
    /// What is known here of a content that is fresh, for a reader that may have it as far as that is
    /// known too. Nothing is asked of anybody.
    pub fn known(&self, request: &ContentRequest) -> Option<ContentMeta> {
        let now = Instant::now();
        let standing = self.inner.ports.shelf.fresh(&self.key(request), now)?;
        if self.is_otherwise_named(&standing, request) {
            return None;
        }
        let task = self.stands_for(&standing)?;
        let mut meta = standing.meta(now);
        meta.length = task.meta.read().length;
        let wanted = Wanted::new(standing.task, &meta);
        (!meta.private || self.is_admitted(wanted, request)).then_some(meta)
    }

    /// Waits for the origin's word that this reader may have the content, while its window is
    /// being filled already. Where the origin has something else for this reader it gets that.
    pub(super) async fn admitted(
        &self,
        mut content: Content,
        request: ContentRequest,
    ) -> Result<Opened> {
        match content.stream.admitted().await {
            Ok(()) => Ok(Opened::Content(content)),
            Err(error) if error.kind() == Kind::Changed => {
                drop(content);
                self.direct(request).await.map_err(|refused| refused.error)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks the origin whether it would serve this very content to this reader, unless it said so
    /// a moment ago.
    pub(super) fn admission(
        &self,
        task: &TaskHandle,
        meta: &ContentMeta,
        request: &ContentRequest,
    ) -> Option<JoinHandle<Result<()>>> {
        if self.is_admitted(Wanted::new(task.id, meta), request) {
            return None;
        }
        let (this, task) = (self.clone(), task.id);
        let (meta, request) = (meta.clone(), request.clone());
        let tracker = &self.inner.ports.tracker;
        Some(tracker.spawn(async move { this.ask_admission(task, &meta, &request).await }))
    }

    /// Of readers with the same credentials at the same place one asks, and what it is told holds for
    /// the others as far as it goes.
    async fn ask_admission(
        &self,
        task: TaskId,
        meta: &ContentMeta,
        request: &ContentRequest,
    ) -> Result<()> {
        let name = name(self.harmless(), &request.url, &request.headers);
        let (done, other) = {
            let (done, waiting) = watch::channel(());
            let mut asking = self.inner.admissions.asking.lock();
            let other = asking.get(&name).cloned();
            if other.is_none() {
                asking.insert(name, waiting);
            }
            (done, other)
        };
        if let Some(mut other) = other {
            // It ends by being dropped.
            while other.changed().await.is_ok() {}
            if self.is_admitted(Wanted::new(task, meta), request) {
                return Ok(());
            }
            return self.check(task, meta, request).await;
        }
        let answer = self.check(task, meta, request).await;
        self.inner.admissions.asking.lock().remove(&name);
        drop(done);
        answer
    }

    async fn check(
        &self,
        task: TaskId,
        meta: &ContentMeta,
        request: &ContentRequest,
    ) -> Result<()> {
        let origin = &self.inner.ports.origin;
        let (url, headers) = (&request.url, &request.headers);
        let served = origin
            .check(url, headers, request.follow, request.asker)
            .await
            .inspect_err(|error| self.forget_admission(request, error))?;
        if !is_evidence(&Says::from(&served), meta, request) {
            let what = "the origin has something else for these credentials";
            return Err(Error::new(Who::Origin, Kind::Changed, what));
        }
        self.admit(task, meta, request);
        Ok(())
    }

    fn is_admitted(&self, wanted: Wanted, request: &ContentRequest) -> bool {
        let limit = self.inner.config.remember_admission;
        let name = name(self.harmless(), &request.url, &request.headers);
        let admissions = &self.inner.admissions;
        admissions.holds(&name, wanted, |since| since.elapsed() < limit)
    }

    /// The origin would serve this very content to this reader, or has. In a registry the reader may then read
    /// the repository, if the content is in there under its digest.
    pub(super) fn admit(&self, task: TaskId, meta: &ContentMeta, request: &ContentRequest) {
        let wanted = Wanted::new(task, meta);
        let repository = Place::of(&request.url).repository.is_some();
        let name = name(self.harmless(), &request.url, &request.headers);
        let (admissions, now) = (&self.inner.admissions, Instant::now());
        match wanted.in_repository && request.digest.is_some() && repository {
            true => admissions.grant_repository(name, now),
            false => admissions.grant(name, wanted, now),
        }
    }

    /// The task of the content that the request names by its digest, where an answer may be taken for that
    /// before it was hashed. In a repository the origin must have said so, or must be known to let this reader
    /// in: whom it does not let in it may answer with something else under any name. `joins`: the answer is
    /// known to be of what others have under the name.
    pub(super) fn named(
        &self,
        response: &OriginResponse,
        request: &ContentRequest,
        joins: bool,
    ) -> Option<TaskId> {
        let task = key::content(request, &self.inner.config.filter_query)?;
        (joins || self.may_be_named(response, request)).then_some(task)
    }

    fn may_be_named(&self, response: &OriginResponse, request: &ContentRequest) -> bool {
        let limit = self.inner.config.remember_admission;
        let name = || name(self.harmless(), &request.url, &request.headers);
        Place::of(&request.url).repository.is_none()
            || request
                .digest
                .is_some_and(|digest| response.digest() == Some(digest))
            || (self.inner.admissions).reads(&name(), |since| since.elapsed() < limit)
    }

    /// Whether what stands behind a resource is not what the request names by its digest: it may be what the
    /// origin gave to somebody whom it does not let in.
    pub(super) fn is_otherwise_named(&self, standing: &Standing, request: &ContentRequest) -> bool {
        let named = key::content(request, &self.inner.config.filter_query);
        named.is_some_and(|named| named != standing.task)
    }

    /// The origin has refused this reader: what it said before holds no more.
    pub(super) fn forget_admission(&self, request: &ContentRequest, error: &Error) {
        if error.kind() == Kind::Denied && error.who() == Who::Origin {
            let name = name(self.harmless(), &request.url, &request.headers);
            self.inner.admissions.withdraw(&name);
        }
    }

    /// Notes what an origin answered to a request that was passed on to it: a manifest, with its
    /// digest, shows that these credentials read the repository, and a refusal that they do not
    /// any more.
    pub fn witness(&self, url: &Url, asked: &HeaderMap, status: StatusCode, answered: &HeaderMap) {
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let name = name(self.harmless(), url, asked);
            self.inner.admissions.withdraw(&name);
        } else if status == StatusCode::OK
            && Place::of(url).repository.is_some()
            && answered.contains_key("docker-content-digest")
        {
            let name = name(self.harmless(), url, asked);
            (self.inner.admissions).grant_repository(name, Instant::now());
        }
    }
}

/// The evidence in an origin's answer of which content it serves.
pub(super) struct Says {
    digest: Option<ContentDigest>,
    validators: Validators,
    length: Option<u64>,
}

impl From<&Served> for Says {
    fn from(served: &Served) -> Self {
        Self {
            digest: served.digest(),
            validators: served.validators(),
            length: served.length,
        }
    }
}

impl From<&OriginResponse> for Says {
    fn from(response: &OriginResponse) -> Self {
        Self {
            digest: response.digest(),
            validators: response.meta.validators.clone(),
            length: response.meta.length,
        }
    }
}

/// Whether an origin's answer to a reader shows that it would serve this very content: the digest that
/// names it, or the same strong validator. That it answers, how long the content is and when
/// it was changed are no evidence.
pub(super) fn is_evidence(says: &Says, meta: &ContentMeta, request: &ContentRequest) -> bool {
    let as_long = match (says.length, meta.length) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    let named = match (says.digest, request.digest) {
        (Some(said), Some(digest)) => said == digest,
        _ => false,
    };
    as_long && (named || meta.validators.vouch_for(&says.validators))
}

/// Names credentials at a place without keeping them.
fn name(harmless: &Harmless, url: &Url, headers: &HeaderMap) -> Name {
    let mut hash = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    let place = Place::of(url);
    match &place.repository {
        Some(repository) => {
            put(place.origin.as_bytes());
            put(repository.as_bytes());
            // A signature is good for one URL.
            if is_signed(url) {
                put(url.as_str().as_bytes());
            }
            put(url.username().as_bytes());
            put(url.password().unwrap_or_default().as_bytes());
        }
        None => put(url.as_str().as_bytes()),
    }
    // What else a request carries does not change who sends it.
    for (name, value) in harmless.credentials_in(headers) {
        put(name.as_str().as_bytes());
        put(value.as_bytes());
    }
    *hash.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn named(url: &str, token: &str) -> Name {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", token.parse().unwrap());
        headers.insert("accept", "*/*".parse().unwrap());
        name(&Harmless::default(), &url.parse().unwrap(), &headers)
    }

    #[test]
    fn credentials_open_a_repository_and_elsewhere_one_url() {
        let a = named("https://r.example/v2/team/a/blobs/sha256:1", "x");
        assert_eq!(a, named("https://r.example/v2/team/a/manifests/v1", "x"));
        assert_ne!(a, named("https://r.example/v2/team/a/manifests/v1", "y"));
        assert_ne!(a, named("https://r.example/v2/team/b/manifests/v1", "x"));
        assert_ne!(a, named("https://s.example/v2/team/a/manifests/v1", "x"));
        let f = named("https://r.example/files/a", "x");
        assert_ne!(f, named("https://r.example/files/b", "x"));
    }

    #[test]
    fn what_was_granted_ends_with_a_refusal() {
        let (admissions, now) = (Admissions::new(), Instant::now());
        let blob = |tag: &str| ContentMeta {
            validators: Validators {
                etag: Some(tag.to_owned()),
                ..Validators::default()
            },
            generation: Generation::Digest,
            ..ContentMeta::default()
        };
        let wanted =
            |number, meta: &ContentMeta| Wanted::new(TaskId::from_bytes([number; 32]), meta);
        let file_meta = ContentMeta::default();
        let [old, new] = [1, 2].map(|number| wanted(number, &file_meta));
        let [page, blob] = ["\"login\"", "\"blob\""].map(|tag| wanted(3, &blob(tag)));
        let (repository, file) = ([1; 32], [2; 32]);
        let holds = |name, wanted| admissions.holds(&name, wanted, |_| true);
        admissions.grant_repository(repository, now);
        admissions.grant(file, old, now);
        // What is in the repository has a name.
        assert!(holds(repository, blob) && !holds(repository, old));
        admissions.grant(file, page, now);
        assert!(holds(file, page) && !holds(file, blob));
        // What stands there now may be for others.
        assert!(holds(file, old) && !holds(file, new));
        let limit = Duration::from_secs(1);
        assert!(!admissions.holds(&file, old, |since| now - since > limit));
        admissions.withdraw(&repository);
        assert!(!holds(repository, blob) && holds(file, old));
    }
}
