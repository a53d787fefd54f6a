//! Opening content: from what is fresh here, by the word of the supernode, or from the origin itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pantala_core::{
    ByteRange, Class, ContentDigest, ContentMeta, Error, Generation, Geometry, Kind, ResourceKey,
    Result, TaskId, Who,
    control::{FromPeer, Known, Learned, Register},
    display_url,
};
use pantala_origin::{Harmless, OriginRequest, OriginResponse, Refused, Revalidation};
use pantala_store::Charge;
use tokio::task::JoinHandle;
use url::Url;

use super::{
    Content, ContentRequest, Node, Opened, Range,
    admission::{Says, is_evidence},
    request::bounds,
};
use crate::{
    alone::Place,
    direct::Direct,
    error, key,
    readers::{OriginSource, Reader},
    registration::Answer,
    run::ORIGIN_BUFFER,
    shelf::Standing,
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

/// How often a reader begins with a transfer that others began, until it has one of its own.
const BEGINNINGS: usize = 4;
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
        let opened = self.open_persistently(request).await?;
        if let Opened::Content(content) = &opened {
            self.read_ahead(&asked, content);
        }
        Ok(opened)
    }

    /// Opens content; where that comes from a single transfer, and the transfer is over before this
    /// reader has a byte of it, the reader begins anew with the next answer of the origin.
    async fn open_persistently(&self, request: ContentRequest) -> Result<Opened, Refused> {
        for _ in 0..BEGINNINGS {
            let mut opened = self.open_somehow(request.clone()).await?;
            let Opened::Content(content) = &mut opened else {
                return Ok(opened);
            };
            if content.meta.generation != Generation::Transfer {
                return Ok(opened);
            }
            match content.stream.begins().await {
                Err(error) if error.kind() == Kind::Changed => {
                    tracing::info!(task = ?content.task, %error, "beginning anew");
                }
                _ => return Ok(opened),
            }
        }
        self.direct(request).await
    }

    async fn open_somehow(&self, request: ContentRequest) -> Result<Opened, Refused> {
        let opened = Arrival::new(self, Instant::now());
        let key = self.key(&request);
        if let Some(content) = self.open_fresh(key, &request, &opened) {
            return Ok(self.admitted(content?, request).await?);
        }
        if self.inner.ports.control.control.is_none() {
            return self.learn(key, self.kept(&key), request, opened).await;
        }
        match self.ask_supernode(key, &request).await {
            Answer::Known(known) if self.unfit(&known.meta).is_some() => self.direct(request).await,
            Answer::Known(known) => {
                let content = self.attach(known.task, known.meta, &request, &opened, false)?;
                Ok(self.admitted(content, request).await?)
            }
            Answer::Learn { stale } => self.learn(key, stale, request, opened).await,
            Answer::Direct => self.direct(request).await,
            Answer::Refused(error) => Err(error.into()),
            Answer::Lost => {
                self.inner.ports.control.fall_back().await;
                self.learn(key, self.kept(&key), request, opened).await
            }
        }
    }

    /// Registers a reader, and waits for what the supernode says: as long as another peer may be
    /// waiting for the origin, because asking that again would not make it quicker.
    async fn ask_supernode(&self, key: ResourceKey, request: &ContentRequest) -> Answer {
        let told = self.inner.registrations.wait(key);
        let register = FromPeer::Register(Register {
            key,
            shown: display_url(request.url.as_str()),
            start: request.range.map_or(0, |range| range.start_hint()),
            content: key::content(request, &self.inner.config.filter_query),
        });
        let control = &self.inner.ports.control;
        control.ask(register, told, self.answer_timeout()).await
    }

    /// The longest a supernode that is there may take to answer: the peer that asks the origin may
    /// take as long as an origin may, and its successor once more.
    fn answer_timeout(&self) -> Duration {
        2 * self.inner.config.origin.answer_timeout
    }

    pub(super) fn key(&self, request: &ContentRequest) -> ResourceKey {
        key::of(
            request,
            &self.inner.config.filter_query,
            self.class(request),
        )
    }

    /// Whether the origin may answer this request otherwise than anybody's: it carries credentials,
    /// or is let in by those of this host.
    fn class(&self, request: &ContentRequest) -> Class {
        let origin = &self.inner.ports.origin;
        let proves_nothing = (self.harmless()).is_anonymous(&request.url, &request.headers);
        if proves_nothing && !origin.lets_us_in(&request.url) {
            Class::Anonymous
        } else {
            Class::Credentialed
        }
    }

    /// What stands behind a URL has been changed: what is known of it holds no more, here and at the
    /// other peers (RFC 9111, 4.4).
    pub fn changed(&self, url: &Url) {
        let key = key::of_url(url, &self.inner.config.filter_query);
        self.inner.ports.shelf.forget_url(&key);
        // Nobody else knows anything where there is no supernode.
        self.inner.ports.control.send(FromPeer::Changed { key });
    }

    pub(super) fn harmless(&self) -> &Harmless {
        self.inner.ports.origin.harmless()
    }

    fn open_fresh(
        &self,
        key: ResourceKey,
        request: &ContentRequest,
        opened: &Arrival,
    ) -> Option<Result<Content>> {
        let now = Instant::now();
        let standing = self.inner.ports.shelf.fresh(&key, now)?;
        self.stands_for(&standing)?;
        Some(self.attach(standing.task, standing.meta(now), request, opened, false))
    }

    /// The task that an answer on the shelf is of, where it is whole. A name may have been forgotten and
    /// have come to stand for another content since, through another place: an answer of another
    /// length is not of that.
    pub(super) fn stands_for(&self, standing: &Standing) -> Option<Arc<TaskHandle>> {
        let task = self.inner.ports.tasks.get(&standing.task)?;
        let agrees = match (standing.length(), task.meta.read().length) {
            (Some(said), Some(length)) => said == length,
            _ => true,
        };
        (agrees && !task.is_broken()).then_some(task)
    }

    /// What stood behind a resource when it was last heard of, where its content is still here. The
    /// origin has to say whether it still does.
    fn kept(&self, key: &ResourceKey) -> Option<Stale> {
        let standing = self.inner.ports.shelf.last(key)?;
        self.stands_for(&standing)?;
        let meta = standing.meta(Instant::now());
        Some((standing.task, Box::new(meta)))
    }

    /// Asks the origin itself, and goes on with that very transfer as the first source lease.
    /// `stale`: what may stand there, unchanged.
    async fn learn(
        &self,
        key: ResourceKey,
        stale: Option<Stale>,
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
        stale: Option<Stale>,
        request: ContentRequest,
        opened: Arrival,
    ) -> Result<Opened, Refused> {
        let owed = Owed::new(self, key);
        if self.is_crowded() && !self.inner.alone.is_full() {
            let what = "this peer has more readers than its memory has pieces for";
            let error = Error::new(Who::Us, Kind::NoMemory, what);
            owed.say(Learned::Failed { error });
            return self.direct(request).await;
        }
        let response = match self.first_get(&request, stale.as_ref()).await {
            Ok(First::Sent(response)) => *response,
            Ok(First::Unchanged {
                shareable: false, ..
            }) => {
                owed.say(Learned::Unshareable);
                return self.direct(request).await;
            }
            Ok(First::Unchanged { task, meta, .. }) => {
                return match self.unchanged(owed, task, *meta, &request, &opened).await? {
                    Some(content) => Ok(Opened::Content(content)),
                    // Everybody forgot it meanwhile: as if nothing had been known.
                    None => Box::pin(self.learn_now(key, None, request, opened)).await,
                };
            }
            Err(refused) => {
                self.forget_admission(&request, &refused.error);
                let error = refused.error.clone();
                owed.say(Learned::Failed { error });
                return Err(refused);
            }
        };
        let unfit = self.unfit(&response.meta);
        let joins = self.may_join(&response, stale.as_ref(), &request);
        if unfit.is_some() || !joins || !self.is_shareable(&response, &request, key.class()) {
            owed.say(match unfit {
                // Others may have the memory for it.
                Some(error) if error.kind() == Kind::NoMemory => {
                    tracing::warn!(%error, "content goes to its reader straight from the origin");
                    Learned::Failed { error }
                }
                Some(_) => Learned::Unshareable,
                None => unshareable(&request),
            });
            // The range that was asked of the origin was aligned for pieces.
            return match request.range {
                None if let Some(place) = self.inner.alone.try_enter() => {
                    Ok(self.opened_direct(response, place, &request))
                }
                // Where there is no place the transfer must not take memory while it waits for one.
                _ => {
                    drop(response);
                    self.direct(request).await
                }
            };
        }
        self.begin(owed, response, request, opened).await
    }

    /// The origin says that a content that is known stands there: lets the reader in. `None` when
    /// nobody has the content any more.
    async fn unchanged(
        &self,
        owed: Owed<'_>,
        task: TaskId,
        meta: ContentMeta,
        request: &ContentRequest,
        opened: &Arrival,
    ) -> Result<Option<Content>> {
        let key = owed.key;
        let told = self.inner.registrations.wait(key);
        self.inner
            .ports
            .shelf
            .put(key, task, meta.clone(), Instant::now());
        if owed.say(Learned::Unchanged {
            task,
            meta: meta.clone(),
        }) && let Ok(Ok(Answer::Known(known))) =
            tokio::time::timeout(self.answer_timeout(), told).await
        {
            let content = self.attach(known.task, known.meta, request, opened, true)?;
            return Ok(Some(content));
        }
        if self.inner.ports.tasks.get(&task).is_none() {
            return Ok(None);
        }
        Ok(Some(self.attach(task, meta, request, opened, true)?))
    }

    /// Begins a content with the transfer that brought what is known of it.
    async fn begin(
        &self,
        owed: Owed<'_>,
        mut response: OriginResponse,
        request: ContentRequest,
        opened: Arrival,
    ) -> Result<Opened, Refused> {
        let key = owed.key;
        let mut meta = response.meta.clone();
        meta.piece_size = Some(Geometry::of(&meta).piece_size());
        let task = match key::content(&request, &self.inner.config.filter_query) {
            Some(task) => {
                meta.fresh_for = Some(FOR_EVER);
                meta.generation = Generation::Digest;
                response.body.named_by_digest();
                // It may be had by whoever the origin would serve, and by nobody unasked.
                meta.private |= !response.shareable;
                task
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
        self.inner
            .ports
            .shelf
            .put(key, task, meta.clone(), Instant::now());
        let content = self.attach(task, meta.clone(), &request, &opened, true);
        owed.say(Learned::Content { task, meta });
        if let Ok(content) = &content {
            let start = response.start;
            // What no other transfer can bring is kept from this one's first byte on.
            let from = match content.meta.generation {
                Generation::Transfer => start,
                Generation::Validators | Generation::Digest => content.start,
            };
            let first = handle.pieces.geometry().piece_at(from);
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
        stale: Option<&Stale>,
    ) -> Result<First, Refused> {
        if !request.origin_allowed {
            return Err(error::nobody_has_it().into());
        }
        if let (Some((task, meta)), Some(_)) = (stale, &request.digest)
            && let Some(meta) = self.is_here_too(request, meta).await?
        {
            return Ok(First::Unchanged {
                task: *task,
                meta: meta.into(),
                shareable: true,
            });
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
        let asked = OriginRequest {
            headers: request.headers.clone(),
            range,
            follow: request.follow,
            ask_again: request.ask_again,
            interim: request.interim.clone(),
            ..OriginRequest::new(request.url.clone())
        };
        let origin = &self.inner.ports.origin;
        let charge = self.origin_buffer().await;
        let mut response = match stale.filter(|_| request.digest.is_none()) {
            Some((task, meta)) => match origin.revalidate(asked, meta).await? {
                Revalidation::Unchanged { meta, shareable } => {
                    return Ok(First::Unchanged {
                        task: *task,
                        meta,
                        shareable,
                    });
                }
                Revalidation::Sent(response) => response,
            },
            None => Box::new(origin.get_or_refusal(asked).await?),
        };
        response.body.hold(charge);
        Ok(First::Sent(response))
    }

    /// Asks the origin, without a body, whether a content that is here under its digest stands in
    /// this place as well. `None` where it does not say so.
    async fn is_here_too(
        &self,
        request: &ContentRequest,
        meta: &ContentMeta,
    ) -> Result<Option<ContentMeta>, Refused> {
        let origin = &self.inner.ports.origin;
        let served = origin.check(&request.url, &request.headers, request.follow);
        // Its refusal has words of its own, which only the request itself brings.
        let Ok(served) = served.await else {
            return Ok(None);
        };
        Ok(
            is_evidence(&Says::from(&served), meta, request).then(|| ContentMeta {
                fresh_for: Some(FOR_EVER),
                age: Duration::ZERO,
                ..meta.clone()
            }),
        )
    }

    pub(super) async fn direct(&self, request: ContentRequest) -> Result<Opened, Refused> {
        if !request.origin_allowed {
            return Err(error::nobody_has_it().into());
        }
        let (range, suffix) = match request.range {
            Some(Range::Bytes(range)) => (range, None),
            Some(Range::Suffix(last)) => (ByteRange::ALL, Some(last)),
            None => (ByteRange::ALL, None),
        };
        let asked = OriginRequest {
            headers: request.headers.clone(),
            range,
            suffix,
            follow: request.follow,
            ask_again: request.ask_again,
            interim: request.interim.clone(),
            ..OriginRequest::new(request.url.clone())
        };
        let place = self.inner.alone.enter().await;
        let charge = self.origin_buffer().await;
        let mut response = self.inner.ports.origin.get_or_refusal(asked).await?;
        response.body.hold(charge);
        Ok(self.opened_direct(response, place, &request))
    }

    fn opened_direct(
        &self,
        response: OriginResponse,
        place: Place,
        request: &ContentRequest,
    ) -> Opened {
        let limits = self.inner.rates.direct(request.limit_rate);
        let direct = Direct::new(response, place, request.range, request.digest, limits);
        Opened::Direct(Box::new(direct))
    }

    /// Opens a reader on a task that is here. `meta` is what the resource that it asked for answers;
    /// `learned`: the origin has just served this reader.
    pub(crate) fn attach(
        &self,
        task: TaskId,
        mut meta: ContentMeta,
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
            let length = task.meta.read().length;
            let (start, end) = bounds(request.range, length)?;
            let geometry = task.pieces.geometry();
            // A transfer that no other can follow, and that brings the whole whatever was asked for, goes
            // on for whoever comes next as long as this reader is there.
            let goes_on = task.meta.read().generation == Generation::Transfer && !meta.ranges;
            let last = end
                .filter(|_| !goes_on)
                .map(|end| geometry.piece_after(end));
            let reader = task.readers.open(
                geometry.piece_at(start),
                last,
                source,
                request.background,
                opened.counted.clone(),
            );
            Ok((task.clone(), reader, length, start, end))
        });
        let Some(found) = found else {
            return Err(error::stopping().retryable(true));
        };
        let (task, reader, length, start, end): (Arc<TaskHandle>, Arc<Reader>, _, u64, _) = found?;
        meta.length = length;
        let admission = (meta.private && !learned)
            .then(|| self.admission(&task, &meta, request))
            .flatten();
        if learned {
            self.admit(task.id, request);
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
            memory: self.inner.config.memory,
            learned,
            opened: opened.at,
            counted: opened.counted.clone(),
            tracker: ports.tracker.clone(),
        });
        Ok(Content {
            meta,
            start,
            end,
            task: id,
            learned,
            stream,
        })
    }

    /// Whether an answer may become part of the content that its name stands for here already, or at
    /// other peers (`stale`): only with the evidence that lets a reader in. A page that somebody answers
    /// with under the same name would lend its headers to the content's bytes.
    fn may_join(
        &self,
        response: &OriginResponse,
        stale: Option<&Stale>,
        request: &ContentRequest,
    ) -> bool {
        let Some(task) = key::content(request, &self.inner.config.filter_query) else {
            return true;
        };
        let says = Says::from(response);
        let here = self.inner.ports.tasks.get(&task);
        let here = here.is_none_or(|task| is_evidence(&says, &task.meta.read(), request));
        here && stale.is_none_or(|(_, meta)| is_evidence(&says, meta, request))
    }

    /// Whether others than who asked may have a response, and would want it.
    fn is_shareable(
        &self,
        response: &OriginResponse,
        request: &ContentRequest,
        class: Class,
    ) -> bool {
        let meta = &response.meta;
        if let Some(digest) = &request.digest {
            return may_be(response, digest);
        }
        // Nothing would tell what is behind other credentials from this.
        let untold = meta.private && meta.validators.strong_etag().is_none();
        // It was let in by what nobody foresaw: it would be taken for everybody's.
        let unforeseen = meta.private && class == Class::Anonymous;
        let page = !request.share_pages && meta.fresh_for.is_none() && is_page(meta);
        response.shareable && !untold && !unforeseen && !page
    }
}

/// What one GET for a content brought.
enum First {
    /// A content that is known stands there.
    Unchanged {
        task: TaskId,
        /// What the answer says of it now.
        meta: Box<ContentMeta>,
        /// Whether others than who asked may still have it.
        shareable: bool,
    },
    Sent(Box<OriginResponse>),
}

/// A content that may stand behind a resource still, and the answer that said so.
pub(crate) type Stale = (TaskId, Box<ContentMeta>);

/// The word on a resource that is owed to the supernode, because others wait for it. When nothing
/// was said by the time it is dropped, learning failed here, and another peer tries.
struct Owed<'a> {
    node: &'a Node,
    key: ResourceKey,
    said: bool,
}

impl<'a> Owed<'a> {
    fn new(node: &'a Node, key: ResourceKey) -> Self {
        let said = false;
        Self { node, key, said }
    }

    /// Says it; `false` when there is nobody to say it to.
    fn say(mut self, learned: Learned) -> bool {
        self.said = true;
        self.tell(learned)
    }

    fn tell(&self, learned: Learned) -> bool {
        let key = self.key;
        self.node
            .inner
            .ports
            .control
            .send(FromPeer::Learned { key, learned })
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if !self.said {
            let error = Error::new(Who::Us, Kind::Internal, "learning ended without a word");
            self.tell(Learned::Failed {
                error: error.retryable(true),
            });
        }
    }
}

/// What others are told of an answer that is for one reader alone. A name that is answered with
/// something else says only that this reader does not get the content.
fn unshareable(request: &ContentRequest) -> Learned {
    if request.digest.is_none() {
        return Learned::Unshareable;
    }
    let what = "the origin answers with something else than the content that is named";
    Learned::Failed {
        error: Error::new(Who::Origin, Kind::Denied, what),
    }
}

/// Whether an answer may be the content with this digest, as far as its head tells: a page that asks
/// for a password is not.
fn may_be(response: &OriginResponse, digest: &ContentDigest) -> bool {
    match response.digest() {
        Some(said) => said == *digest,
        None => !response.meta.content_type.as_deref().is_some_and(is_html),
    }
}

fn is_html(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml")
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
