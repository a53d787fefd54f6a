//! Opening content: from what is fresh here, by the word of the supernode, or from the origin itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pantala_core::{
    ByteRange, ContentMeta, Error, Kind, ResourceKey, Result, TaskId, Who,
    control::{FromPeer, Known, Learned, Register},
    display_url,
};
use pantala_origin::{Harmless, OriginRequest, OriginResponse, Refused, Revalidation};
use pantala_store::Charge;
use pantala_window::Config as WindowConfig;
use tokio::task::JoinHandle;

use super::{
    Content, ContentRequest, Node, Opened, REMEMBERED, Range, heard::Contact, request::bounds,
};
use crate::{
    direct::Direct,
    error, key,
    readers::{OriginSource, Reader},
    registration::{ANSWER_TIMEOUT, Answer},
    run::ORIGIN_BUFFER,
    stream::{Counted, StreamIo, StreamSetup},
    task::{Command, TaskHandle},
};

/// A reader that has come: when, and its place among those that share the memory. Counted before
/// anything else, so that a thousand that come at once know of each other.
pub(crate) struct Arrival {
    at: Instant,
    counted: Arc<Counted>,
}

impl Arrival {
    pub fn new(node: &Node, at: Instant) -> Self {
        let counted = Counted::new(&node.inner.readers).into();
        Self { at, counted }
    }
}

/// How long a reader waits for the first word of the supernode before it goes on without.
const FIRST_CONTACT: Duration = Duration::from_millis(500);
/// Content named by its digest never changes.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The alignment of the first byte asked for when nobody knows yet how large pieces are.
const ALIGN: u64 = pantala_core::MAX_PIECE;

impl Node {
    /// Opens content for a reader: one round trip to the supernode, or none when it is fresh here.
    ///
    /// # Errors
    /// When the origin refuses or fails and nobody else has it, when the range lies outside, or
    /// when the origin may not be asked and no peer has it.
    pub async fn open(&self, request: ContentRequest) -> Result<Opened> {
        self.open_or_refusal(request)
            .await
            .map_err(|refused| refused.error)
    }

    /// The same, with the origin's own words where it refused this very reader.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn open_or_refusal(&self, request: ContentRequest) -> Result<Opened, Refused> {
        let asked = request.clone();
        let opened = self.open_somehow(request).await?;
        if let Opened::Content(content) = &opened {
            self.read_ahead(&asked, content);
        }
        Ok(opened)
    }

    async fn open_somehow(&self, request: ContentRequest) -> Result<Opened, Refused> {
        let opened = Arrival::new(self, Instant::now());
        let key = self.key(&request);
        if let Some(content) = self.open_fresh(key, &request, &opened) {
            return Ok(self.admitted(content?, request).await?);
        }
        if self.inner.ports.control.control.is_none() {
            return self.learn(key, None, request, opened).await;
        }
        let mut contact = self.inner.ports.control.contact.clone();
        let known_before = *contact.borrow() == Contact::Made;
        // A refused connection is known at once; only silence takes this long.
        let made = contact.wait_for(|contact| *contact != Contact::Pending);
        let _ = tokio::time::timeout(FIRST_CONTACT, made).await;
        let told = self.inner.registrations.wait(key);
        let register = FromPeer::Register(Register {
            key,
            shown: display_url(request.url.as_str()),
            start: request.range.map_or(0, |range| range.start_hint()),
            private: !self.harmless().is_anonymous(&request.url, &request.headers),
        });
        let answer = if self.inner.ports.control.send(register) {
            match tokio::time::timeout(ANSWER_TIMEOUT, told).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Answer::Lost,
            }
        } else {
            Answer::Lost
        };
        match answer {
            Answer::Known(known) => {
                let content = self.attach(known.task, &request, &opened, false)?;
                Ok(self.admitted(content, request).await?)
            }
            Answer::Learn { stale } => self.learn(key, stale, request, opened).await,
            Answer::Direct => self.direct(request).await,
            Answer::Refused(error) => Err(error.into()),
            Answer::Lost => {
                if let Some(content) = self.open_anyway(key, &request, &opened) {
                    return Ok(self.admitted(content?, request).await?);
                }
                if known_before {
                    // A thousand peers may lose the same supernode at this moment.
                    let pause = WindowConfig::default()
                        .fallback
                        .mul_f64(rand::random_range(0.1..1.0));
                    tokio::time::sleep(pause).await;
                }
                self.learn(key, None, request, opened).await
            }
        }
    }

    /// The request headers that play no part in who may read.
    pub(super) fn harmless(&self) -> &Harmless {
        self.inner.ports.origin.harmless()
    }

    pub(super) fn key(&self, request: &ContentRequest) -> ResourceKey {
        key::of(request, &self.inner.config.filter_query)
    }

    fn open_fresh(
        &self,
        key: ResourceKey,
        request: &ContentRequest,
        opened: &Arrival,
    ) -> Option<Result<Content>> {
        let task = self.fresh(key)?;
        Some(self.attach(task.id, request, opened, false))
    }

    /// The task that is fresh here under a key.
    pub(super) fn fresh(&self, key: ResourceKey) -> Option<Arc<TaskHandle>> {
        let (task, until) = self.inner.fresh.lock().get(&key).copied()?;
        if Instant::now() >= until {
            return None;
        }
        self.inner.ports.tasks.get(&task)
    }

    /// Without a supernode what is here is better than asking the origin again.
    fn open_anyway(
        &self,
        key: ResourceKey,
        request: &ContentRequest,
        opened: &Arrival,
    ) -> Option<Result<Content>> {
        let task = self
            .inner
            .ports
            .tasks
            .all()
            .into_iter()
            .find(|task| task.key == key)?;
        Some(self.attach(task.id, request, opened, false))
    }

    /// Asks the origin itself, and goes on with that very transfer as the first source lease.
    /// `stale`: what was known before, which may be unchanged.
    async fn learn(
        &self,
        key: ResourceKey,
        stale: Option<Box<ContentMeta>>,
        request: ContentRequest,
        opened: Arrival,
    ) -> Result<Opened, Refused> {
        // In a task of its own: others wait for what it learns, though this reader may go away.
        let this = self.clone();
        let learning: JoinHandle<Result<Opened, Refused>> = self
            .inner
            .ports
            .tracker
            .spawn(async move { this.learn_now(key, stale, request, opened).await });
        learning
            .await
            .unwrap_or_else(|_| Err(error::stopping().into()))
    }

    async fn learn_now(
        &self,
        key: ResourceKey,
        stale: Option<Box<ContentMeta>>,
        request: ContentRequest,
        opened: Arrival,
    ) -> Result<Opened, Refused> {
        let say = |learned| {
            self.inner
                .ports
                .control
                .send(FromPeer::Learned { key, learned })
        };
        if self.is_crowded() {
            let what = "this peer has more readers than its memory has pieces for";
            let error = Error::new(Who::Us, Kind::NoMemory, what);
            say(Learned::Failed { error });
            return self.direct(request).await;
        }
        let response = match self.first_get(&request, stale.as_deref()).await {
            Ok(Revalidation::Sent(response)) => *response,
            Ok(Revalidation::Unchanged { fresh_for }) => {
                let mut meta = *stale.unwrap_or_default();
                meta.fresh_for = fresh_for;
                let told = self.inner.registrations.wait(key);
                say(Learned::Unchanged { meta });
                return match tokio::time::timeout(ANSWER_TIMEOUT, told).await {
                    Ok(Ok(Answer::Known(known))) => Ok(Opened::Content(
                        self.attach(known.task, &request, &opened, true)?,
                    )),
                    // The supernode forgot it, or is gone: as if nothing had been known.
                    _ => Box::pin(self.learn_now(key, None, request, opened)).await,
                };
            }
            Err(refused) => {
                let error = refused.error.clone();
                say(Learned::Failed { error });
                return Err(refused);
            }
        };
        // What is named by its digest is the same for everybody who may have it.
        if !is_shareable(&response, &request) {
            say(Learned::Unshareable);
            // The range that was asked of the origin was aligned for pieces.
            return match request.range {
                None => Ok(self.opened_direct(response, &request)),
                Some(_) => self.direct(request).await,
            };
        }
        let mut meta = response.meta.clone();
        let task = match &request.digest {
            Some(digest) => {
                meta.fresh_for = Some(FOR_EVER);
                meta.private |= !response.shareable;
                TaskId::of_digest(digest)
            }
            None => TaskId::of_content(&key, &meta.validators, meta.length, rand::random()),
        };
        let known = Known {
            task,
            meta: meta.clone(),
            digests: Vec::new(),
            parents: Default::default(),
        };
        let handle = self.task(key, &known, display_url(request.url.as_str()));
        // Only a supernode can say for how long others may take it for fresh.
        if self.inner.ports.control.control.is_none() {
            self.remember(key, task, meta.fresh_for.unwrap_or(Duration::ZERO));
        }
        let content = self.attach(task, &request, &opened, true);
        say(Learned::Content { task, meta });
        if let Ok(content) = &content {
            let start = response.start;
            let first = handle.pieces.geometry().piece_at(content.start);
            let learned = Command::Learned {
                first,
                start,
                body: response.body,
            };
            let _ = handle.commands.send(learned).await;
        }
        // Not before: the driver would ask the origin again for what is open already.
        if self.inner.ports.control.control.is_none() {
            let _ = handle.commands.send(Command::Alone).await;
        }
        Ok(Opened::Content(content?))
    }

    /// Whether there are more readers than a third of the memory has pieces for (the rest is for what
    /// their transfers from the origin read ahead). Then whoever comes with
    /// content that nobody has yet gets it straight from the origin, as without us, rather than
    /// wait for the others' pieces.
    fn is_crowded(&self) -> bool {
        let readers = *self.inner.readers.borrow() as u64;
        readers > 1
            && readers * pantala_core::MIN_PIECE > self.inner.ports.store.budget().limit() / 3
    }

    /// Memory for what a transfer from the origin reads ahead.
    async fn origin_buffer(&self) -> Charge {
        self.inner.ports.store.budget().charge(ORIGIN_BUFFER).await
    }

    async fn first_get(
        &self,
        request: &ContentRequest,
        stale: Option<&ContentMeta>,
    ) -> Result<Revalidation, Refused> {
        if !request.origin_allowed {
            return Err(error::nobody_has_it().into());
        }
        let range = match request.range {
            Some(Range::Bytes(range)) if !range.is_all() => {
                // Pieces of any size begin at multiples of the largest.
                let start = range.start() / ALIGN * ALIGN;
                let end = range
                    .end()
                    .map(|end| end.div_ceil(ALIGN).saturating_mul(ALIGN));
                ByteRange::new(start, end).unwrap_or(ByteRange::ALL)
            }
            _ => ByteRange::ALL,
        };
        let request = OriginRequest {
            url: request.url.clone(),
            headers: request.headers.clone(),
            range,
            expect: None,
            follow: request.follow,
        };
        let origin = &self.inner.ports.origin;
        let charge = self.origin_buffer().await;
        let mut answer = match stale {
            Some(meta) => origin.revalidate(request, &meta.validators).await?,
            None => Revalidation::Sent(Box::new(origin.get_or_refusal(request).await?)),
        };
        if let Revalidation::Sent(response) = &mut answer {
            response.body.hold(charge);
        }
        Ok(answer)
    }

    pub(super) async fn direct(&self, request: ContentRequest) -> Result<Opened, Refused> {
        if !request.origin_allowed {
            return Err(error::nobody_has_it().into());
        }
        let range = match request.range {
            Some(Range::Bytes(range)) => range,
            _ => ByteRange::ALL,
        };
        let asked = OriginRequest {
            url: request.url.clone(),
            headers: request.headers.clone(),
            range,
            expect: None,
            follow: request.follow,
        };
        let charge = self.origin_buffer().await;
        let mut response = self.inner.ports.origin.get_or_refusal(asked).await?;
        response.body.hold(charge);
        Ok(self.opened_direct(response, &request))
    }

    fn opened_direct(&self, response: OriginResponse, request: &ContentRequest) -> Opened {
        let limits = self.inner.rates.direct(request.limit_rate);
        let direct = Direct::new(response, request.range, request.digest, limits);
        Opened::Direct(Box::new(direct))
    }

    /// Opens a reader on a task that is here. `learned`: the origin has just served this reader.
    pub(crate) fn attach(
        &self,
        task: TaskId,
        request: &ContentRequest,
        opened: &Arrival,
        learned: bool,
    ) -> Result<Content> {
        let source = OriginSource {
            url: request.url.clone(),
            headers: request.headers.clone(),
            allowed: request.origin_allowed,
        };
        let ports = &self.inner.ports;
        let found = ports.tasks.with(&task, |task| {
            let (start, end) = bounds(request.range, task.meta.read().length)?;
            let geometry = task.pieces.geometry();
            let last = end.map(|end| geometry.piece_after(end));
            let reader =
                task.readers
                    .open(geometry.piece_at(start), last, source, request.background);
            Ok((task.clone(), reader, start, end))
        });
        let Some(found) = found else {
            return Err(error::stopping().retryable(true));
        };
        let (task, reader, start, end): (Arc<TaskHandle>, Arc<Reader>, u64, _) = found?;
        let meta = task.meta.read().clone();
        let admission = (meta.private && !learned)
            .then(|| self.admission(&task, &meta, request))
            .flatten();
        if learned {
            self.admit_to(task.id, request);
        }
        let whole = request.range.is_none() || (start == 0 && end == meta.length);
        let proven = task.proven.load(std::sync::atomic::Ordering::Relaxed);
        let digest = request
            .digest
            .filter(|_| whole && !proven)
            .map(|digest| (digest, true));
        let id = task.id;
        let stream = StreamIo::new(StreamSetup {
            task,
            reader,
            metrics: ports.metrics.clone(),
            start,
            end,
            digest,
            limit_rate: request.limit_rate,
            admission,
            opened: opened.at,
            counted: opened.counted.clone(),
            tracker: ports.tracker.clone(),
        });
        Ok(Content {
            meta,
            start,
            end,
            task: id,
            stream,
        })
    }

    pub(super) fn remember(&self, key: ResourceKey, task: TaskId, fresh_for: Duration) {
        let mut fresh = self.inner.fresh.lock();
        let now = Instant::now();
        if fresh.len() >= REMEMBERED {
            fresh.retain(|_, (_, until)| *until > now);
        }
        if fresh.len() < REMEMBERED && !fresh_for.is_zero() {
            fresh.insert(key, (task, now + fresh_for.min(FOR_EVER)));
        }
    }
}

/// Whether others than who asked may have a response, and would want it.
fn is_shareable(response: &OriginResponse, request: &ContentRequest) -> bool {
    let meta = &response.meta;
    // Nothing would tell what is behind other credentials from this.
    let untold = meta.private && !meta.validators.vouch_for(&meta.validators);
    let page = !request.share_pages && meta.fresh_for.is_none() && is_page(meta);
    request.digest.is_some() || (response.shareable && !untold && !page)
}

/// Whether a content is more likely a page that a program made for this request than a file.
fn is_page(meta: &ContentMeta) -> bool {
    const PAGE: u64 = 1 << 20;
    let Some(kind) = &meta.content_type else {
        return false;
    };
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let of_pages = kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            kind.as_str(),
            "text/html"
                | "text/css"
                | "text/xml"
                | "text/javascript"
                | "text/event-stream"
                | "application/json"
                | "application/x-ndjson"
                | "application/javascript"
                | "application/xml"
        );
    of_pages && meta.length.is_none_or(|length| length < PAGE)
}
