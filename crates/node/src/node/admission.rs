//! Who may have a content: the origin says so, for each reader with its own credentials. What it said is
//! remembered for a while; nothing else is believed, least of all that somebody else was let in.

use std::time::Instant;

use hashlink::LruCache;
use http::{HeaderMap, StatusCode};
use pantala_core::{ContentDigest, ContentMeta, Error, Kind, Result, TaskId, Validators, Who};
use pantala_origin::{Harmless, OriginResponse, Place, Served, is_signed};
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};
use url::Url;

use super::{Content, ContentRequest, Node, Opened};
use crate::task::TaskHandle;

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
    /// Contents that the URL served to them, and since when that is known.
    contents: Vec<(TaskId, Instant)>,
}

impl Admissions {
    pub fn new() -> Self {
        Self {
            granted: LruCache::new(REMEMBERED).into(),
            asking: Mutex::default(),
        }
    }

    /// Whether the origin has let these credentials in, by what is remembered from `since` on.
    fn holds(&self, name: &Name, task: TaskId, since: impl Fn(Instant) -> bool) -> bool {
        let mut granted = self.granted.lock();
        let Some(granted) = granted.get(name) else {
            return false;
        };
        granted.repository.is_some_and(&since)
            || (granted.contents.iter()).any(|(of, at)| *of == task && since(*at))
    }

    fn grant(&self, name: Name, task: Option<TaskId>, now: Instant) {
        let mut granted = self.granted.lock();
        let entry = granted.entry(name).or_insert_with(Granted::default);
        match task {
            None => entry.repository = Some(now),
            Some(task) => {
                entry.contents.retain(|(of, _)| *of != task);
                if entry.contents.len() == VERSIONS {
                    entry.contents.remove(0);
                }
                entry.contents.push((task, now));
            }
        }
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
        let task = self.stands_for(&standing)?;
        let mut meta = standing.meta(now);
        meta.length = task.meta.read().length;
        (!meta.private || self.is_admitted(standing.task, request)).then_some(meta)
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
        if self.is_admitted(task.id, request) {
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
            if self.is_admitted(task, request) {
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
        self.admit(task, request);
        Ok(())
    }

    fn is_admitted(&self, task: TaskId, request: &ContentRequest) -> bool {
        let limit = self.inner.config.remember_admission;
        let name = name(self.harmless(), &request.url, &request.headers);
        let admissions = &self.inner.admissions;
        admissions.holds(&name, task, |since| since.elapsed() < limit)
    }

    /// The origin has served this reader. In a registry it may then read the repository.
    pub(super) fn admit(&self, task: TaskId, request: &ContentRequest) {
        let whole = request.digest.is_some() && Place::of(&request.url).repository.is_some();
        let name = name(self.harmless(), &request.url, &request.headers);
        let task = (!whole).then_some(task);
        self.inner.admissions.grant(name, task, Instant::now());
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
            self.inner.admissions.grant(name, None, Instant::now());
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
        let (old, new) = (TaskId::from_bytes([1; 32]), TaskId::from_bytes([2; 32]));
        let (repository, file) = ([1; 32], [2; 32]);
        let holds = |name, task| admissions.holds(&name, task, |_| true);
        admissions.grant(repository, None, now);
        admissions.grant(file, Some(old), now);
        assert!(holds(repository, old) && holds(repository, new));
        // What stands there now may be for others.
        assert!(holds(file, old) && !holds(file, new));
        let limit = Duration::from_secs(1);
        assert!(!admissions.holds(&file, old, |since| now - since > limit));
        admissions.withdraw(&repository);
        assert!(!holds(repository, old) && holds(file, old));
    }
}
