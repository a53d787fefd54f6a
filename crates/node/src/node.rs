use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderMap;
use pantala_core::{
    ByteRange, ContentDigest, ContentMeta, Error, Geometry, Kind, PeerId, ResourceKey, Result,
    TaskId, Who,
    control::{FromPeer, Hello, Known, Learned, PeerAddr, Register, ToPeer},
    display_url,
};
use pantala_origin::{
    OriginClient, OriginConfig, OriginRequest, OriginResponse, Revalidation, carries_credentials,
};
use pantala_store::{Budget, Charge, Eviction, Store, StoreStats};
use pantala_window::{Config as WindowConfig, Picker, Snapshot, WindowSize};
use pantala_wire::control::{ClientConfig, Control, ControlEvent};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    clock::Clock,
    direct::Direct,
    driver::{Driver, Ports},
    error, key,
    links::Links,
    metrics::{Metrics, Totals},
    prefetch::{self, Prefetch},
    rates::{RateLimits, Rates},
    readers::{OriginSource, Reader},
    registration::{ANSWER_TIMEOUT, Answer, Registrations},
    run::ORIGIN_BUFFER,
    server::PeerServer,
    stream::{Counted, StreamIo, StreamSetup},
    task::{Command, Planned, TaskHandle, Tasks},
};

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where the peer server listens.
    pub peer_listen: SocketAddr,
    /// Where children reach it; found out when `None`.
    pub advertise: Option<SocketAddr>,
    /// Supernodes as `host:port`; none means that this node streams from origins alone.
    pub supernodes: Vec<String>,
    /// The operator's labels, for locality.
    pub labels: Vec<(String, String)>,
    /// The memory budget in bytes.
    pub memory: u64,
    /// A fixed window in pieces; adaptive when `None`.
    pub window: Option<u32>,
    /// Which pieces leave the cache first.
    pub cache: Eviction,
    /// Transfers to children at once.
    pub uploads: usize,
    /// How fast it sends and takes.
    pub rates: RateLimits,
    /// How origins are spoken to.
    pub origin: OriginConfig,
    /// Query parameters that do not tell contents apart, besides those of signed URLs.
    pub filter_query: Vec<String>,
    /// How long the origin's word that a reader may have a content is remembered.
    pub remember_admission: Duration,
    /// What is read besides the ranges that readers ask for.
    pub prefetch: Prefetch,
}

/// What a reader wants.
#[derive(Debug, Clone)]
pub struct ContentRequest {
    /// Where it is.
    pub url: Url,
    /// The reader's own headers: they go to the origin only.
    pub headers: HeaderMap,
    /// Which bytes; everything when `None`.
    pub range: Option<Range>,
    /// The digest that names the content. The whole is held against it on the way.
    pub digest: Option<ContentDigest>,
    /// Whether what looks like a page is shared as well: HTML, JSON and the like, small and without
    /// a word of the origin on how long it is fresh. Such is often made anew for each request.
    pub share_pages: bool,
    /// Bytes a second the reader takes at most.
    pub limit_rate: Option<u64>,
    /// Whether the origin may be asked.
    pub origin_allowed: bool,
    /// Nobody waits for the bytes: all readers who wait for theirs go first, here and at peers.
    pub background: bool,
}

/// Which bytes of a content whose length may not be known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Between two offsets.
    Bytes(ByteRange),
    /// The last so many bytes.
    Suffix(u64),
}

/// What a reader gets.
#[expect(clippy::large_enum_variant, reason = "one a reader, moved once")]
pub enum Opened {
    /// Shared content.
    Content(Content),
    /// A response that is for this reader alone, straight from the origin.
    Direct(Box<Direct>),
}

/// Shared content, opened for one reader.
#[derive(Debug)]
pub struct Content {
    /// What the origin said of it.
    pub meta: ContentMeta,
    /// The first byte that the stream brings.
    pub start: u64,
    /// The byte after the last that the stream brings, when known.
    pub end: Option<u64>,
    /// The task it is.
    pub task: TaskId,
    /// The bytes.
    pub stream: StreamIo,
}

/// One stream as the operator's page shows it.
#[derive(Debug, Clone)]
pub struct StreamView {
    /// The task.
    pub task: TaskId,
    /// The URL without credentials.
    pub url: String,
    /// Bytes of the whole content, when known.
    pub length: Option<u64>,
    /// Pieces held here.
    pub held: usize,
    /// Bytes of a piece.
    pub piece_size: u64,
    /// Windows, pieces in flight and parents.
    pub state: Snapshot,
}

/// A peer. Cheap to clone; [`Node::stop`] ends all clones.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    peer: PeerId,
    peer_addr: SocketAddr,
    ports: Ports,
    registrations: Registrations,
    rates: Rates,
    /// What is fresh here without asking the supernode again.
    fresh: Mutex<HashMap<ResourceKey, (TaskId, Instant)>>,
    /// Readers that the origin would serve, remembered for a short time.
    admitted: Mutex<HashMap<[u8; 32], Instant>>,
    readers: watch::Sender<usize>,
    /// How many more may read ahead of readers.
    prefetchers: Arc<Semaphore>,
}

/// The standing connection to the supernode, where there is one.
#[derive(Clone)]
pub(crate) struct ControlPort {
    control: Option<Control>,
    contact: watch::Receiver<Contact>,
}

/// Whether a supernode was ever there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// Nobody knows yet.
    Pending,
    /// It could not be reached so far.
    Never,
    /// It was there, and may still be.
    Made,
}

impl ControlPort {
    pub fn is_up(&self) -> bool {
        self.control.as_ref().is_some_and(Control::is_up)
    }

    pub fn send(&self, message: FromPeer) -> bool {
        self.control
            .as_ref()
            .is_some_and(|control| control.send(message))
    }
}

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
const REMEMBERED: usize = 4096;
/// Commands that may wait for a driver; senders wait when there are more.
const COMMANDS: usize = 1024;
/// Content named by its digest never changes.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The alignment of the first byte asked for when nobody knows yet how large pieces are.
const ALIGN: u64 = pantala_core::MAX_PIECE;

impl Node {
    /// Starts a node: binds the peer server and connects to the supernode in the background.
    ///
    /// # Errors
    /// When the peer server cannot listen, or a CA file cannot be used.
    pub async fn start(config: NodeConfig) -> Result<Self> {
        let origin = OriginClient::new(config.origin.clone())?;
        let listener = TcpListener::bind(config.peer_listen)
            .await
            .map_err(|error| {
                let what = format!("cannot listen for peers on {}: {error}", config.peer_listen);
                Error::new(Who::User, Kind::BadInput, what).hint("choose another --peer-listen")
            })?;
        let peer_addr = listener.local_addr().map_err(|error| {
            Error::new(
                Who::Us,
                Kind::Internal,
                format!("no local address: {error}"),
            )
        })?;
        let peer = PeerId::from_bytes(rand::random());
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        let rates = Rates::new(config.rates);
        let store = Store::new(Budget::new(config.memory), config.cache);
        let metrics = Metrics::new();
        let tasks: Arc<Tasks> = Arc::default();
        let (readers, readers_seen) = watch::channel(0);
        let (contact, contact_seen) = watch::channel(Contact::Pending);
        let hello = Hello {
            peer: PeerAddr {
                id: peer,
                addr: config.advertise.unwrap_or(peer_addr),
            },
            labels: config.labels.clone(),
        };
        let (control, events) = if config.supernodes.is_empty() {
            (None, None)
        } else {
            let client = ClientConfig::new(config.supernodes.clone(), hello);
            let (control, events) = Control::start(client, cancel.clone());
            (Some(control), Some(events))
        };
        let ports = Ports {
            tasks: tasks.clone(),
            store,
            origin,
            links: Arc::new(Links::new(
                peer,
                metrics.clone(),
                rates.download(),
                tracker.clone(),
                cancel.child_token(),
            )),
            control: ControlPort {
                control,
                contact: contact_seen,
            },
            metrics: metrics.clone(),
            clock: Clock::new(),
            readers: readers_seen,
            line: Arc::default(),
            tracker: tracker.clone(),
            cancel: cancel.clone(),
        };
        let server = Arc::new(PeerServer {
            me: peer,
            tasks,
            metrics,
            slots: Arc::new(Semaphore::new(config.uploads.max(1))),
            background_slots: Arc::new(Semaphore::new(config.uploads.max(1))),
            line: Arc::default(),
            tracker: tracker.clone(),
            cancel,
        });
        tracker.spawn(server.serve(listener));
        let node = Self {
            inner: Arc::new(Inner {
                prefetchers: prefetch::slots(config.memory),
                config,
                peer,
                peer_addr,
                ports,
                registrations: Registrations::default(),
                rates,
                fresh: Mutex::default(),
                admitted: Mutex::default(),
                readers,
            }),
        };
        if let Some(events) = events {
            let this = node.clone();
            tracker.spawn(async move { this.dispatch(events, contact).await });
        }
        Ok(node)
    }

    /// Which peer this is.
    pub fn peer(&self) -> PeerId {
        self.inner.peer
    }

    /// Where the peer server listens.
    pub fn peer_addr(&self) -> SocketAddr {
        self.inner.peer_addr
    }

    /// The client for requests that are passed through.
    pub fn origin(&self) -> &OriginClient {
        &self.inner.ports.origin
    }

    pub(crate) fn prefetch(&self) -> Prefetch {
        self.inner.config.prefetch
    }

    pub(crate) fn prefetchers(&self) -> &Arc<Semaphore> {
        &self.inner.prefetchers
    }

    pub(crate) fn task_of(&self, task: &TaskId) -> Option<Arc<TaskHandle>> {
        self.inner.ports.tasks.get(task)
    }

    /// Runs something until it is done or the node stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.inner.ports.cancel.clone();
        self.inner
            .ports
            .tracker
            .spawn(async move { cancel.run_until_cancelled(work).await });
    }

    /// Content bytes moved since the start.
    pub fn totals(&self) -> Totals {
        self.inner.ports.metrics.totals(&self.inner.ports.origin)
    }

    /// Makes the node's figures part of a metrics registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let ports = &self.inner.ports;
        ports
            .metrics
            .register(registry, ports.store.clone(), ports.origin.clone());
    }

    /// What memory is used for.
    pub fn memory(&self) -> StoreStats {
        self.inner.ports.store.stats()
    }

    /// What streams or is held now.
    pub async fn streams(&self) -> Vec<StreamView> {
        let mut views = Vec::new();
        for task in self.inner.ports.tasks.all() {
            let (reply, state) = oneshot::channel();
            if task
                .commands
                .send(Command::Snapshot { reply })
                .await
                .is_err()
            {
                continue;
            }
            let Ok(state) = state.await else { continue };
            let geometry = task.pieces.geometry();
            views.push(StreamView {
                task: task.id,
                url: task.shown.clone(),
                length: geometry.length(),
                held: task.pieces.held(),
                piece_size: geometry.piece_size(),
                state,
            });
        }
        views
    }

    /// Makes ready to leave: asks nothing more of others, and waits until no child is left, but no
    /// longer than `limit`, or twice that while a child is still being served.
    pub async fn drain(&self, limit: Duration) {
        let ports = &self.inner.ports;
        // Its parents see that they are rid of this child: peers that finish together do not wait
        // for each other.
        ports.links.close();
        let started = Instant::now();
        let waits = || {
            let waited = started.elapsed();
            (ports.metrics.children() > 0 && waited < limit)
                || (ports.metrics.requests() > 0 && waited < 2 * limit)
        };
        while waits() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops everything and waits until it has stopped.
    pub async fn stop(&self) {
        self.inner.ports.cancel.cancel();
        self.inner.ports.tracker.close();
        self.inner.ports.tracker.wait().await;
        if let Some(control) = &self.inner.ports.control.control {
            control.stopped().await;
        }
    }

    // ---- opening content ------------------------------------------------------------------------

    /// Opens content for a reader: one round trip to the supernode, or none when it is fresh here.
    ///
    /// # Errors
    /// When the origin refuses or fails and nobody else has it, when the range lies outside, or
    /// when the origin may not be asked and no peer has it.
    pub async fn open(&self, request: ContentRequest) -> Result<Opened> {
        let asked = request.clone();
        let opened = self.open_somehow(request).await?;
        if let Opened::Content(content) = &opened {
            self.read_ahead(&asked, content);
        }
        Ok(opened)
    }

    async fn open_somehow(&self, request: ContentRequest) -> Result<Opened> {
        let opened = Arrival::new(self, Instant::now());
        let key = self.key(&request);
        if let Some(content) = self.open_fresh(key, &request, &opened) {
            return self.admitted(content?, request).await;
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
            private: carries_credentials(&request.url, &request.headers),
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
                self.admitted(content, request).await
            }
            Answer::Learn { stale } => self.learn(key, stale, request, opened).await,
            Answer::Direct => self.direct(request).await,
            Answer::Refused(error) => Err(error),
            Answer::Lost => {
                if let Some(content) = self.open_anyway(key, &request, &opened) {
                    return self.admitted(content?, request).await;
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

    /// What is known here of a content that is fresh, for a reader that may have it: that is asked
    /// of the origin where it must be, and nothing else is asked of anybody.
    pub async fn known(&self, request: &ContentRequest) -> Option<ContentMeta> {
        let key = self.key(request);
        let task = self.fresh(key)?;
        let meta = task.meta.read().clone();
        if meta.private
            && let Some(admission) = self.admission(&task, &meta, request)
        {
            admission.await.ok()?.ok()?;
        }
        Some(meta)
    }

    /// Waits for the origin's word that this reader may have the content, while its window is
    /// being filled already. Where the origin has something else for this reader it gets that.
    async fn admitted(&self, mut content: Content, request: ContentRequest) -> Result<Opened> {
        match content.stream.admitted().await {
            Ok(()) => Ok(Opened::Content(content)),
            Err(error) if error.kind() == Kind::Changed => {
                drop(content);
                self.direct(request).await
            }
            Err(error) => Err(error),
        }
    }

    fn key(&self, request: &ContentRequest) -> ResourceKey {
        key::of(request, &self.inner.config.filter_query)
    }

    fn remember(&self, key: ResourceKey, task: TaskId, fresh_for: Duration) {
        let mut fresh = self.inner.fresh.lock();
        let now = Instant::now();
        if fresh.len() >= REMEMBERED {
            fresh.retain(|_, (_, until)| *until > now);
        }
        if fresh.len() < REMEMBERED && !fresh_for.is_zero() {
            fresh.insert(key, (task, now + fresh_for.min(FOR_EVER)));
        }
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
    fn fresh(&self, key: ResourceKey) -> Option<Arc<TaskHandle>> {
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
    ) -> Result<Opened> {
        // In a task of its own: others wait for what it learns, though this reader may go away.
        let this = self.clone();
        let learning: JoinHandle<Result<Opened>> = self
            .inner
            .ports
            .tracker
            .spawn(async move { this.learn_now(key, stale, request, opened).await });
        learning.await.unwrap_or_else(|_| Err(error::stopping()))
    }

    async fn learn_now(
        &self,
        key: ResourceKey,
        stale: Option<Box<ContentMeta>>,
        request: ContentRequest,
        opened: Arrival,
    ) -> Result<Opened> {
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
                    Ok(Ok(Answer::Known(known))) => self
                        .attach(known.task, &request, &opened, true)
                        .map(Opened::Content),
                    // The supernode forgot it, or is gone: as if nothing had been known.
                    _ => Box::pin(self.learn_now(key, None, request, opened)).await,
                };
            }
            Err(error) => {
                say(Learned::Failed {
                    error: error.clone(),
                });
                return Err(error);
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
        content.map(Opened::Content)
    }

    /// Whether there are more readers than half the memory has pieces for. Then whoever comes with
    /// content that nobody has yet gets it straight from the origin, as without us, rather than
    /// wait for the others' pieces.
    fn is_crowded(&self) -> bool {
        let readers = *self.inner.readers.borrow() as u64;
        readers > 1
            && readers * pantala_core::MIN_PIECE > self.inner.ports.store.budget().limit() / 2
    }

    /// Memory for what a transfer from the origin reads ahead.
    async fn origin_buffer(&self) -> Charge {
        self.inner.ports.store.budget().charge(ORIGIN_BUFFER).await
    }

    async fn first_get(
        &self,
        request: &ContentRequest,
        stale: Option<&ContentMeta>,
    ) -> Result<Revalidation> {
        if !request.origin_allowed {
            return Err(error::nobody_has_it());
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
        };
        let origin = &self.inner.ports.origin;
        let charge = self.origin_buffer().await;
        let mut answer = match stale {
            Some(meta) => origin.revalidate(request, &meta.validators).await?,
            None => Revalidation::Sent(Box::new(origin.get(request).await?)),
        };
        if let Revalidation::Sent(response) = &mut answer {
            response.body.hold(charge);
        }
        Ok(answer)
    }

    async fn direct(&self, request: ContentRequest) -> Result<Opened> {
        if !request.origin_allowed {
            return Err(error::nobody_has_it());
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
        };
        let charge = self.origin_buffer().await;
        let mut response = self.inner.ports.origin.get(asked).await?;
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
            self.admit(admission_name(task.id, request));
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
        });
        Ok(Content {
            meta,
            start,
            end,
            task: id,
            stream,
        })
    }

    /// Asks the origin whether it would serve this very content to this reader, unless it said so
    /// a moment ago.
    fn admission(
        &self,
        task: &TaskHandle,
        meta: &ContentMeta,
        request: &ContentRequest,
    ) -> Option<JoinHandle<Result<()>>> {
        let name = admission_name(task.id, request);
        let remembered = self.inner.admitted.lock().get(&name).copied();
        if remembered.is_some_and(|since| since.elapsed() < self.inner.config.remember_admission) {
            return None;
        }
        let (this, url, headers) = (self.clone(), request.url.clone(), request.headers.clone());
        // A digest says what it is; behind a URL there may be a content for each user.
        let same = request.digest.is_none().then(|| meta.validators.clone());
        Some(self.inner.ports.tracker.spawn(async move {
            let served = this.inner.ports.origin.check(&url, &headers).await?;
            if same.is_some_and(|same| !same.vouch_for(&served)) {
                let what = "the origin has something else for these credentials";
                return Err(Error::new(Who::Origin, Kind::Changed, what));
            }
            this.admit(name);
            Ok(())
        }))
    }

    fn admit(&self, name: [u8; 32]) {
        let mut admitted = self.inner.admitted.lock();
        if admitted.len() >= REMEMBERED {
            admitted.retain(|_, since| since.elapsed() < self.inner.config.remember_admission);
        }
        if admitted.len() < REMEMBERED {
            admitted.insert(name, Instant::now());
        }
    }

    /// The task's handle, made with its driver when it is new.
    fn task(&self, key: ResourceKey, known: &Known, shown: String) -> Arc<TaskHandle> {
        let ports = &self.inner.ports;
        let solo = ports.control.control.is_none();
        let mut taken = None;
        let (handle, new) = ports.tasks.get_or_insert(known.task, || {
            let geometry = Geometry::new(known.meta.length);
            let (commands, receiver) = mpsc::channel(COMMANDS);
            taken = Some(receiver);
            Arc::new(TaskHandle {
                id: known.task,
                key,
                shown,
                meta: known.meta.clone().into(),
                pieces: ports.store.open(known.task, geometry),
                readers: Default::default(),
                commands,
                rates: self.inner.rates.task(),
                planned: Mutex::new(Planned::Unknown),
                proven: false.into(),
                awaited: 0.into(),
                sequences: Default::default(),
                read_ahead: false.into(),
            })
        });
        if new && let Some(commands) = taken {
            let ranges = known.meta.ranges;
            let piece_size = handle.pieces.geometry().piece_size();
            let config = WindowConfig {
                window: match self.inner.config.window {
                    Some(pieces) => WindowSize::Static(pieces),
                    None => WindowConfig::default().window,
                },
                return_after: if solo || !ranges {
                    // Nobody else would use the lease, or could without starting at byte 0.
                    None
                } else {
                    WindowConfig::default().return_after
                },
                patience: self
                    .inner
                    .rates
                    .patience(WindowConfig::default().patience, piece_size),
                seed: rand::random(),
                ..WindowConfig::default()
            };
            let picker = Picker::new(config, piece_size, ports.clock.now());
            let driver = Driver::new(handle.clone(), commands, picker, ports.clone(), solo);
            ports.tracker.spawn(driver.run());
        }
        handle
    }

    // ---- the supernode's words ------------------------------------------------------------------

    async fn dispatch(
        self,
        mut events: mpsc::Receiver<ControlEvent>,
        contact: watch::Sender<Contact>,
    ) {
        let cancel = self.inner.ports.cancel.clone();
        while let Some(Some(event)) = cancel.run_until_cancelled(events.recv()).await {
            match event {
                ControlEvent::Up { advertised } => {
                    tracing::info!(%advertised, "the supernode is there");
                    contact.send_replace(Contact::Made);
                    self.tell_all(|| Command::SupernodeUp).await;
                }
                ControlEvent::Down { reason } => {
                    tracing::warn!(%reason, "no supernode; going on with the peers known and the origin");
                    contact.send_if_modified(|contact| {
                        let first = *contact == Contact::Pending;
                        if first {
                            *contact = Contact::Never;
                        }
                        first
                    });
                    self.inner.registrations.lost();
                    self.tell_all(|| Command::SupernodeDown).await;
                }
                ControlEvent::Message(message) => self.heard(message).await,
            }
        }
    }

    async fn tell_all(&self, command: impl Fn() -> Command) {
        for task in self.inner.ports.tasks.all() {
            let _ = task.commands.send(command()).await;
        }
    }

    async fn heard(&self, message: ToPeer) {
        let task = match &message {
            ToPeer::Known { key, known } => {
                // The driver must be there before what follows: leases, digests.
                let handle = self.task(*key, known, String::new());
                // To who has just learned it, too: the next reader here need not ask.
                let fresh_for = known.meta.fresh_for.unwrap_or(Duration::ZERO);
                self.remember(*key, known.task, fresh_for);
                let _ = handle.commands.send(Command::Known(known.clone())).await;
                self.inner.registrations.answer(&message);
                return;
            }
            ToPeer::Learn { key, .. } => {
                if !self.inner.registrations.answer(&message) {
                    // The reader has gone: the next one who waits anywhere learns.
                    let error = Error::new(Who::Reader, Kind::Cancelled, "the reader has gone");
                    let learned = Learned::Failed {
                        error: error.retryable(true),
                    };
                    self.inner
                        .ports
                        .control
                        .send(FromPeer::Learned { key: *key, learned });
                }
                return;
            }
            ToPeer::Direct { .. } | ToPeer::Refused { .. } => {
                self.inner.registrations.answer(&message);
                return;
            }
            ToPeer::Parents { task, .. }
            | ToPeer::Digests { task, .. }
            | ToPeer::Lease { task, .. }
            | ToPeer::LeaseEnded { task, .. }
            | ToPeer::Ended { task, .. }
            | ToPeer::Turn { task, .. }
            | ToPeer::Copies { task, .. }
            | ToPeer::Poisoned { task }
            | ToPeer::Unknown { task } => *task,
        };
        match self.inner.ports.tasks.get(&task) {
            Some(handle) => drop(handle.commands.send(Command::Control(message)).await),
            None => drop(self.inner.ports.control.send(FromPeer::Leave { task })),
        }
    }
}

impl Range {
    fn start_hint(self) -> u64 {
        match self {
            Range::Bytes(range) => range.start(),
            Range::Suffix(_) => 0,
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

/// The offsets a range stands for.
fn bounds(range: Option<Range>, length: Option<u64>) -> Result<(u64, Option<u64>)> {
    let outside = || {
        let of = length.map_or(String::from("of unknown length"), |length| {
            format!("of {length} bytes")
        });
        Error::new(
            Who::User,
            Kind::RangeNotSatisfiable,
            format!("the range lies outside the content {of}"),
        )
    };
    match (range, length) {
        (None, length) => Ok((0, length)),
        (Some(Range::Bytes(range)), None) => Ok((range.start(), range.end())),
        (Some(Range::Bytes(range)), Some(length)) => {
            if range.start() >= length && !(range.start() == 0 && range.end().is_none()) {
                return Err(outside());
            }
            Ok((
                range.start(),
                Some(range.end().unwrap_or(length).min(length)),
            ))
        }
        (Some(Range::Suffix(0)), _) | (Some(Range::Suffix(_)), None | Some(0)) => Err(outside()),
        (Some(Range::Suffix(last)), Some(length)) => {
            Ok((length.saturating_sub(last), Some(length)))
        }
    }
}

/// Names a reader's credentials for a content without keeping them.
fn admission_name(task: TaskId, request: &ContentRequest) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(task.as_bytes());
    let mut put = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    put(request.url.as_str().as_bytes());
    for (name, value) in &request.headers {
        put(name.as_str().as_bytes());
        put(value.as_bytes());
    }
    *hash.finalize().as_bytes()
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("peer", &self.inner.peer)
            .field("addr", &self.inner.peer_addr)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(start: u64, end: Option<u64>) -> Option<Range> {
        Some(Range::Bytes(ByteRange::new(start, end).unwrap()))
    }

    #[test]
    fn ranges_become_offsets() {
        assert_eq!(bounds(None, Some(10)), Ok((0, Some(10))));
        assert_eq!(bounds(bytes(2, Some(5)), Some(10)), Ok((2, Some(5))));
        assert_eq!(bounds(bytes(2, Some(50)), Some(10)), Ok((2, Some(10))));
        assert_eq!(bounds(bytes(2, None), Some(10)), Ok((2, Some(10))));
        assert_eq!(bounds(Some(Range::Suffix(3)), Some(10)), Ok((7, Some(10))));
        assert_eq!(bounds(Some(Range::Suffix(30)), Some(10)), Ok((0, Some(10))));
        assert!(bounds(bytes(10, None), Some(10)).is_err());
        assert!(bounds(Some(Range::Suffix(0)), Some(10)).is_err());
        assert_eq!(bounds(bytes(0, None), Some(0)), Ok((0, Some(0))));
    }
}
